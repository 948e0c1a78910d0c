"""Controls: what is known beforehand goes through the whole comparison, which must find it to be believed."""

__all__ = ["Control", "judge_controls", "resolution", "run_wire"]

from compare.controls.gates import Control, judge_controls, resolution
from compare.controls.wire import run_wire
