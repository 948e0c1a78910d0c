"""Opens accounts in the wallet of one side, as its first administrator."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

from experiment.clock import until
from experiment.side import Side, StalledError
from faults.wallet.client import WalletClient

ADMIN_PASSWORD = "the first of all"  # noqa: S105  for the length of a run, on this machine
TYPE = "played"
"""Of all accounts that are opened here."""
_ENOUGH = 10**12
"""A limit that nobody reaches."""
_POLL_S = 0.2


def wallet_url(side: Side) -> str:
    """Where the side's wallet answers."""
    return side.runtime.addresses.service_urls(side.broker)["wallet"]


class Administrator:
    """The side's administrator, signed in."""

    def __init__(self, side: Side, client: WalletClient, cookie: str) -> None:
        self._side = side
        self._client = client
        self._cookie = cookie

    @classmethod
    async def of(cls, side: Side, client: WalletClient) -> Administrator:
        """Sign in, and say what accounts are opened here. Raises `StalledError` when that fails."""
        made = cls(side, client, await client.sign_in("admin", ADMIN_PASSWORD))
        await made.do("PUT", f"account-types/{TYPE}", {"one_time": _ENOUGH, "daily": _ENOUGH})
        return made

    async def do(self, method: str, path: str, body: dict[str, object]) -> dict[str, Any]:
        """The answer's document, {} where it has none. Raises `StalledError` where it is refused."""
        return await self._client.administer(self._cookie, method, path, body)

    async def open_account(self, user_id: str, paid_in: int) -> UUID:
        """A new account, of a user of whom the wallet may hear only now. Raises `StalledError` if it does not."""
        wanted: dict[str, object] = {"user_id": user_id, "type": TYPE, "currency": "KRW"}
        account: dict[str, Any] = {}

        async def opened() -> bool:
            with suppress(StalledError):
                account.update(await self.do("POST", "accounts", wanted))
            return bool(account)

        if not await until(opened, self._side.workload.settle_timeout_s, _POLL_S):
            raise StalledError(f"the wallet on {self._side.broker} opens no account for user {user_id}")
        await self.do("POST", f"accounts/{account['id']}/adjustments", {"amount": paid_in})
        return UUID(account["id"])
