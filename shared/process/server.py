"""Runs a process of a service: settings, logs, and the HTTP server that everything else lives beside."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pkgutil import resolve_name
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from shared.errors import ConfigurationError
from shared.garbage import rest_garbage_collector
from shared.process.connections import Limits
from shared.process.parts import Parts, build_parts
from shared.process.process import FAILED, REFUSED, Process
from shared.process.service import Service
from shared.settings import Settings
from shared.telemetry import logs

_KEEP_ALIVE_S = 30


def run(service: Service, build: Callable[[str, Settings], Parts] = build_parts) -> int:
    """Run one process of `service` until it is told to stop; return its exit code.

    0: it was told to. 1: it could not start, or a role failed. 78: bad settings, or a server that refuses them,
    told in one sentence. `build` makes its parts from the service's name and the settings.
    """
    try:
        settings = Settings.from_environment()
        logs.configure(settings.log_level, service.name)
        process = Process(service, build(service.name, settings))
    except ConfigurationError as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return REFUSED
    server = _Server(server_config(application_of(process), settings))
    process.stop = lambda: setattr(server, "should_exit", True)
    server.begin_stop = process.begin_stop
    rest_garbage_collector()
    server.run()
    return process.exit_code or (0 if server.started else FAILED)


def server_config(app: Starlette, settings: Settings, limits: Limits | None = None) -> uvicorn.Config:
    """How `app` is served: at the address of the settings, to clients that keep within the limits."""
    return uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        http=(limits or Limits()).protocol,  # type: ignore[arg-type]  # what makes one, where a class is asked for
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.shutdown_grace_s),
        timeout_keep_alive=_KEEP_ALIVE_S,
        lifespan="on",
    )


def application_of(process: Process) -> Starlette:
    """The service's own HTTP in a process with the role `api`, else none; with the probes, and its lifespan."""
    where = process.service.application
    if where is None or "api" not in process.parts.settings.roles:
        app = Starlette()
    else:
        app = resolve_name(where)(process.parts.for_http())
    app.router.routes.extend(process.probes.routes())
    app.router.lifespan_context = process.lifespan
    return app


class _Server(uvicorn.Server):
    """Stops the roles at the signal: waiting for the last request first would take the grace period twice."""

    begin_stop: Callable[[], None] = staticmethod(lambda: None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.begin_stop()
