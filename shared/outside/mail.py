"""Mail over SMTP (RFC 5321), through a circuit breaker; what the server refuses for good is told from the rest.

At-least-once, as everything here: a process killed between the server's "250" and its own commit sends the mail
again, with the same Message-ID, by which mail systems know it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

import aiosmtplib

from shared.envelope import Envelope
from shared.errors import ConfigurationError, PermanentError, TransientError
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.mail_headers import Mailbox, address_header, subject_header
from shared.settings import Settings

_PORTS = {"smtp": 25, "smtps": 465}
_GOODBYE_S = 0.5
_AS_WRITTEN = SMTP.clone(refold_source="none")


class MailRefusedError(PermanentError):
    """The server will never take this mail, or it cannot be written at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file in a mail: `name` in ASCII, `media_type` such as `application/pdf`."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail to one recipient; `name` may hold anything, an event's `message_id` is made by `message_id()`."""

    message_id: str
    address: str
    name: str
    subject: str
    text: str
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()


def message_id(event: Envelope, sender: str) -> str:
    """The Message-ID of the one mail that tells of `event`: the same however often it is sent."""
    return message_id_of(event.identity, sender)


def message_id_of(identity: str, sender: str) -> str:
    """The same for a mail that tells of no event: `identity` is what makes it this mail, and no other."""
    return f"<{uuid5(NAMESPACE_URL, identity)}@{domain_of(sender)}>"


def domain_of(sender: str) -> str:
    """What follows the `@` of an address, with or without a name before it."""
    return parseaddr(sender)[1].rpartition("@")[2]


def compose(mail: Mail, sender: Mailbox, recipient: Mailbox) -> bytes:
    """The message as SMTP takes it. Raises `MailRefusedError` for one that cannot be written."""
    message = EmailMessage(policy=_AS_WRITTEN)
    message.set_raw("From", address_header("From", sender))
    message.set_raw("To", address_header("To", recipient))
    message.set_raw("Subject", subject_header(mail.subject))
    message.set_raw("Date", formatdate())
    message.set_raw("Message-ID", mail.message_id)
    message.set_raw("Auto-Submitted", "auto-generated")  # RFC 3834: nobody's out-of-office should answer
    try:
        message.set_content(mail.text)
        if mail.html is not None:
            message.add_alternative(mail.html, subtype="html")
        for file in mail.attachments:
            maintype, _, subtype = file.media_type.partition("/")
            message.add_attachment(file.content, maintype=maintype, subtype=subtype, filename=file.name)
        return message.as_bytes()
    except (MessageError, ValueError) as error:  # half a surrogate pair, for instance, has no bytes
        raise MailRefusedError(f"the mail cannot be written: {type(error).__name__}") from error


class Mailer:
    """Sends over a connection per mail to the server of `smtp_url`, which must be set."""

    def __init__(self, settings: Settings, breaker: CircuitBreaker) -> None:
        """Raises `ConfigurationError` when nothing can be sent from `mail_from`."""
        url = urlsplit(settings.smtp_url or "")
        self.sender = settings.mail_from
        try:
            self._sender = Mailbox.read(settings.mail_from)
        except ValueError as error:
            raise ConfigurationError(f"TANDEM_MAIL_FROM is no address: {error}") from error
        self._breaker = breaker
        self._host = url.hostname
        self._port = url.port or _PORTS[url.scheme]
        self._tls = url.scheme == "smtps"
        self._username = unquote(url.username) if url.username else None
        self._password = unquote(url.password) if url.password else None
        self._timeout_s = settings.smtp_timeout_s

    async def send(self, mail: Mail) -> None:
        """Return once the server has taken the mail over.

        Raises `MailRefusedError` when it says 5xx to the recipient or the message, `TransientError` when it is
        away, slow, not to be trusted (TLS), or says anything else, and `DelayError` while the breaker is open.
        """
        try:
            recipient = Mailbox.of(mail.name, mail.address)
        except ValueError as error:
            raise MailRefusedError(f"the mail cannot be addressed: {error}") from error
        message = compose(mail, self._sender, recipient)
        async with self._breaker.call():
            try:
                await self._hand_over(message, recipient.address)
            except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
                raise _mapped(error) from error

    async def _hand_over(self, message: bytes, recipient: str) -> None:
        """To that recipient alone, whatever the message's headers say."""
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._tls,
            timeout=self._timeout_s,
        )
        try:
            async with asyncio.timeout(self._timeout_s):  # the client's own is for each command
                await client.connect()
                await client.sendmail(self._sender.address, [recipient], message)
            # The mail is the server's now: however it takes the good-bye, the mail must not be sent again.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                await client.quit(timeout=_GOODBYE_S)
        finally:
            client.close()  # at once: the client's own way out would wait for an answer to its good-bye


def _mapped(error: Exception) -> Exception:
    """The server's refusal as one of our errors; its own words are kept, they hold no more than the address."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = [refused.code for refused in error.recipients]
        permanent = all(code >= 500 for code in codes)
        reason = f"recipient refused: {error.recipients[0].code} {error.recipients[0].message}"
    elif isinstance(error, aiosmtplib.SMTPDataError):
        permanent, reason = error.code >= 500, f"message refused: {error.code} {error.message}"
    elif isinstance(error, OSError):
        # Of the connection, whatever else it is: a bad certificate is a `ValueError`, too.
        permanent, reason = False, f"{type(error).__name__}: {error}"
    else:
        permanent = isinstance(error, aiosmtplib.SMTPNotSupported | ValueError)
        reason = f"{type(error).__name__}: {error}"
    return MailRefusedError(reason) if permanent else TransientError(f"SMTP: {reason}")
