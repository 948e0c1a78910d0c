"""Jobs: graphs of steps, submitted in a unit of work, that run over either broker and always end."""

__all__: list[str] = []
