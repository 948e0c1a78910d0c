"""What the value of a setting may be, and how it is read from text: types, readers and checks of one value alone.

Relations between settings stand with the settings.
"""

from __future__ import annotations

import re
from email.utils import parseaddr
from typing import Annotated

from pydantic import Field

from shared import failpoints

Seconds = Annotated[float, Field(gt=0, le=2_147_483)]
"""No more milliseconds than 31 bits hold (24 days): the servers' time limits are such numbers."""
MillisecondS = Annotated[float, Field(ge=0.001, le=2_147_483)]
"""What a server is told in whole milliseconds, and 0 of them would mean for ever, or be refused."""
KeptS = Annotated[float, Field(ge=0.001, le=4_294_967)]
"""What RabbitMQ takes for a time to live: milliseconds in 32 bits (49 days). The same on Kafka, which takes more.
"""
Queue = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*\.[a-z][a-z0-9_-]*$")]
QueueName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Slots = Annotated[int, Field(ge=1, le=1_000)]
Rate = Annotated[float, Field(ge=1, le=1_000_000)]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
MinorUnits = Annotated[int, Field(ge=1, le=10**15)]
Score = Annotated[int, Field(ge=1, le=100)]

FEE_BAND = r"\d{1,13}:\d{1,13}\+\d{1,5}"


def split(value: object) -> object:
    """Text as its `parts`; anything else as it is."""
    return parts(value) if isinstance(value, str) else value


def parts(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def pairs(value: object) -> object:
    """`mail.order=50,mail.user=20` as a mapping. Raises ValueError for a name that is there twice."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for part in parts(value):
        name, _, number = part.partition("=")
        if name.strip() in found:
            raise ValueError(f"{name.strip()} is there twice")
        found[name.strip()] = number
    return found


def known_fail_points(text: str) -> str:
    """The text, if every fail point in it is known. Raises ValueError."""
    failpoints.parse(text)
    return text


def is_address(text: str) -> bool:
    """Whether it is one mailbox's address."""
    return "@" in parseaddr(text)[1] and text.isprintable()


def is_http(url: str | None) -> bool:
    """Whether it is unset, or a URL of HTTP."""
    return url is None or re.match(r"https?://[^/\s]", url) is not None
