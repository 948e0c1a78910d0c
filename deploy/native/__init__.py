"""The native runtime: real servers and the services as supervised local processes, without Docker.

from deploy.native import Ports, Runtime

with Runtime(root, Ports.free_block(), watch_parent=True) as runtime:
    runtime.start_servers()
    runtime.start_services("rabbit")
"""

from deploy.native.ports import Ports
from deploy.native.runtime import Runtime
from deploy.topology import BrokerName

__all__ = ["BrokerName", "Ports", "Runtime", "environment", "install", "ports", "servers", "service_set", "site"]
