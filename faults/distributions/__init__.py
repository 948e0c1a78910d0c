"""Distributions, by what clients were told of them: how it is checked that nothing was lost or done twice."""

__all__: list[str] = []
