"""Breaks a running system on purpose, under load, and checks that nothing is lost and nothing is done twice.

`make faults`: real servers, the services as they are, one fault after the other on each broker.
"""

__all__: list[str] = []
