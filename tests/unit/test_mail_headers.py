"""Whatever somebody is called and whatever a subject says, a mail has one recipient and our headers."""

from __future__ import annotations

from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import compat32, default
from email.utils import getaddresses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.user.http import Email
from shared.errors import ConfigurationError
from shared.outside.circuit_breaker import CircuitBreaker
from shared.outside.mail import Mail, Mailer, compose
from shared.outside.mail_headers import Mailbox, address_header, one_line, subject_header, written_address
from shared.settings import Settings

SENDER = Mailbox.read("Tandem <no-reply@tandem.example>")
FIELDS = [
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted",
    "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
]  # fmt: skip
HONEST = "Mueller, Dr. Karl-Heinz von und zu Hohenstein-Schillingsfuerst, Head of Accounts Receivable"
WRITERS = [
    "boss@victim.example, ",
    "=?utf-8?q?=0D=0ABcc:_x@y.org?=",
    "<",
    ">",
    '"',
    "\\",
    "\r\n",
    "(",
    ")",
    ";",
    ":",
]

texts = st.lists(
    st.one_of(st.sampled_from([*WRITERS, " ", ".", "Zoë", "日本", "x" * 40]), st.text(max_size=20)), max_size=12
).map("".join)


def written(name: str, subject: str, address: str = "ada@example.org") -> bytes:
    mail = Mail(message_id="<1@tandem.example>", address=address, name=name, subject=subject, text="Text")
    return compose(mail, SENDER, Mailbox.of(name, address))


@given(texts, texts)
@example("boss@victim.example, " * 4 + "x" * 20, "boss@victim.example, " * 4)
@example(HONEST, HONEST)
@example("=?utf-8?q?=0D=0ABcc:_x@y.org?=", "=?utf-8?q?=0D=0ABcc:_x@y.org?=")
def test_whatever_a_name_says_one_recipient_is_read(name: str, subject: str) -> None:
    content = written(name, subject)
    for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        assert len(line) < 998
        assert b"\r" not in line
        assert b"\n" not in line
    message = message_from_bytes(content, policy=default)
    assert message.keys() == FIELDS
    assert [address.addr_spec for address in message["To"].addresses] == ["ada@example.org"]
    assert [address.addr_spec for address in message["From"].addresses] == ["no-reply@tandem.example"]
    old_fashioned = message_from_bytes(content, policy=compat32)
    assert [address for _, address in getaddresses([old_fashioned["To"]])] == ["ada@example.org"]


def decoded(header: str) -> str:
    """As RFC 2047 says, blanks between encoded-words and all."""
    return str(make_header(decode_header(header.replace("\r\n", ""))))


@given(texts)
@example(HONEST)
@example("日本" * 100)
def test_a_name_and_a_subject_are_read_as_they_were_written(text: str) -> None:
    named = decoded(address_header("To", Mailbox(text, "a@b")))
    assert named == (f"{one_line(text)} <a@b>" if one_line(text) else "a@b")
    assert decoded(subject_header(text)) == one_line(text)[:250]


def test_the_name_of_an_honest_man_is_intact() -> None:
    [to] = message_from_bytes(written(HONEST, "Welcome"), policy=default)["To"].addresses
    assert (to.display_name, to.addr_spec) == (HONEST, "ada@example.org")


email = TypeAdapter(Email)
local_parts = st.text("Aa0.!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=64)
domains = st.lists(st.text("az09-", min_size=1, max_size=20), min_size=2, max_size=12).map(".".join)


@given(st.builds("{}@{}".format, local_parts, domains))
@example(f"{'.' * 62}@example.org")
@example(f"{'.' * 63}@example.org")
@example("a@-b.example")
def test_who_may_register_can_be_mailed_to_and_whose_address_cannot_be_written_may_not(address: str) -> None:
    try:
        registered = email.validate_python(address)
    except ValidationError:
        return
    [to] = message_from_bytes(written("Ada", "Welcome", registered), policy=default)["To"].addresses
    assert f"{to.username}@{to.domain}" == address
    assert len(written_address(registered)) <= 254


@pytest.mark.parametrize(
    ("address", "is_written"),
    [
        ("a..b@docomo.example", '"a..b"@docomo.example'),
        ("a.@example.org", '"a."@example.org'),
        (".a@example.org", '".a"@example.org'),
        ('"a b"@example.org', '"a b"@example.org'),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
    ],
)
def test_an_address_is_written_as_a_mail_needs_it(address: str, is_written: str) -> None:
    assert written_address(address) == is_written


@pytest.mark.parametrize(
    "address",
    [
        "", "@", "a@", "@b.org", "a b@c.org", "a@b@c.org", "a@b..c", "a,b@c.org", "<a@b.org>", "a@b.org\r\n",
        "jörg@b.org", '"<x@y.org>,"@b.org', '"a\\"b"@c.org', f"{'a' * 65}@b.org", f"a@{'b.' * 130}org",
        "a@" + "ü" * 300,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        written_address(address)


def test_a_sender_from_whom_nothing_can_be_sent_is_refused_at_the_start() -> None:
    settings = Settings(
        broker="rabbit", http_port=1, postgres_dsn="postgresql://-", redis_url="redis://-", rabbit_url="amqp://-",
        smtp_url="smtp://127.0.0.1", mail_from="Tandem <tan dem@localhost>",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="TANDEM_MAIL_FROM is no address: its local part is none"):
        Mailer(settings, CircuitBreaker("smtp"))
