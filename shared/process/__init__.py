"""A service's process: what it is built of and what it runs."""
