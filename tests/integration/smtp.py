"""A real SMTP server in the test's own process, which answers as the test wants."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.smtp import SMTP, Envelope, Session


class Server:
    """Takes mails, or says `answers[address]` to a recipient, or `to_data` to every message."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        """Of the mails, as the envelopes say."""
        self.answers: dict[str, str] = {}
        self.to_data = ""
        self.to_quit = "221 Bye"
        self.port = 0

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, sent: Envelope, address: str, _options: list[str]
    ) -> str:
        if address not in self.answers:
            sent.rcpt_tos.append(address)
        return self.answers.get(address, "250 OK")

    async def handle_QUIT(self, _server: SMTP, _session: Session, _sent: Envelope) -> str:
        return self.to_quit

    async def handle_DATA(self, _server: SMTP, _session: Session, sent: Envelope) -> str:
        if not self.to_data:
            assert isinstance(sent.content, bytes), "aiosmtpd was asked to decode"
            message = message_from_bytes(sent.content, policy=default)
            assert isinstance(message, EmailMessage)
            self.mails.append(message)
            self.recipients += sent.rcpt_tos
        return self.to_data or "250 OK"

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"


@asynccontextmanager
async def smtp_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """With `tls`, one that offers STARTTLS."""
    made = Server()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(made, hostname="test", loop=loop, tls_context=tls), "127.0.0.1", 0
    )
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
