"""The tables of dead letters, of redrives that people asked for, and of alerts, and their statements. Nothing here
commits."""

__all__ = ["alerts", "letters", "listing", "redrives", "rows"]
