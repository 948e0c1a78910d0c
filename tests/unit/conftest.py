"""Properties are looked for without a limit of time for each example: a loaded machine is no counterexample."""

from hypothesis import settings

settings.register_profile("tandem", deadline=None)
settings.load_profile("tandem")
