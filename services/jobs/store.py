"""The tables of the jobs service: those that `shared.jobs` has everywhere, and none besides."""

from __future__ import annotations

from shared.jobs import metadata

__all__ = ["metadata"]
