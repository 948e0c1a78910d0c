"""The stack as supervised local processes, without Docker."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from deploy.native import Ports, Runtime
from deploy.native.environment import of_children
from deploy.native.ports import NODES
from deploy.native.servers.objects import ObjectStorage
from deploy.native.servers.table import BROKERS_BY_NAME, SERVERS_BY_NAME
from deploy.native.service_set import RUNTIME_SETTINGS
from deploy.native.site import read_state
from deploy.paths import REPOSITORY
from deploy.progress import Steps
from deploy.show.log_follow import print_logs
from deploy.show.traces import Found, find_in_files
from deploy.stack.stack import Stack, Status
from deploy.topology import EXAMPLE_THREATS, SERVICES, BrokerName, process_of, servers_for
from shared.settings import Settings

_OF_SERVICES = {f"TANDEM_{name.upper()}" for name in Settings.model_fields} - RUNTIME_SETTINGS


class NativeStack(Stack):
    """An instance of the native runtime under `root`, on the ports of `make up-*`, with one set of services."""

    def __init__(self, root: Path, steps: Steps) -> None:
        self._root = root
        self._steps = steps

    def broker(self) -> BrokerName | None:
        """The broker of the one set."""
        runtime = self._running()
        return runtime.sets[""].broker if runtime else None

    def nodes(self) -> int | None:
        """As the instance was made."""
        runtime = self._running()
        return runtime.site.ports.nodes if runtime else None

    def up(self, broker: BrokerName, nodes: int) -> None:
        """Start servers and services, with the TANDEM_… settings of the caller."""
        self._require_data_of(broker, nodes)
        known = self._instance()
        if known:
            known.stop()  # what a crashed supervisord may have left
        runtime = Runtime(
            self._root,
            Ports.default(nodes=nodes),
            servers=servers_for(broker),
            watch_parent=False,
            steps=self._steps,
            forks=True,
        )
        runtime.require_free_ports()
        # The files belong to the run that is starting; without this they would only ever grow.
        shutil.rmtree(runtime.site.telemetry, ignore_errors=True)
        try:
            own = {
                "TANDEM_SMTP_URL": runtime.server_urls()["mail"],
                **ObjectStorage().settings(runtime.site),
                "TANDEM_HEALTH_CHECK_JOB_S": "10",
                "TANDEM_REPORT_MAIL_TO": "sales@localhost",
                "TANDEM_FRAUD_THREATS_URL": f"http://127.0.0.1:{runtime.site.ports.http('fraud')}{EXAMPLE_THREATS}",
            }
            runtime.start_all(broker, {**own, **_settings_of(os.environ)})
        except BaseException:
            runtime.stop()
            raise

    def down(self, *, volumes: bool) -> bool:
        """End the instance; also what a crash of supervisord may have left."""
        runtime = self._instance()
        if runtime is None:
            return False
        if not runtime.running:
            runtime.stop(remove=volumes)
            return False
        with self._steps.step("stopping everything"):
            runtime.stop(remove=volumes)
        return True

    def status(self) -> Status | None:
        """Asks all processes at the same time."""
        runtime = self._running()
        return _status_of(runtime) if runtime else None

    def print_logs(self, name: str | None, *, follow: bool, lines: int) -> int:
        """From the log files. Raises DeployError when nothing is called `name`."""
        runtime = self._require_running()
        rows = runtime.sets[""].processes
        services = [row.name for row in rows if name in (None, row.service, row.name)]
        servers = [process for process in runtime.addresses.server_processes if name in (None, process)]
        files = {process: runtime.processes.log(process) for process in (*services, *servers)}
        if not files:
            known = ", ".join(dict.fromkeys([*(row.service for row in rows), *runtime.servers]))
            raise DeployError(f"nothing is called {name!r}; there are {known}")
        print_logs(files, sys.stdout, follow=follow, lines=lines)
        return 0

    def traces(self, wanted: str) -> Found:
        """From the OTLP files, which outlive the stack until the next `up`."""
        return find_in_files(self._root / "telemetry", wanted)

    def service_url(self, service: str) -> str:
        """As the one set has it."""
        return self._require_running().addresses.service_urls()[service]

    def run_module(self, service: str, *words: str) -> int:
        """Beside the service's processes, with the settings of its first."""
        runtime = self._require_running()
        settings = runtime.service_env(process_of(service).name, runtime.sets[""].broker)
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=REPOSITORY, env={**of_children(), **settings}, check=False).returncode

    def broker_settings(self) -> dict[str, str]:
        """What the services are told."""
        runtime = self._require_running()
        broker = runtime.sets[""].broker
        told = BROKERS_BY_NAME[broker].settings(runtime.site)
        return {"broker": broker, **{key.removeprefix("TANDEM_").lower(): value for key, value in told.items()}}

    # -- inside

    def _instance(self) -> Runtime | None:
        """The instance, running or not."""
        return Runtime.attach(self._root, self._steps) if read_state(self._root) else None

    def _running(self) -> Runtime | None:
        runtime = self._instance()
        return runtime if runtime and runtime.running and "" in runtime.sets else None

    def _require_running(self) -> Runtime:
        runtime = self._running()
        if runtime is None:
            raise DeployError("the native stack is not up")
        return runtime

    def _require_data_of(self, broker: BrokerName, nodes: int) -> None:
        """A broker's data belongs to the nodes that wrote it, and what was relayed to them is nowhere else."""
        places = list((self._root / "data").glob(f"{broker}*"))
        wrote = 1 if len(places) == 1 else max(NODES)
        if places and wrote != nodes:
            raise DeployError(
                f"the data of {SERVERS_BY_NAME[broker].title} is of {wrote} node(s), and events may wait in it: "
                f"go on with `make up-{broker} NODES={wrote}`, or delete it before, "
                f"with all other data (`make down VOLUMES=1`) or alone ({self._root}/data/{broker}*)"
            )


def _status_of(runtime: Runtime) -> Status:
    """The status of an instance with one set of services."""
    service_set = runtime.sets[""]
    servers = runtime.addresses.server_processes
    names = [*servers, *(row.name for row in service_set.processes)]
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        healthy = dict(zip(names, pool.map(runtime.processes.is_healthy, names), strict=True))
        pids = dict(zip(names, pool.map(runtime.processes.pids, names), strict=True))
    service_urls, server_urls = runtime.addresses.service_urls(), runtime.server_urls()
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
            name: {"url": server_urls[name], "pids": pids[name], "healthy": healthy[name]} for name in servers
        },
        **mails,
    }


def _settings_of(caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's TANDEM_… variables that are settings of the services and not the runtime's to decide.

    Such as TANDEM_BATCH_MAX=100 in front of `make up-rabbit`.
    """
    return {key: value for key, value in caller.items() if key in _OF_SERVICES}
