"""The header lines of a mail that hold what somebody typed: written here, so that a name stays a name.

Python's own generator (that of 3.11, at least) drops the quotes of a display name that it folds, so that what
stands before each comma becomes an address, and unpacks an encoded-word that somebody typed, line breaks included.
It is given what is made here to write as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.header import Header
from email.utils import parseaddr
from itertools import groupby
from typing import Self

_LINE_MAX = 76
_ENCODED_WORD_MAX = 75
"""RFC 2047, 2."""
_NAME_LENGTH_MAX = 1_000
_SUBJECT_LENGTH_MAX = 250
_ADDRESS_LENGTH_MAX = 254
"""RFC 5321, 4.5.3.1.3: a path has 256 octets, its brackets included."""
_LOCAL_PART_LENGTH_MAX = 64
"""RFC 5321, 4.5.3.1.1; the quotes round one count."""

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_DOT_ATOM = re.compile(rf"[{_ATEXT}]+(\.[{_ATEXT}]+)*")
_QUOTABLE = re.compile(rf"[{_ATEXT}.]+")
_QUOTED = re.compile(rf'"[{_ATEXT}. ]+"')
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[(IPv6:)?[0-9A-Fa-f:.]+\]")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9'-]{1,60}")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Whom a mail is for or from: `name` may hold anything, `address` is ASCII and fit for SMTP and a header."""

    name: str
    address: str

    @classmethod
    def of(cls, name: str, address: str) -> Self:
        """Raises `ValueError` for an address that is none."""
        return cls(name, written_address(address))

    @classmethod
    def read(cls, text: str) -> Self:
        """From `Tandem <tandem@example.org>`, as a setting says it. Raises `ValueError`."""
        return cls.of(*parseaddr(text))


def written_address(address: str) -> str:
    """The address as RFC 5321 writes it (4.1.2), in ASCII.

    A local part with dots where none may be, as old mailboxes in Japan have, is quoted: `"a..b"@docomo.example`. A
    domain in letters of other scripts is encoded (IDNA). Raises `ValueError` for what is no address.
    """
    if len(address) > _ADDRESS_LENGTH_MAX:
        raise ValueError("it is longer than an address may be")
    local, _, domain = address.rpartition("@")
    domain = domain if domain.isascii() else domain.encode("idna").decode()
    if not _DOT_ATOM.fullmatch(local):
        local = f'"{local}"' if _QUOTABLE.fullmatch(local) else local
        if not _QUOTED.fullmatch(local):
            raise ValueError("its local part is none")
    if not _DOMAIN.fullmatch(domain):
        raise ValueError("its domain is none")
    if len(local) > _LOCAL_PART_LENGTH_MAX or len(local) + 1 + len(domain) > _ADDRESS_LENGTH_MAX:
        raise ValueError("it is longer than an address may be")
    return f"{local}@{domain}"


def address_header(field: str, mailbox: Mailbox) -> str:
    """The value of `field` (`To`, `From`), folded: of whatever the name consists, there is one address in it.

    Words of letters and digits stand as they are, all others in encoded-words (RFC 2047): nothing in the value but
    the brackets can be taken for a part of an address, by whoever reads or folds it anew.
    """
    words = one_line(mailbox.name)[:_NAME_LENGTH_MAX].split()
    tokens: list[str] = []
    for is_plain, run in groupby(words, lambda word: bool(_PLAIN_WORD.fullmatch(word))):
        alike = list(run)
        tokens += alike if is_plain else _encoded_words(" ".join(alike))
    return _folded(field, [*tokens, f"<{mailbox.address}>"] if tokens else [mailbox.address])


def subject_header(text: str) -> str:
    """The value of `Subject`, folded: what is longer than 250 characters is cut."""
    subject = one_line(text)[:_SUBJECT_LENGTH_MAX]
    if subject.isascii() and "=?" not in subject and len(subject) <= _LINE_MAX - len("Subject: "):
        return subject
    return _folded("Subject", _encoded_words(subject))


def one_line(text: str) -> str:
    """Without line breaks and control characters: a header has none, and nobody may smuggle one in."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _encoded_words(text: str) -> list[str]:
    return Header(text, charset="utf-8", maxlinelen=_ENCODED_WORD_MAX).encode().split()


def _folded(field: str, tokens: list[str]) -> str:
    """Lines of at most `_LINE_MAX` characters, as far as the tokens let them."""
    lines = [f"{field}:"]
    for token in tokens:
        if len(lines[-1]) + 1 + len(token) > _LINE_MAX and lines != [f"{field}:"]:
            lines.append("")
        lines[-1] += f" {token}"
    return "\r\n".join(lines).removeprefix(f"{field}: ")
