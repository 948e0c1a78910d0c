"""Asks the wallet for transfers over HTTP, as its members do."""

from __future__ import annotations

from uuid import UUID

import aiohttp
import orjson

from faults.transfers.checker import Asked
from faults.wallet.client import DONE, WalletClient

ACCEPTED, REFUSED = 202, 409


class TransferClient(WalletClient):
    """A client that sends money."""

    async def transfer(self, cookie: str, wish: Asked, key: str) -> tuple[int | None, UUID | None]:
        """The status, and the transfer's id where it was accepted; None where nobody answered."""
        body = {
            "sender_id": str(wish.sender_id),
            "receiver_id": str(wish.receiver_id),
            "amount": wish.amount,
        }
        headers = {"idempotency-key": key, "cookie": cookie}
        try:
            async with self._session.post(f"{self._url}/transfers", json=body, headers=headers) as answer:
                document = orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
            return None, None
        return answer.status, UUID(document["id"]) if answer.status == ACCEPTED else None

    async def take_back(self, cookie: str, transfer_id: UUID) -> bool:
        """Whether it said that the transfer is taken back."""
        url = f"{self._url}/transfers/{transfer_id}/cancel"
        try:
            async with self._session.post(url, headers={"cookie": cookie}) as answer:
                return answer.status == DONE
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


class CrowdedTransferClient(TransferClient):
    """One for many who send at once: it has more connections, and is more patient."""

    connections_max = 200
    timeout_s = 15.0
