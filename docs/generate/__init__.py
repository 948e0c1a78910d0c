"""Documents made from the code or from data: `make docs` writes them, a test says that they are current."""

__all__: list[str] = []
