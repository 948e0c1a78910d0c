"""The development mail server: takes every mail and keeps it in a Maildir."""

import sys
from pathlib import Path

import aiosmtplib

from deploy.native.install.install import Installed
from deploy.native.program import Program
from deploy.native.servers.server import Server
from deploy.native.site import Site
from deploy.topology import ServerName


class MailServer(Server):
    """Our own, deploy/mail_server.py: nothing has to be installed for it."""

    name: ServerName = "mail"
    title = "the mail server"

    def port(self, site: Site, _node: int = 1) -> int:
        """As the instance's ports say."""
        return site.ports.mail

    def url(self, site: Site, _node: int = 1) -> str:
        """A smtp:// URL."""
        return f"smtp://127.0.0.1:{site.ports.mail}"

    def prepare(self, site: Site, _installed: Installed) -> list[Program]:
        """Say how to run it."""
        where = ["--port", str(site.ports.mail), "--maildir", str(maildir(site))]
        return [Program("mail", [sys.executable, "-m", "deploy.mail_server", *where], stop_timeout_s=5)]

    async def probe(self, site: Site, _node: int = 1) -> None:
        """Raise unless the server greets."""
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=site.ports.mail, timeout=5) as client:
            await client.noop()


def maildir(site: Site) -> Path:
    """Where the mails are: a file each, in `new`."""
    return site.data("mail")
