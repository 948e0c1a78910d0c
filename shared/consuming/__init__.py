"""Consuming: the stages that a batch of deliveries goes through until its effects are recorded."""
