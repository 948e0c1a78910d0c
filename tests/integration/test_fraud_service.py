"""The fraud service on its database: orders judged as they come, the night's batch, and the list it fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from deploy.native import Runtime
from services.fraud import store
from services.fraud.app import SERVICE
from services.fraud.domain import ZONE, Facts
from services.fraud.events import OrderEvent, OrderPaid, OrderPlaced
from services.fraud.handlers import JOBS, judging, nightly, order_subscriber, threats
from services.fraud.http import EXAMPLE_LIST, EXAMPLE_PATH
from shared.envelope import Envelope
from shared.errors import TransientError
from shared.event import Event
from shared.jobs import Retry, Signature
from shared.process.parts import build_parts
from shared.process.process import Process
from shared.process.server import application_of
from shared.settings import Settings
from tests.integration.databases import migrated_database
from tests.integration.letters import webhook
from tests.integration.world import eventually

WITHOUT_EVENTS = replace(
    SERVICE, subscribers=(), more_subscribers=lambda _parts: (), background_tasks=(JOBS.keep_due,)
)
"""Neither what other tests publish nor the time of day says what happens here."""
NOON = datetime(2026, 11, 28, 12, tzinfo=ZONE)


@dataclass
class ListServer:
    """What the server says, and what it was asked."""

    url: str = ""
    status: str = "200 OK"
    body: bytes = EXAMPLE_LIST.encode()
    etag: bytes = b'"v1"'
    asked: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def list_server() -> AsyncIterator[ListServer]:
    made = ListServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        made.asked.append(request)
        known = b"if-none-match: " + made.etag in request.lower()
        status, body = ("304 Not Modified", b"") if known and made.status == "200 OK" else (made.status, made.body)
        head = b"HTTP/1.1 %s\r\netag: %s\r\nconnection: close\r\n" % (status.encode(), made.etag)
        writer.write(head + (b"\r\n" if not body else b"content-length: %d\r\n\r\n" % len(body)) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/list"
        yield made


class Fraud:
    """The service in one process that runs its steps, without subscriptions and schedules, and a client."""

    def __init__(self, process: Process, http: httpx.AsyncClient, alerts: list[Any], server: ListServer) -> None:
        self.process = process
        self.http = http
        self.alerts = alerts
        self.server = server
        self.subscriber = order_subscriber(process.parts.settings)

    async def receive(self, *orders: Event[OrderEvent]) -> None:
        """Handle these events as one batch, as the consumer would."""
        handle = {handler.model: handler.handle for handler in self.subscriber.handlers}
        async with self.process.parts.units.begin() as uow:
            assert self.subscriber.prepare is not None
            await self.subscriber.prepare(orders, uow)
            for event in orders:
                uow.begin_event(event.envelope)
                await handle[type(event.data)](event, uow)

    async def user(self, days: float, email: str = "ada@example.org") -> UUID:
        """Somebody who registered so many days before noon."""
        user_id = uuid4()
        row = {"user_id": user_id, "email": email, "registered_at": NOON - timedelta(days=days), "version": 1}
        async with self.process.parts.units.begin() as uow:
            uow.tell(store.RECORD_USER, row)
        return user_id

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def rules(self, *orders: Event[OrderEvent]) -> list[list[str]]:
        """The rules that applied to each of these orders."""
        found = [await self.get(f"/evaluations/{order.data.order_id}") for order in orders]
        return [[reason["rule"] for reason in one["reasons"]] for one in found]

    async def published(self, *orders: Event[OrderEvent]) -> list[str]:
        """The ids of those of these orders whose evaluation is published, once for each time."""
        rows = await self.select("select key from outbox where type = 'fraud.order_evaluated' order by position")
        ids = {str(order.data.order_id) for order in orders}
        return [key for (key,) in rows if key in ids]

    async def select(self, query: str) -> Sequence[Any]:
        async with self.process.parts.database.transaction() as connection:
            return (await connection.execute(text(query))).all()

    async def run(self, graph: Signature) -> Any:
        """A job as it stands once it has ended."""
        async with self.process.parts.units.begin() as uow:
            job_id = (await uow.submit(graph)).job_id

        async def end() -> Any:
            told = await self.get(f"/jobs/{job_id}")
            return told if told["state"] in {"succeeded", "failed"} else None

        return await eventually(end, f"{job_id} ends")


@pytest.fixture(scope="module")
async def fraud(servers: Runtime) -> AsyncIterator[Fraud]:
    async with webhook() as (alert_url, alerts), list_server() as server, AsyncExitStack() as stack:
        settings = Settings(
            broker="rabbit",
            roles=frozenset({"api", "consumer", "worker"}),
            http_port=1,
            postgres_dsn=await migrated_database(servers, "fraud"),
            redis_url=servers.server_urls()["redis"],
            rabbit_url=servers.server_urls()["rabbit"],
            alert_webhook_url=alert_url,
            fraud_velocity_orders=3,
            fraud_threats_url=server.url,
        )
        process = Process(WITHOUT_EVENTS, build_parts("fraud", settings))
        app = application_of(process)
        await stack.enter_async_context(process.lifespan(app))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60)
        yield Fraud(process, await stack.enter_async_context(http), alerts, server)


def event_of(data: OrderEvent, at: datetime) -> Event[OrderEvent]:
    envelope = Envelope(
        source="/services/order",
        type=data.event_type,
        subject=str(data.order_id),
        partitionkey=str(data.order_id),
        dataschema=data.schema_uri(),
        time=at.isoformat(),
        data=data.model_dump(mode="json"),
    )
    return Event(envelope, data)


def placed(
    user: UUID, at: datetime = NOON, amount: int = 25_00, order_id: UUID | None = None, ip: str | None = None
) -> Event[OrderEvent]:
    return event_of(
        OrderPlaced(order_id=order_id or uuid7(), user_id=user, currency="EUR", total_amount=amount, client_ip=ip),
        at,
    )


def paid(user: UUID, at: datetime = NOON, order_id: UUID | None = None) -> Event[OrderEvent]:
    return event_of(OrderPaid(order_id=order_id or uuid7(), user_id=user, currency="EUR", total_amount=25_00), at)


# -- as orders are placed


async def test_an_order_is_judged_as_it_is_placed_and_once_however_often_it_comes(fraud: Fraud) -> None:
    known, new = await fraud.user(30), await fraud.user(0.5)
    orders = [placed(known), placed(new), placed(known, amount=100_000), placed(uuid4(), amount=1_000_000)]
    await fraud.receive(*orders)
    assert await fraud.rules(*orders) == [[], ["new_user"], ["amount"], ["amount", "new_user"]]
    found = await fraud.get(f"/evaluations/{orders[3].data.order_id}")
    assert (found["verdict"], found["score"], found["evaluated_by"]) == ("reject", 100, "event")
    await fraud.receive(orders[0], orders[0], paid(known, order_id=orders[1].data.order_id))
    await fraud.receive(*orders)
    assert await fraud.published(*orders) == [str(order.data.order_id) for order in orders]


async def test_orders_of_a_user_count_each_other_within_a_batch_and_across(fraud: Fraud) -> None:
    user = await fraud.user(30)
    orders = [placed(user, NOON + timedelta(minutes=minute)) for minute in range(5)]
    later = placed(user, NOON + timedelta(minutes=63))
    await fraud.receive(*orders[:2])
    await fraud.receive(*orders[2:], later)
    assert await fraud.rules(*orders, later) == [[], [], [], ["velocity"], ["velocity"], []]


async def test_of_two_verdicts_on_one_order_the_second_fails_with_its_event(fraud: Fraud) -> None:
    order = placed(await fraud.user(30))
    await fraud.receive(order)
    subject = store.Subject(
        order.data.order_id,
        order.data.user_id,
        Facts(
            currency="EUR",
            amount=1,
            placed_at=NOON,
            registered_at=None,
            earlier_orders=0,
            listed_ip=False,
            listed_address=False,
        ),
    )
    with pytest.raises(IntegrityError):
        async with fraud.process.parts.units.begin() as uow:
            judging.judge(uow, subject, judging.policy_of(fraud.process.parts.settings), "batch")
    assert await fraud.published(order) == [str(order.data.order_id)]


async def test_evaluations_are_listed_newest_first_by_verdict_and_by_the_page(fraud: Fraud) -> None:
    user = await fraud.user(30)
    orders = [placed(user, NOON + timedelta(hours=2 * number), amount=200_000) for number in range(3)]
    await fraud.receive(*orders)
    first = await fraud.get("/evaluations?verdict=review&limit=2")
    second = await fraud.get(f"/evaluations?verdict=review&limit=1&cursor={first['next_cursor']}")
    listed = [one["order_id"] for one in (*first["items"], *second["items"])]
    assert listed == [str(order.data.order_id) for order in reversed(orders)]
    assert {one["verdict"] for one in (await fraud.get("/evaluations"))["items"]} > {"review"}
    missing = await fraud.get(f"/evaluations/{uuid4()}", 404)
    assert missing["type"] == "urn:tandem:problem:evaluation-not-found"
    await fraud.get("/evaluations?verdict=maybe", 422)
    await fraud.get("/evaluations?cursor=x", 422)


# -- the night's batch


async def test_the_batch_judges_what_the_day_has_without_a_verdict_and_goes_on_where_it_stopped(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await fraud.user(30)
    begin = datetime(2026, 11, 20, tzinfo=ZONE)
    other_days = [paid(user, begin - timedelta(seconds=1)), paid(user, begin + timedelta(days=1))]
    of_the_day = [paid(user, begin + timedelta(hours=3 * number)) for number in range(4)]
    aside = placed(user, begin + timedelta(hours=20), amount=100_000)
    judged = placed(user, begin + timedelta(hours=23))
    await fraud.receive(*other_days, *of_the_day, judged)
    assert fraud.subscriber.put_aside is not None
    async with fraud.process.parts.units.begin() as uow:
        await fraud.subscriber.put_aside(aside, ValueError("whatever"), uow)

    calls: list[UUID] = []

    def failing_once(told: Any, subject: Any, policy: Any, by: Any) -> None:
        calls.append(subject.order_id)
        if len(calls) == 4:  # the second of the second chunk
            raise TransientError("the worker is gone")
        judging.judge(told, subject, policy, by)

    monkeypatch.setattr(nightly, "judge", failing_once)
    monkeypatch.setattr(nightly, "CHUNK_MAX", 2)
    job = await fraud.run(nightly.day_before(begin + timedelta(days=1)))
    [step] = job["steps"]
    assert (job["state"], step["attempt"]) == ("succeeded", 2)
    ids = [order.data.order_id for order in (*of_the_day, aside)]
    assert calls == [*ids[:4], *ids[2:]], "what was committed is not done again"
    assert sorted(await fraud.published(*of_the_day, aside)) == sorted(map(str, ids))
    assert await fraud.rules(*of_the_day, aside) == [[], [], [], [], ["amount"]]
    by = [(await fraud.get(f"/evaluations/{one}"))["evaluated_by"] for one in (ids[0], judged.data.order_id)]
    assert by == ["batch", "event"]
    for order in other_days:
        await fraud.get(f"/evaluations/{order.data.order_id}", 404)


async def test_an_order_that_is_judged_by_its_event_meanwhile_is_passed_over_by_the_batch(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, begin = await fraud.user(30), datetime(2026, 11, 10, tzinfo=ZONE)
    orders = [paid(user, begin + timedelta(hours=number)) for number in range(2)]
    await fraud.receive(*orders)
    read = store.without_verdict
    redriven = [placed(user, begin, order_id=orders[1].data.order_id)]

    async def read_before_the_event(*arguments: Any) -> Any:
        found = await read(*arguments)
        while redriven:
            await fraud.receive(redriven.pop())
        return found

    monkeypatch.setattr(store, "without_verdict", read_before_the_event)
    job = await fraud.run(nightly.day_before(begin + timedelta(days=1)))
    assert (job["state"], job["steps"][0]["attempt"]) == ("succeeded", 2)
    assert sorted(await fraud.published(*orders)) == sorted(str(order.data.order_id) for order in orders)
    by = [(await fraud.get(f"/evaluations/{order.data.order_id}"))["evaluated_by"] for order in orders]
    assert by == ["batch", "event"]


async def test_an_order_whose_placing_comes_late_is_judged_then_and_by_no_batch(fraud: Fraud) -> None:
    user = await fraud.user(30)
    order_id = uuid7()
    await fraud.receive(paid(user, order_id=order_id))
    order = placed(user, order_id=order_id, ip="192.0.2.1")
    await fraud.receive(order)
    assert (await fraud.get(f"/evaluations/{order_id}"))["evaluated_by"] == "event"
    rows = await fraud.select(f"select client_ip from known_order where order_id = '{order_id}'")
    assert [row.client_ip for row in rows] == ["192.0.2.1"]


async def test_orders_that_were_evaluated_long_ago_are_forgotten_and_their_evaluations_are_not(
    fraud: Fraud,
) -> None:
    user = await fraud.user(30)
    old, waiting = placed(user, NOON - timedelta(days=400)), paid(user, NOON - timedelta(days=400))
    await fraud.receive(old, waiting)
    async with fraud.process.parts.database.transaction() as connection:
        assert await store.prune(connection, 300 * 86_400.0, 100) == 1
        assert await store.standing_of(connection, [old.data.order_id, waiting.data.order_id]) == (
            {waiting.data.order_id},
            {old.data.order_id},
        )


# -- the list


async def test_a_list_is_fetched_once_asked_after_then_and_stays_with_an_alert_when_its_server_fails(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threats.fetch_threats, "retries", Retry(3, initial_s=0.01, on=(TransientError,)))
    user, listed, of_domain = [
        await fraud.user(30, email) for email in ("ada@example.org", "Mallory@Example.com", "x@fraud.example")
    ]
    server = fraud.server
    first, second = [await fraud.run(threats.refreshed_list()) for _ in range(2)]
    assert (first["state"], second["state"]) == ("succeeded", "succeeded")
    assert [b'if-none-match: "v1"' in request.lower() for request in server.asked] == [False, True]
    in_force = await fraud.get("/threat-list")
    assert (in_force["entries"], in_force["etag"]) == (6, '"v1"')
    assert in_force["checked_at"] > in_force["fetched_at"]

    orders = [
        placed(user, ip="198.51.100.9"), placed(user, ip="192.0.2.66"), placed(user, ip="2001:db8:bad::7"),
        placed(user, NOON + timedelta(hours=3), ip="192.0.2.65"), placed(listed), placed(of_domain),
    ]  # fmt: skip
    await fraud.receive(*orders)
    ip, address = ["listed_ip"], ["listed_address"]
    assert await fraud.rules(*orders) == [ip, ip, ip, [], address, address]

    server.asked.clear()
    server.status = "503 Unavailable"
    failed = await fraud.run(threats.refreshed_list())
    assert (failed["state"], len(server.asked)) == ("failed", 4)
    server.status, server.etag, server.body = "200 OK", b'"v2"', b"<p>Sorry</p>"
    no_list = await fraud.run(threats.refreshed_list())
    assert (no_list["state"], len(server.asked)) == ("failed", 5), "what is no list is not asked for again"
    assert [(alert["alert"], alert["error_type"]) for alert in fraud.alerts] == [
        ("fraud.alert", "TransientError"),
        ("fraud.alert", "NotAListError"),
    ]
    assert await fraud.get("/threat-list") == in_force

    server.body = b"203.0.113.9\n"
    assert (await fraud.run(threats.refreshed_list()))["state"] == "succeeded"
    assert [row.value for row in await fraud.select("select value from threat")] == ["203.0.113.9/32"]


async def test_the_example_list_says_whether_it_has_changed(fraud: Fraud) -> None:
    answer = await fraud.http.get(EXAMPLE_PATH)
    assert (answer.status_code, answer.text) == (200, EXAMPLE_LIST)
    again = await fraud.http.get(EXAMPLE_PATH, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
