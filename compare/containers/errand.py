"""What the harness in its container is told, and where it leaves what it found."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from experiment.containers import Contained
from experiment.workload import Workload

ERRAND = Path("/tandem-errand.json")
REPORT = Path("/tandem-report")


class Errand(BaseModel):
    """A run. `command` is what does it again, `revision` that of the code, which has no history in the image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workload: Workload
    command: str
    revision: str
    contained: Contained
