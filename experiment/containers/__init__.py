"""Servers that run in containers beside the experiment's own: waited for, and measured through the engine."""

from experiment.containers.contained import Contained, Limits
from experiment.containers.engine import SOCKET, Account, Engine
from experiment.containers.runtime import ContainerRuntime

__all__ = ["SOCKET", "Account", "Contained", "ContainerRuntime", "Engine", "Limits"]
