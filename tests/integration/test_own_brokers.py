"""Brokers of one's own: what a run creates there it deletes, however it ends; what it could not is not begun."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.native import BrokerName, Runtime
from deploy.native.site import write_state
from experiment.layers import AS_TANDEM, MODES, raw_client
from experiment.own_brokers import (
    OwnBrokerError,
    OwnBrokers,
    delete_leftovers,
    guarded,
    take_from,
    told,
    versions_of,
)
from shared.broker import Delivery, Message, Settlement, Subscription, create_broker
from tests.conformance.servers_seen import (
    delete_account,
    delete_queue,
    delete_topic,
    make_account,
    management,
    withdraw_rights,
)

FOREIGN = "somebody-elses"
PATIENCE_S = 1.5
VARIABLES: dict[BrokerName, str] = {"rabbit": "TANDEM_RABBIT_URL", "kafka": "TANDEM_KAFKA_SERVERS"}
SUBSCRIPTION = Subscription(channel="order", subscriber="notification", types=frozenset({"order.paid"}))
BROKERS = pytest.mark.parametrize("broker", ["rabbit", "kafka"])
ADAPTERS_GRACE_S = 30.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that may pass is waited out."""
    monkeypatch.setattr(told, "CONNECT_TIMEOUT_S", PATIENCE_S)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A run has its own way with them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def own(servers: Runtime, broker: BrokerName, **more: str) -> OwnBrokers:
    return take_from({VARIABLES[broker]: servers.server_urls()[broker], **more})


async def names(servers: Runtime, broker: BrokerName) -> set[str]:
    """All that the broker has: queues and exchanges, topics and groups."""
    if broker == "rabbit":
        return {row["name"] for kind in ("queues", "exchanges") for row in await management(servers, kind)}
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.server_urls()["kafka"])
    await admin.start()
    try:
        return {*await admin.list_topics(), *(name for name, *_ in await admin.list_consumer_groups())}
    finally:
        await admin.close()


@asynccontextmanager
async def planted(servers: Runtime, broker: BrokerName) -> AsyncIterator[None]:
    """Something of somebody else's, with a message in it that is still there in the end."""
    url = servers.server_urls()[broker]
    if broker == "rabbit":
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(FOREIGN, durable=True)
            await channel.default_exchange.publish(aio_pika.Message(b"mine"), FOREIGN)
            yield
            assert await queue.get(no_ack=True)
        await delete_queue(servers, FOREIGN)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=url)
    await admin.start()
    await admin.create_topics([NewTopic(FOREIGN, 1, 1)])
    consumer = AIOKafkaConsumer(FOREIGN, bootstrap_servers=url, group_id=FOREIGN)
    await consumer.start()
    await consumer.stop()
    try:
        yield
        assert FOREIGN in await names(servers, broker)
    finally:
        await admin.close()
        await delete_topic(servers, FOREIGN)


async def use_all(found: OwnBrokers, broker: BrokerName) -> None:
    """As the services and a layer do: publish, consume in a group, put aside, declare a mode's place."""
    settings = found.by_name[broker].settings.model_copy(update={"connect_timeout_s": ADAPTERS_GRACE_S})
    arrived = asyncio.Event()

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Settlement]:
        for delivery in deliveries:
            await adapter.publish_dead_letter(SUBSCRIPTION, delivery, {})
        arrived.set()
        return [Settlement.ACK] * len(deliveries)

    async with create_broker(settings, "test") as adapter:
        await adapter.subscribe(SUBSCRIPTION, handle)
        await adapter.declare([SUBSCRIPTION.channel])
        assert await adapter.publish([Message("order", "order.paid", "key", b"{}")]) == []
        async with asyncio.timeout(ADAPTERS_GRACE_S):
            await arrived.wait()
        [letter] = await adapter.dead_letters(SUBSCRIPTION)
        assert letter.body == b"{}"
    async with raw_client(settings, MODES[AS_TANDEM[broker]]) as client:
        await client.declare()


@BROKERS
def test_what_a_run_created_is_deleted_when_it_fails_and_nothing_else_is(
    servers: Runtime, broker: BrokerName
) -> None:
    said: list[str] = []
    found = own(servers, broker)
    prefix = found.by_name[broker].prefix

    async def fail_in_the_midst() -> set[str]:
        async with planted(servers, broker):
            await use_all(found, broker)
            return {name for name in await names(servers, broker) if name.startswith(prefix)}

    async def own_left() -> set[str]:
        return {name for name in await names(servers, broker) if name.startswith(prefix)}

    made: set[str] = set()
    with suppress(ZeroDivisionError), guarded(found, said.append):
        made |= asyncio.run(fail_in_the_midst())
        1 / 0  # noqa: B018
    assert len(made) >= 5, "or the test sees nothing"
    assert asyncio.run(own_left()) == set()
    assert len(said) == 1, "it says first what it will do, and all went well"
    assert f"all of which begin with {prefix}" in said[0]


@BROKERS
def test_what_was_tried_beforehand_is_gone_before_anything_starts(servers: Runtime, broker: BrokerName) -> None:
    before = asyncio.run(names(servers, broker))
    with guarded(own(servers, broker), lambda _: None) as left:
        assert asyncio.run(names(servers, broker)) == before
    assert left == []


@BROKERS
def test_what_a_killed_run_left_the_next_one_deletes(servers: Runtime, broker: BrokerName, tmp_path: Path) -> None:
    found, said = own(servers, broker), list[str]()
    asyncio.run(use_all(found, broker))
    place = tmp_path / "compare-1"
    place.mkdir()
    (place / "owner").write_text("0")  # when no process was born
    told_then = {"broker": broker, "environment": found.environment(broker)}
    started: dict[str, object] = {"broker": broker, "environment": {}}
    write_state(place, {"sets": {broker: told_then, "other": started}})
    delete_leftovers(tmp_path, "compare", said.append)
    prefix = found.by_name[broker].prefix
    assert not [name for name in asyncio.run(names(servers, broker)) if name.startswith(prefix)]
    [sentence] = said
    assert sentence.startswith("deleted: ")
    assert prefix in sentence


@BROKERS
def test_names_that_are_there_already_are_refused_and_stay(
    servers: Runtime, broker: BrokerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "taken")
    found = own(servers, broker)
    place = f"{found.by_name[broker].prefix}{'notification.order' if broker == 'rabbit' else 'order-events'}"

    async def plant() -> None:
        if broker == "rabbit":
            async with await aio_pika.connect(servers.server_urls()["rabbit"]) as connection:
                await (await connection.channel()).declare_queue(place, durable=True)
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=servers.server_urls()["kafka"])
        await admin.start()
        await admin.create_topics([NewTopic(place, 1, 1)])
        await admin.close()

    asyncio.run(plant())
    try:
        with pytest.raises(OwnBrokerError, match=f"{place} already"), guarded(found, lambda _: None):
            pytest.fail("let in")
        assert place in asyncio.run(names(servers, broker))
    finally:
        asyncio.run(delete_queue(servers, place) if broker == "rabbit" else delete_topic(servers, place))


@BROKERS
def test_a_broker_that_nobody_serves_is_refused_in_one_sentence(broker: BrokerName) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        url = f"amqp://ada:hush-hush@{address}/" if broker == "rabbit" else address
        refused = refusal(take_from({VARIABLES[broker]: url}))
    assert address in refused


def refusal(found: OwnBrokers) -> str:
    """The sentence with which they are refused."""
    with pytest.raises(OwnBrokerError) as error, guarded(found, lambda _: None):
        pytest.fail("let in")
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "hush-hush" not in sentence
    return sentence


@pytest.mark.usefixtures("impatient")
def test_a_wrong_password_and_a_missing_right_are_refused_in_one_sentence(servers: Runtime) -> None:
    name = "own-brokers-test"
    url = asyncio.run(make_account(servers, name))
    try:
        wrong = url.replace(f":{name}@", ":hush-hush@")
        assert "ACCESS_REFUSED" in refusal(take_from({"TANDEM_RABBIT_URL": wrong}))
        asyncio.run(withdraw_rights(servers, name))
        assert "ACCESS_REFUSED" in refusal(take_from({"TANDEM_RABBIT_URL": url}))
    finally:
        asyncio.run(delete_account(servers, name))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that is its own authority, with its key."""
    place = tmp_path_factory.mktemp("tls") / "own.pem"
    key = place.with_name("key.pem")
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {place} -subj /CN=test"
    command = [*made.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return place


@contextmanager
def by_tls(certificate: Path, target: str) -> Iterator[str]:
    """Where a server speaks TLS and passes everything on to `target`, which does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    host, _, port = target.rpartition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(host, int(port))
        await asyncio.wait(
            [asyncio.create_task(_copy(reader, questions)), asyncio.create_task(_copy(answers, writer))]
        )

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()


def test_rabbitmq_is_used_by_tls_where_its_authority_is_named_and_refused_where_not(
    servers: Runtime, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = urlsplit(servers.server_urls()["rabbit"])
    with by_tls(certificate, f"127.0.0.1:{account.port}") as address:
        url = f"amqps://{account.username}:{account.password}@{address}/"
        found = take_from({"TANDEM_RABBIT_URL": url, "TANDEM_BROKER_CA_FILE": str(certificate)})
        with guarded(found, lambda _: None) as left:
            asyncio.run(use_all(found, "rabbit"))
            assert versions_of(found)["rabbit"][0].isdecimal()
        assert left == []
        monkeypatch.setattr(told, "CONNECT_TIMEOUT_S", PATIENCE_S)
        assert "certificate is not accepted" in refusal(take_from({"TANDEM_RABBIT_URL": url}))


@pytest.mark.usefixtures("impatient")
def test_kafka_is_refused_where_its_authority_is_not_named(servers: Runtime, certificate: Path) -> None:
    with by_tls(certificate, servers.server_urls()["kafka"]) as address:
        told_so = {"TANDEM_KAFKA_SERVERS": address, "TANDEM_KAFKA_TLS": "1"}
        assert "certificate is not accepted" in refusal(take_from(told_so))
