"""The stack of `make up-*`: which runtime it has, and up, down and status for both runtimes."""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.errors import DeployError
from deploy.native import Ports, Runtime
from deploy.native.ports import NODES
from deploy.native.servers.table import SERVERS_BY_NAME
from deploy.native.service_set import RUNTIME_SETTINGS
from deploy.native.site import read_state
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.stack import compose as containers
from deploy.stack.lock import alone
from deploy.topology import SERVICES, BrokerName, servers_for

STACK_ROOT = REPOSITORY / ".run" / "stack"
TELEMETRY = STACK_ROOT / "telemetry"
_UP_WAIT_MAX_S = 1.0
_DOWN_WAIT_MAX_S = 30.0  # an `up` that is about to be ready; one that hangs is named, to be killed
_NOTHING: dict[str, Any] = {"broker": None, "runtime": None, "services": {}, "servers": {}}


def up(broker: BrokerName, steps: Steps, nodes: int = 1) -> dict[str, Any]:
    """Bring the whole system up on `broker`, of 1 or 3 nodes, and return its status. Already up on it: nothing
    happens.

    Raises DeployError, with nothing left running, when something is in the way or does not come up.
    """
    with alone(_lock(), f"up {broker}", steps, wait_max_s=_UP_WAIT_MAX_S):
        return _up(broker, steps, nodes)


def _up(broker: BrokerName, steps: Steps, nodes: int) -> dict[str, Any]:
    running = running_broker()
    if running is not None and running != broker:
        raise DeployError(f"the stack is already up on {running}; run `make down` first")
    native = native_stack()
    if native is not None and native.site.ports.nodes != nodes:
        raise DeployError(f"the stack is already up with {native.site.ports.nodes} node(s); run `make down` first")
    if running is None:
        if containers.is_chosen():
            if nodes > 1:
                file = containers.CLUSTER_FILES[broker].relative_to(REPOSITORY)
                raise DeployError(f"in containers, the cluster has a file of its own: {file}")
            containers.up(broker, steps)
        else:
            _up_native(broker, steps, nodes)
    return status()


def down(steps: Steps, *, volumes: bool = False) -> bool:
    """Stop everything that `up` started; False when nothing was up. With `volumes` its data is deleted too, in the
    runtime that RUNTIME names, else in both.

    Raises DeployError when another `up` or `down` does not end soon.
    """
    with alone(_lock(), "down", steps, wait_max_s=_DOWN_WAIT_MAX_S):
        return _down(steps, volumes=volumes)


def _down(steps: Steps, *, volumes: bool) -> bool:
    found = False
    if read_state(STACK_ROOT):
        runtime = Runtime.attach(STACK_ROOT, steps)
        found = runtime.running
        remove = volumes and os.environ.get("RUNTIME") != "docker"
        if found:
            with steps.step("stopping everything"):
                runtime.stop(remove=remove)
        else:
            runtime.stop(remove=remove)  # after a crash of supervisord: ends what may be left
    in_containers = containers.running_broker() is not None
    if in_containers or (volumes and containers.is_chosen()):
        containers.down(steps, volumes=volumes)
    clusters = containers.down_clusters(steps, volumes=volumes)
    return found or in_containers or clusters


def running_broker() -> BrokerName | None:
    """The broker that the stack is up on, in whichever runtime; None when it is down."""
    native = native_stack()
    if native is not None:
        return native.sets[""].broker
    return containers.running_broker()


def native_stack() -> Runtime | None:
    """The stack when it runs natively."""
    if not read_state(STACK_ROOT):
        return None
    runtime = Runtime.attach(STACK_ROOT)
    return runtime if runtime.running and "" in runtime.sets else None


def status() -> dict[str, Any]:
    """What runs and whether it answers, in the form of `make status FORMAT=json`."""
    native = native_stack()
    if native is not None:
        return native_status(native)
    broker = containers.running_broker()
    if broker is not None:
        return containers.status(broker)
    return containers.cluster_status() or dict(_NOTHING)


def native_status(runtime: Runtime, instance: str = "") -> dict[str, Any]:
    """The status of an instance with one set of services; asks all processes at the same time."""
    service_set = runtime.sets[instance]
    names = [*runtime.addresses.server_processes, *(row.name for row in service_set.processes)]
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        healthy = dict(zip(names, pool.map(runtime.processes.is_healthy, names), strict=True))
        pids = dict(zip(names, pool.map(runtime.processes.pids, names), strict=True))
    service_urls, server_urls = runtime.addresses.service_urls(instance), runtime.server_urls()
    mails = {"mails": str(runtime.addresses.maildir / "new")} if "mail" in runtime.servers else {}
    services: dict[str, Any] = {}
    for service in SERVICES:
        own = [row.name for row in service_set.processes if row.service == service]
        services[service] = {
            "url": service_urls[service],
            "pids": [pid for name in own for pid in pids[name]],
            "healthy": all(healthy[name] for name in own),
            "processes": {name: {"pids": pids[name], "healthy": healthy[name]} for name in own},
        }
    return {
        "broker": service_set.broker,
        "runtime": "native",
        "services": services,
        "servers": {
            name: {"url": server_urls[name], "pids": pids[name], "healthy": healthy[name]}
            for name in runtime.addresses.server_processes
        },
        **mails,
    }


def is_healthy(state: dict[str, Any]) -> bool:
    """Whether something is up and every part of it answers."""
    parts = [*state["services"].values(), *state["servers"].values()]
    return state["broker"] is not None and all(part["healthy"] for part in parts)


def print_status(state: dict[str, Any], form: str) -> None:
    """Print a status to standard output: `json`, or a table."""
    if form == "json":
        print(json.dumps(state, indent=2))
        return
    console = Console(width=None if os.isatty(1) else 120)
    if state["broker"] is None:
        console.print("nothing is up; `make up-rabbit` or `make up-kafka` starts everything")
        return
    table = Table(title=f"Tandem on {state['broker']} ({state['runtime']})", title_justify="left")
    for column in ("", "url", "pids", "healthy"):
        table.add_column(column)
    for name, part in [*state["services"].items(), *state["servers"].items()]:
        pids = [str(pid) for pid in part["pids"]]
        shown = " ".join(pids[:3]) + (" …" if len(pids) > 3 else "")
        url = re.sub(r"//[^/@]*@", "//", part["url"])  # passwords are for FORMAT=json
        table.add_row(name, url, shown, "[green]yes[/green]" if part["healthy"] else "[red]no[/red]")
    console.print(table)
    if "mails" in state:
        console.print(f"mails are in {state['mails']}", soft_wrap=True)


def _lock() -> Path:
    return STACK_ROOT.with_name("stack.lock")  # beside what `down` may delete


def _up_native(broker: BrokerName, steps: Steps, nodes: int) -> None:
    _require_data_of(broker, nodes)
    ports = Ports.default(nodes=nodes)
    state = read_state(STACK_ROOT)
    if state:
        Runtime.attach(STACK_ROOT, steps).stop()  # what a crashed supervisord may have left
    runtime = Runtime(STACK_ROOT, ports, servers=servers_for(broker), watch_parent=False, steps=steps)
    runtime.require_free_ports()
    # The files belong to the run that is starting; without this they would only ever grow.
    shutil.rmtree(runtime.site.telemetry, ignore_errors=True)
    try:
        runtime.start_servers()
        mail = {"TANDEM_SMTP_URL": runtime.server_urls()["mail"]}
        runtime.start_services(broker, env_overrides={**mail, **_settings_of_the_caller()})
    except BaseException:
        runtime.stop()
        raise


def _require_data_of(broker: BrokerName, nodes: int) -> None:
    """A broker's data belongs to the nodes that wrote it, and what was relayed to them is nowhere else."""
    places = list((STACK_ROOT / "data").glob(f"{broker}*"))
    wrote = 1 if len(places) == 1 else max(NODES)
    if places and wrote != nodes:
        raise DeployError(
            f"the data of {SERVERS_BY_NAME[broker].title} is of {wrote} node(s), and events may wait in it: "
            f"go on with `make up-{broker} NODES={wrote}`, or delete it before, "
            f"with all other data (`make down VOLUMES=1`) or alone ({STACK_ROOT}/data/{broker}*)"
        )


def _settings_of_the_caller() -> dict[str, str]:
    """TANDEM_* variables that are the services' settings and not the runtime's to decide, such as
    TANDEM_BATCH_MAX=100 in front of `make up-rabbit`."""
    return {
        key: value
        for key, value in os.environ.items()
        if key.startswith("TANDEM_") and key not in RUNTIME_SETTINGS and not key.startswith("TANDEM_BOOTSTRAP")
    }
