"""The archive: what has grown old moves from a service's tables to the object storage, every Sunday."""

from shared.jobs.archive.archive import Archive
from shared.jobs.archive.history import HISTORY
from shared.jobs.archive.lines import Lines
from shared.jobs.archive.source import Portion, Source, recording

__all__ = ["HISTORY", "Archive", "Lines", "Portion", "Source", "recording"]
