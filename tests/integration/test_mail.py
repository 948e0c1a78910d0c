"""Mail to a real SMTP server, which answers as the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.notification.handlers import SUBSCRIBERS, mail_subscribers
from services.notification.store import RECORD_RECIPIENT
from services.notification.store import metadata as tables
from shared import envelope
from shared.errors import DelayError, TransientError
from shared.outside.circuit_breaker import BreakerState, CircuitBreaker
from shared.outside.mail import Mail, Mailer, MailRefusedError, message_id
from shared.publishing.uow import UnitOfWork
from shared.settings import Settings
from tests.integration.smtp import Server, smtp_server
from tests.integration.world import World

SENDER = "Tandem <no-reply@tandem.example>"
USER_ID, ORDER_ID = "0198c0de-0000-7000-8000-00000000000a", "0198c0de-0000-7000-8000-000000000001"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with smtp_server() as made:
        yield made


def mailer(port: int, timeout_s: float = 5) -> tuple[Mailer, CircuitBreaker]:
    settings = Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
        smtp_url=f"smtp://127.0.0.1:{port}", mail_from=SENDER, smtp_timeout_s=timeout_s,
    )  # fmt: skip
    breaker = CircuitBreaker("smtp")
    return Mailer(settings, breaker), breaker


def mail(address: str = "ada@example.org", name: str = "Ada", subject: str = "We have your order") -> Mail:
    return Mail(
        message_id="<1@tandem.example>", address=address, name=name, subject=subject, text="Text\n", html="<p>Html"
    )


async def test_a_mail_arrives_as_text_and_html(server: Server) -> None:
    await mailer(server.port)[0].send(mail(name="Zoë, née Ørsted", subject="日本"))
    [arrived] = server.mails
    assert arrived["To"].addresses[0].display_name == "Zoë, née Ørsted"
    assert arrived["To"].addresses[0].addr_spec == "ada@example.org"
    assert (arrived["From"], arrived["Subject"], arrived["Message-ID"]) == (SENDER, "日本", "<1@tandem.example>")
    text, html = arrived.get_body(("plain",)), arrived.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (text.get_content().strip(), html.get_content().strip()) == ("Text", "<p>Html")


@pytest.mark.parametrize(
    "name",
    [
        "Ada\r\nBcc: all@example.org", "\x00\x1b[31m", "Ada <x@y.org>, ", '"', "\u202e", "",
        "boss@victim.example, " * 4 + "x" * 20, "=?utf-8?q?=0D=0ABcc:_all@example.org?=",
    ],
)  # fmt: skip
async def test_no_name_smuggles_a_header_or_a_recipient_in(server: Server, name: str) -> None:
    await mailer(server.port)[0].send(mail(name=name, subject=name))
    [arrived] = server.mails
    assert [address.addr_spec for address in arrived["To"].addresses] == ["ada@example.org"]
    assert arrived["Bcc"] is None
    assert server.recipients == ["ada@example.org"]


@pytest.mark.parametrize("address", ["a..b@docomo.example", "a.@example.org", ".a@example.org"])
async def test_a_mailbox_with_dots_in_odd_places_gets_its_mail(server: Server, address: str) -> None:
    await mailer(server.port)[0].send(mail(address))
    local, _, domain = address.partition("@")
    assert server.recipients == [address]  # which the server was told in quotes, as it insists
    [arrived] = server.mails
    [to] = arrived["To"].addresses
    assert (to.username, to.domain) == (local, domain)


async def test_a_good_bye_that_is_not_answered_sends_no_mail_twice(server: Server) -> None:
    server.to_quit = "421 busy"
    await mailer(server.port)[0].send(mail())
    assert len(server.mails) == 1


async def test_a_server_that_answers_a_little_at_a_time_has_the_time_of_one_mail_and_no_good_bye() -> None:
    heard: list[bytes] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        with contextlib.suppress(ConnectionError):
            while command := await reader.readline():
                heard.append(command)
                for _ in range(50):  # each piece within the time of a command, all of them not
                    writer.write(b"250-x\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.1)
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as listening:
        sender, _ = mailer(listening.sockets[0].getsockname()[1], timeout_s=0.5)
        with pytest.raises(TransientError, match="SMTP: TimeoutError"):
            await sender.send(mail())
    assert heard[1:] == []


@pytest.mark.parametrize("address", ["no address", "@", "a@b@c", "a@", "a\r\nb@c.org", "<a@b.org>"])
async def test_an_address_that_is_none_is_refused_for_good_without_asking(server: Server, address: str) -> None:
    sender, breaker = mailer(server.port)
    for _ in range(12):
        with pytest.raises(MailRefusedError):
            await sender.send(mail(address))
    assert (server.mails, breaker.state) == ([], BreakerState.CLOSED)


async def test_what_the_server_says_decides_whether_to_try_again(server: Server) -> None:
    sender, breaker = mailer(server.port)
    server.answers = {"gone@example.org": "550 no such mailbox", "full@example.org": "452 mailbox full"}
    with pytest.raises(MailRefusedError, match="550"):
        await sender.send(mail("gone@example.org"))
    with pytest.raises(TransientError, match="452"):
        await sender.send(mail("full@example.org"))
    server.to_data = "554 spam"
    with pytest.raises(MailRefusedError, match="554"):
        await sender.send(mail())
    server.to_data = "451 later"
    with pytest.raises(TransientError, match="451"):
        await sender.send(mail())
    assert breaker.state is BreakerState.CLOSED


async def test_a_server_that_is_away_opens_the_breaker_and_one_that_is_back_closes_it() -> None:
    now = [0.0]
    sender, _ = mailer(1)
    sender._breaker = CircuitBreaker("smtp", clock=lambda: now[0])
    for _ in range(10):
        with pytest.raises(TransientError, match="SMTP"):
            await sender.send(mail())
    with pytest.raises(DelayError) as refused:
        await sender.send(mail())
    assert 0 < refused.value.delay_s <= 30


async def test_a_certificate_that_nobody_trusts_costs_no_mail_and_opens_the_breaker(tmp_path: Path) -> None:
    async with smtp_server(await untrusted(tmp_path)) as server:
        sender, breaker = mailer(server.port)
        for _ in range(10):
            with pytest.raises(TransientError, match="CERTIFICATE_VERIFY_FAILED"):
                await sender.send(mail())
    assert (server.mails, breaker.state) == ([], BreakerState.OPEN)


async def untrusted(directory: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that it signed itself."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    openssl = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-keyout", key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await asyncio.wait_for(openssl.wait(), 30) == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


# -- the notification service's own


async def recipients(world: World) -> None:
    async with world.database.engine.begin() as connection:
        await connection.run_sync(tables.drop_all)
        await connection.run_sync(tables.create_all)


def order_placed() -> envelope.Envelope:
    data = {"order_id": ORDER_ID, "user_id": USER_ID, "currency": "EUR", "total_amount": 2500, "version": 1}
    return envelope.Envelope(source="/services/order", type="order.placed", subject=ORDER_ID, data=data)


def user_registered(name: str = "Ada", email: str | None = "ada@example.org") -> envelope.Envelope:
    data = {"user_id": USER_ID, "email": email, "name": name, "version": 1}
    return envelope.Envelope(source="/services/user", type="user.registered", subject=USER_ID, data=data)


async def handle(world: World, event: envelope.Envelope, sender: Mailer) -> None:
    """As the pipeline would hand it to the subscriber `mail`."""
    [handler] = [
        handler
        for subscriber in mail_subscribers(sender)
        for handler in subscriber.handlers
        if handler.model.event_type == event.type
    ]
    async with world.units.begin() as uow:
        uow.begin_event(event)
        await handler.handle(handler.read(event), uow)


async def test_an_order_is_mailed_to_its_user_with_the_event_s_own_message_id(
    rabbit_world: World, server: Server
) -> None:
    await recipients(rabbit_world)
    sender, _ = mailer(server.port)
    known = user_registered("<b>Ada</b> & Co")
    [on_user] = [h for s in SUBSCRIBERS for h in s.handlers if h.model.event_type == "user.registered"]
    async with rabbit_world.units.begin() as uow:
        await on_user.handle(on_user.read(known), uow)
    placed = order_placed()
    for _ in range(2):  # as after a crash before the commit
        await handle(rabbit_world, placed, sender)
    first, second = server.mails
    assert first["Message-ID"] == second["Message-ID"] == message_id(placed, SENDER)
    assert first["Message-ID"].endswith("@tandem.example>")
    assert first["To"].addresses[0].addr_spec == "ada@example.org"
    text, html = first.get_body(("plain",)), first.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "<b>Ada</b> & Co" in text.get_content()
    assert "25.00 EUR" in text.get_content()
    assert "&lt;b&gt;Ada&lt;/b&gt; &amp; Co" in html.get_content()
    assert placed.id in text.get_content()


async def test_each_event_has_a_message_id_of_its_own() -> None:
    events = [order_placed(), order_placed(), user_registered()]
    assert len({message_id(event, SENDER) for event in events}) == 3


async def test_a_user_of_whom_nothing_is_known_may_become_known(rabbit_world: World, server: Server) -> None:
    await recipients(rabbit_world)
    sender, _ = mailer(server.port)
    with pytest.raises(TransientError, match="not known"):
        await handle(rabbit_world, order_placed(), sender)

    async def become_known(uow: UnitOfWork) -> None:
        uow.tell(RECORD_RECIPIENT, {"user_id": USER_ID, "email": "ada@example.org", "name": "Ada", "version": 1})

    mailing = asyncio.create_task(handle(rabbit_world, order_placed(), sender))
    async with rabbit_world.units.begin() as uow:
        await become_known(uow)
    await mailing
    assert len(server.mails) == 1


async def test_a_user_event_is_mailed_to_the_address_that_it_names(rabbit_world: World, server: Server) -> None:
    sender, _ = mailer(server.port)
    await handle(rabbit_world, user_registered(), sender)
    assert server.mails[0]["Subject"] == "Welcome"
    with pytest.raises(MailRefusedError):
        await handle(rabbit_world, user_registered(email=None), sender)
