"""The benchmark: the same events with the same durable effect through several consumers, printed as ratios.

`python -m bench` (`make bench`) drains a backlog through this pipeline, a hand-written loop and Celery, in
interleaved rounds on servers of its own. What each contender does for an event: claim it in Redis, write an inbox
row and an effect row in one transaction, mark the claim done, and settle the message after the commit.
"""

__all__: list[str] = []
