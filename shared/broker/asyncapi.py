"""AsyncAPI by FastStream's own generator.

Our subscribers pull raw bytes, so the generator cannot see what they carry: it is shown a broker of the same
kind that is never connected, with a subscriber and a typed handler for each event type.
"""

from __future__ import annotations

import json
from typing import Any

from faststream.specification import AsyncAPI
from pydantic import BaseModel

from shared.broker.base import Operation
from shared.envelope import CONTENT_TYPE


def add_handler(subscriber: Any, operation: Operation) -> None:
    """Register a typed handler on a FastStream subscriber; it is never called."""
    subscriber(_documented(operation.event_type, operation.model))


def _documented(event_type: str, model: type[BaseModel]) -> Any:
    async def handle(body: Any) -> None: ...

    handle.__name__ = handle.__qualname__ = "on_" + event_type.replace(".", "_")
    handle.__annotations__ = {"body": model, "return": None}
    return handle


def asyncapi_document(broker: Any, title: str, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of everything registered on `broker`."""
    specification = AsyncAPI(broker, title=title, version=version, schema_version="3.0.0").to_specification()
    document: dict[str, Any] = json.loads(specification.to_json())
    document["defaultContentType"] = CONTENT_TYPE  # the generator has no option for it
    return document
