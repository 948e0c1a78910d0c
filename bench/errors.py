"""What can go wrong in a benchmark run."""


class BenchError(Exception):
    """The run is void: a contender lost, repeated or never finished its work. The message is for a person."""
