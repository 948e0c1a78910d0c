"""The development mail server: takes every mail and keeps it in a Maildir."""

import sys
from pathlib import Path

import aiosmtplib

from deploy.native.site import Site
from deploy.native.supervision import Program


def url(site: Site) -> str:
    """A smtp:// URL."""
    return f"smtp://127.0.0.1:{site.ports.mail}"


def maildir(site: Site) -> Path:
    """Where the mails are: a file each, in `new`."""
    return site.data("mail")


def prepare(site: Site) -> list[Program]:
    """Say how to run it."""
    where = ["--port", str(site.ports.mail), "--maildir", str(maildir(site))]
    return [Program("mail", [sys.executable, "-m", "deploy.mail_server", *where], stop_timeout_s=5)]


async def probe(site: Site) -> None:
    """Raise unless the server greets."""
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=site.ports.mail, timeout=5) as client:
        await client.noop()
