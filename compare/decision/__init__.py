"""The decision: what one must have, what one weighs, and what a run says to that."""

__all__ = ["Preferences", "PreferencesError", "load_preferences", "recommend"]

from compare.decision.preferences import Preferences, PreferencesError, load_preferences
from compare.decision.recommend import recommend
