"""Runs Tandem: the process table, the native runtime, the Compose runtime and the command line.

Importing this package, or any module of it, starts nothing and reads no setting.
"""

__all__ = [
    "birth",
    "errors",
    "native",
    "paths",
    "progress",
    "stack",
    "topology",
]
