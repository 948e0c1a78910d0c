"""A world on each broker, as the integration tests have it."""

from tests.integration.conftest import world

__all__ = ["world"]
