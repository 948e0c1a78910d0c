"""AsyncAPI by FastStream's own generator.

Our subscribers pull raw bytes, so the generator cannot see what they carry: it is shown a broker of the same
kind that is never connected, with one typed handler for each event type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from faststream.specification import AsyncAPI
from pydantic import BaseModel

from shared.broker.base import Operation


def add_handlers(subscriber: Any, operations: Sequence[Operation]) -> None:
    """Register a typed handler on a FastStream subscriber for each operation; none is ever called."""
    for operation in operations:
        subscriber(_documented(operation.event_type, operation.model), filter=lambda _: True)


def _documented(event_type: str, model: type[BaseModel]) -> Any:
    async def handle(body: Any) -> None: ...

    handle.__name__ = handle.__qualname__ = "on_" + event_type.replace(".", "_")
    handle.__annotations__ = {"body": model, "return": None}
    return handle


def asyncapi_document(broker: Any, title: str, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of everything registered on `broker`."""
    specification = AsyncAPI(broker, title=title, version=version, schema_version="3.0.0").to_specification()
    document: dict[str, Any] = json.loads(specification.to_json())
    return document
