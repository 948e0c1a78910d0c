"""Bytes that may be anything, shown to people."""

from __future__ import annotations

import base64
import contextlib
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

_SHOWN_BYTES_MAX = 1_000_000


class Readable(BaseModel):
    """As JSON if they are JSON, as text if they are UTF-8, else in base64."""

    form: Literal["json", "text", "base64"]
    value: Any
    bytes: int = Field(description="How many there are.")
    complete: bool = Field(description="False: these are the first million.")


def readable(body: bytes) -> Readable:
    """The bytes in the first form that fits. Never fails; what comes out can be written as JSON."""
    part = body[:_SHOWN_BYTES_MAX]
    size: dict[str, Any] = {"bytes": len(body), "complete": len(part) == len(body)}
    if size["complete"]:
        with contextlib.suppress(ValueError):
            shown = Readable(form="json", value=orjson.loads(body), **size)
            shown.model_dump_json()  # refuses what is nested too deeply
            return shown
    try:
        return Readable(form="text", value=part.decode(), **size)
    except UnicodeDecodeError:
        return Readable(form="base64", value=base64.b64encode(part).decode(), **size)
