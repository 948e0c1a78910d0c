"""Gives and receives over HTTP, as the gateway of a chat does for its users."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
import orjson

from faults.distributions.checker import Given, ReceiptFound
from faults.wallet.client import DONE, GATEWAY_TOKEN, WalletClient

_GIVEN = 201
_MISSING = 404
_NO_OUTCOME_FROM = 500
_PROBLEM = "urn:tandem:problem:"
_LINK = re.compile(r'</receipts/([0-9a-f-]{36})>; rel="status"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody was answered who asked for a share: a receipt, a refusal, or neither.

    `link` is the receipt under which the outcome is, where the answer leads to one.
    """

    receipt: ReceiptFound | None = None
    refusal: str | None = None
    link: UUID | None = None

    @property
    def is_final(self) -> bool:
        return self.receipt is not None or self.refusal is not None


class DistributionClient(WalletClient):
    """A client that gives, receives, and looks at receipts."""

    timeout_s = 15.0
    """Longer than whoever asks for a share waits for an answer, which is ten seconds."""

    async def give(self, room_id: str, account_id: UUID, given: Given, key: str) -> str | None:
        """The token of the distribution; None where it is not answered that there is one."""
        body = {
            "amount": given.amount,
            "people": given.people,
            "split": "random",
            "account_id": str(account_id),
        }
        headers = {**_from(given.giver_id, room_id), "idempotency-key": key}
        status, _, document = await self._ask("POST", "distributions", headers, body)
        return str(document["token"]) if status == _GIVEN else None

    async def receive(self, room_id: str, user_id: UUID, token: str, key: str) -> Answer:
        """Ask for a share."""
        headers = {**_from(user_id, room_id), "idempotency-key": key}
        status, link, document = await self._ask("POST", "receive", headers, {"token": token})
        if status == DONE:
            return Answer(receipt=_receipt(document))
        if status is None or status >= _NO_OUTCOME_FROM:
            found = _LINK.fullmatch(link)
            return Answer(link=UUID(found[1])) if found else Answer()
        kind = str(document.get("type", ""))
        return Answer(refusal=kind.removeprefix(_PROBLEM) if kind.startswith(_PROBLEM) else str(status))

    async def look(self, receipt_id: UUID, user_id: UUID) -> tuple[bool, ReceiptFound | None]:
        """Whether somebody answered who asked, and the receipt; None where there is none."""
        status, _, document = await self._ask("GET", f"receipts/{receipt_id}", _from(user_id, "-"))
        return status in {DONE, _MISSING}, _receipt(document) if status == DONE else None

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> tuple[int | None, str, dict[str, Any]]:
        """Status, link and document; no status where nobody answered."""
        try:
            url = f"{self._url}/{path}"
            async with self._session.request(method, url, json=body, headers=headers) as answer:
                document = orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError):
            return None, "", {}
        return answer.status, answer.headers.get("link", ""), document if isinstance(document, dict) else {}


def _from(user_id: UUID, room_id: str) -> dict[str, str]:
    """The headers by which the gateway says for whom it asks."""
    return {"x-gateway-token": GATEWAY_TOKEN, "x-user-id": str(user_id), "x-room-id": room_id}


def _receipt(document: dict[str, Any]) -> ReceiptFound:
    return ReceiptFound(UUID(document["id"]), str(document["status"]), int(document["amount"]))
