"""Whatever is sent to the services over real HTTP, none fails unexpectedly: schemathesis, and raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydantic import SecretStr

from deploy.native import Runtime
from deploy.paths import REPOSITORY
from services.dead_letter import app as dead_letter_app
from services.fraud import app as fraud_app
from services.jobs import app as jobs_app
from services.notification import app as notification_app
from services.order import app as order_app
from services.report import app as report_app
from services.user import app as user_app
from services.wallet import app as wallet_app
from shared.http.problems import BODY_BYTES_MAX
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of, server_config
from shared.process.service import Service
from shared.settings import Settings
from tests.integration.databases import migrated_database

SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        user_app.SERVICE,
        order_app.SERVICE,
        notification_app.SERVICE,
        dead_letter_app.SERVICE,
        jobs_app.SERVICE,
        report_app.SERVICE,
        wallet_app.SERVICE,
        fraud_app.SERVICE,
    )
}
START_S = 60.0
ANSWER_S = 30.0
EXAMPLES_MAX = os.environ.get("FUZZ_EXAMPLES", "8")
"""Of each operation, drawn anew in every run, besides those that stand for each rule of the schema."""
STREAMS = "/events$"
LEFT_OUT = dict.fromkeys(("fraud", "notification", "report"), f"{STREAMS}|^/(jobs|schedules|workers)")
"""What the jobs service has, too, and is tried there."""
ADMIN_PASSWORD = "the first of all"
GATEWAY_TOKEN = "of the chat's gateway"
AUTHORITY = """
[auth.openapi.APIKeyCookie]
api_key = "{}"
[auth.openapi.APIKeyHeader]
api_key = "{}"
"""
"""Of schemathesis, which so knows what is to be refused without it: an administrator's, or that of a gateway."""
CANNOT_SAY_ALL = ("--exclude-checks=positive_data_acceptance",)


@dataclass(frozen=True, slots=True)
class Served:
    """A service behind a real HTTP server, in a thread with an event loop of its own."""

    service: str
    url: str
    port: int
    session: str = ""
    """The cookie of somebody who may send requests, where not everybody may."""


@pytest.fixture(params=sorted(SERVICES), scope="module")
def served(request: pytest.FixtureRequest, servers: Runtime) -> Iterator[Served]:
    urls = servers.server_urls()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        settings = Settings(
            broker="rabbit",
            roles=frozenset({"api"}),
            http_port=port,
            postgres_dsn=asyncio.run(migrated_database(servers, request.param)),
            redis_url=urls["redis"],
            rabbit_url=urls["rabbit"],
            wallet_admin_password=SecretStr(ADMIN_PASSWORD),
            wallet_gateway_token=SecretStr(GATEWAY_TOKEN),
        )
        app = application_of(Process(SERVICES[request.param], build_parts(request.param, settings)))
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        made = Served(request.param, f"http://127.0.0.1:{port}", port)
        assert until_ready(made)
        yield replace(made, session=signed_in(made)) if request.param == "wallet" else made
        server.should_exit = True
        thread.join(START_S)


def signed_in(served: Served) -> str:
    """As an administrator: most of the wallet's routes, and those that can do most."""
    name = {"name": "admin", "password": ADMIN_PASSWORD}
    answer = httpx.post(f"{served.url}/session", json=name, trust_env=False, verify=False, timeout=ANSWER_S)
    return answer.cookies["tandem_session"]


def until_ready(served: Served) -> bool:
    transport = httpx.HTTPTransport(retries=5, verify=False)
    with httpx.Client(transport=transport, timeout=START_S, trust_env=False) as http:
        return any(http.get(f"{served.url}/health/ready").status_code == 200 for _ in range(600))


@pytest.mark.timeout(300)
def test_no_request_that_the_schema_allows_or_forbids_makes_a_service_fail(served: Served, tmp_path: Path) -> None:
    """Every check that schemathesis has: no 5xx, and answers, headers and refusals as the document says.

    But one where the document cannot say all: which cursors were given out, that one of two ids is needed, that
    1.0 is no quantity. And not the stream of a job's events, which has no end here, where nothing runs.
    """
    beyond_words = () if served.service == "user" else CANNOT_SAY_ALL
    if served.session:
        (tmp_path / "schemathesis.toml").write_text(AUTHORITY.format(served.session, GATEWAY_TOKEN))
    code, output = asyncio.run(
        run_schemathesis(
            f"{served.url}/openapi.json",
            "--checks=all",
            *beyond_words,
            f"--exclude-path-regex={LEFT_OUT.get(served.service, STREAMS)}",
            "--exclude-operation-id=end_session",  # the one in which all else is sent
            "--phases=examples,coverage,fuzzing",
            f"--max-examples={EXAMPLES_MAX}",
            f"--request-timeout={ANSWER_S}",
            "--no-color",
            directory=tmp_path,
        )
    )
    assert code == 0, output[-15_000:]


async def run_schemathesis(*arguments: str, directory: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", *arguments,
        cwd=directory, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "HOME": str(directory)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


PATHS = {
    "user": "/users",
    "order": "/orders",
    "notification": "/notifications",
    "dead_letter": "/dead-letters/redrive",
    "jobs": "/jobs/add",
    "report": "/v1/reports/sales",
    "wallet": "/admin/accounts",
    "fraud": "/evaluations",
}
JSON = b"content-type: application/json\r\n"
NESTED = b"[" * 100_000
HOSTILE: dict[str, tuple[bytes, bytes]] = {
    "a key that is not UTF-8": (JSON + b"idempotency-key: \xff\xfe\r\n", b"{}"),
    "a key in UTF-8": (JSON + "idempotency-key: schlüssel\r\n".encode(), b"{}"),
    "a traceparent that is none": (JSON + b"traceparent: \xff-\x80\r\n", b"{}"),
    "a traceparent of nines": (JSON + b"traceparent: 99-" + b"9" * 5_000 + b"\r\n", b"{}"),
    "baggage without end": (JSON + b"baggage: " + b"a=%ff," * 1_000 + b"\r\n", b"{}"),
    "a type that is not ASCII": (b"content-type: \xff/\xfe\r\n", b"{}"),
    "a charset that is none": (b"content-type: application/json; charset=\xff\r\n", b"{}"),
    "form data": (b"content-type: multipart/form-data; boundary=x\r\n", b"--x--"),
    "compressed": (JSON + b"content-encoding: gzip\r\n", b"\x1f\x8b\x08\x00"),
    "nested deeply": (JSON, NESTED),
    "nested deeply in a known field": (JSON, b'{"lines":' + NESTED),
    "a number beyond every range": (JSON, b'{"lines":[{"quantity":' + b"9" * 5_000 + b"}]}"),
    "bytes that are no UTF-8": (JSON, b'{"name": "\xff\xfe"}'),
    "a lone surrogate": (JSON, b'{"name": "\\ud800", "email": "a@b.org"}'),
    "a NUL": (JSON, b'{"name": "\\u0000", "email": "a@b.org"}'),
    "too long": (JSON, b'"' + b"x" * BODY_BYTES_MAX + b'"'),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_and_bodies_are_refused_and_the_service_goes_on(served: Served, what: str) -> None:
    headers, body = HOSTILE[what]
    headers += f"cookie: tandem_session={served.session}\r\n".encode() if served.session else b""
    for method, path in (
        (b"POST", PATHS[served.service].encode()),
        (b"GET", PATHS[served.service].encode() + b"?user_id=%ff%00&cursor=%80&limit=9" + b"9" * 500),
        (b"POST", b"/%ff/%00" + b"/x" * 500),
    ):
        length = b"content-length: %d\r\n" % len(body)
        head = method + b" " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + headers + length
        status = status_of(served, head + b"\r\n" + body)
        assert 400 <= status < 500, f"{method!r} answered {status}"
    assert httpx.get(f"{served.url}/health/live", trust_env=False, verify=False).status_code == 200


ID = "0198c0de-0000-7000-8000-000000000001"
WITHOUT_BODY = {
    "user": f"/users/{ID}/deactivate",
    "order": f"/orders/{ID}/pay",
    "dead_letter": f"/dead-letters/{ID}/redrive",
}


@pytest.mark.parametrize(
    "framing",
    [
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n0;x=y\r\nx-trailer: z\r\n\r\n",
        JSON + b"transfer-encoding: chunked\r\n\r\n000\r\n\r\n",
        b"content-length: 00\r\n\r\n",
        b"\r\n",
    ],
)
def test_a_body_of_nothing_is_none_however_it_is_framed(served: Served, framing: bytes) -> None:
    """RFC 9112, 6 and 7.1; as proxies send on, over HTTP/1.1, what came without a body over HTTP/2."""
    path = WITHOUT_BODY.get(served.service)
    head = b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    if path is not None:
        assert status_of(served, b"POST " + path.encode() + head + framing) == 404, "nothing has this id"
    assert status_of(served, b"GET /openapi.json" + head + framing) == 200


def test_head_is_answered_without_a_body(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False, verify=False, timeout=ANSWER_S) as http:
        for path in ("/openapi.json", "/health/live", "/metrics", "/orders/x", PATHS[served.service]):
            head, read = http.head(path), http.get(path)
            assert (head.status_code, head.content) == (read.status_code, b"")
            assert head.headers["content-type"] == read.headers["content-type"]


LENGTHS = [b"-1", b"1e3", b"99999999999999999999", b"0x10", b"1_000", b"\xff"]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_none_is_refused(served: Served, length: bytes) -> None:
    path = PATHS[served.service].encode()
    head = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + JSON
    assert 400 <= status_of(served, head + b"content-length: " + length + b"\r\n\r\n{}") < 500


def status_of(served: Served, request: bytes) -> int:
    """The status of the answer; the server may close before it has read everything."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=ANSWER_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        answer = b""
        while b"\r\n" not in answer and (part := connection.recv(4_096)):
            answer += part
    return int(answer.split()[1])
