"""Steps whose results are large, for tests."""

from __future__ import annotations

from services.jobs.events import JobStepReady
from shared.jobs.jobs import Jobs
from shared.jobs.retries import Retry
from shared.jobs.signatures import job


@job(leased=True, retries=Retry(0))
async def text_of(size: int) -> str:
    """So many bytes of UTF-8, of which its JSON has two more."""
    return ("é" * (size // 2))[: size // 2] + "x" * (size % 2)


@job(process=True, retries=Retry(0))
def text_of_a_process(size: int) -> str:
    return "y" * size


@job(leased=True, retries=Retry(0))
async def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@job(process=True, retries=Retry(0))
def length_in_a_process(text: str) -> int:
    return len(text)


@job(retries=Retry(0))
async def length_inline(text: str) -> int:
    return len(text)


JOBS = Jobs(JobStepReady, text_of, text_of_a_process, lengths, length_in_a_process, length_inline)
