"""Starting and stopping the whole, natively or with compose."""

__all__ = [
    "choice",
    "compared",
    "compose",
    "docker",
    "lock",
    "native",
    "stack",
]
