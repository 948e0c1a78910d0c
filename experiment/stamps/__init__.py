"""What stamps say: when an event was handed to the broker, confirmed, received and durable, and whether its bytes
and its order were kept."""

__all__ = ["ASIDE", "STAGES", "Passage", "Stages", "StampReader", "Times", "passage_of", "times_of"]

from experiment.stamps.passage import Passage, passage_of, times_of
from experiment.stamps.reader import StampReader, Times
from experiment.stamps.stages import ASIDE, STAGES, Stages
