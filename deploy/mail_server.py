"""`python -m deploy.mail_server --port 24019 --maildir DIR`: a mail server for development.

Takes every mail, for whomever, and keeps it in a Maildir (one file per mail, in `new`). Nothing is sent on.
"""

import argparse
import asyncio
import signal
from mailbox import Maildir
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

_MAIL_BYTES_MAX = 10 * 1024 * 1024


class KeepAll:
    """Writes the bytes as they came; says 250 once they are in their file."""

    def __init__(self, maildir: Path) -> None:
        for part in ("tmp", "new", "cur"):  # the library makes them only together with the directory
            (maildir / part).mkdir(parents=True, exist_ok=True)
        self._maildir = Maildir(maildir)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Answer as SMTP does, with a code and a word."""
        content = envelope.content or b""
        try:
            await asyncio.to_thread(self._maildir.add, content)
        except OSError as error:
            return f"452 {type(error).__name__}"
        return "250 OK"


async def serve(host: str, port: int, maildir: Path) -> None:
    """Until SIGTERM or SIGINT."""
    keeper = KeepAll(maildir)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)

    def connected() -> SMTP:
        return SMTP(keeper, hostname="tandem", data_size_limit=_MAIL_BYTES_MAX, enable_SMTPUTF8=True, loop=loop)

    server = await loop.create_server(connected, host, port)
    print(f"mail server on {host}:{port}, mails in {maildir}", flush=True)
    await stopped.wait()
    server.close()


def main() -> None:
    """Read the arguments and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m deploy.mail_server", description="Keeps every mail.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maildir", type=Path, required=True)
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.host, chosen.port, chosen.maildir))


if __name__ == "__main__":
    main()
