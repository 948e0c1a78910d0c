"""Reads the file in which one says what one must have, what one weighs, and what things cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Weighed = Literal["effects_per_s", "relay_events_per_s", "p50_ms", "p99_ms", "money"]
Capability = Literal[
    "scale_out_keeps_order",
    "replay",
    "routes_by_type",
    "unroutable_detected",
    "delivery_limit",
    "delayed_retry",
    "request_reply",
    "confirmed_is_on_disk",
]
Price = Annotated[float, Field(ge=0)]


class PreferencesError(Exception):
    """The file cannot be used; the message is one sentence that names it and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Must(_Part):
    """A broker without one of `capabilities`, or slower than the budget, is out, whatever its weights say."""

    capabilities: tuple[Capability, ...] = ()
    p99_ms_max: Annotated[float, Field(gt=0)] | None = None


class Prices(_Part):
    """What one pays: for an hour of a core, and of a GiB of memory."""

    currency: str = "USD"
    core_hour: Price = 0.0
    gib_hour: Price = 0.0


class Preferences(_Part):
    """A whole file. Only the proportions of the weights matter; `p_best_min` is the least that one acts upon."""

    must: Must = Must()
    weights: Annotated[dict[Weighed, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    prices: Prices = Prices()
    p_best_min: Annotated[float, Field(ge=0.8, lt=1)] = 0.8

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not sum(self.weights.values()):
            raise ValueError("weights: one at least must be more than 0")
        if self.weights.get("money") and not (self.prices.core_hour or self.prices.gib_hour):
            raise ValueError("money has a weight, and prices are all 0")
        return self


def load_preferences(path: Path) -> Preferences:
    """Read and check the file. Raises `PreferencesError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Preferences.model_validate(document)
    except OSError as error:
        raise PreferencesError(f"preferences {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PreferencesError(f"preferences {path} is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "preferences"
        said = first["msg"].removeprefix("Value error, ")
        raise PreferencesError(f"preferences {path}: {field}: {said}") from None
