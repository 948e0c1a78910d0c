"""Where the repository's own files are."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
"""The root of the checkout: `python -m services.…` is found from here."""
