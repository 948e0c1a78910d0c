"""What an experiment is told of servers that somebody started in containers for it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from deploy.native.site import Durability
from deploy.topology import ServerName


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """What a container may use, and the image that it runs; without `cpus`: as many as there are."""

    image: str
    cpus: float | None
    memory_mib: int


class Contained(_Part):
    """The servers' containers.

    They listen on the ports of the block, on a loopback that is ours too, and take the password. `engine` is what
    runs them, `kept_logs` where a person will find the logs of a run that found something.
    """

    names: dict[ServerName, str]
    block: int
    password: str = Field(repr=False)
    durability: Durability
    versions: dict[str, str]
    settings: dict[ServerName, dict[str, str]]
    limits: dict[ServerName, Limits]
    engine: str
    kept_logs: str
