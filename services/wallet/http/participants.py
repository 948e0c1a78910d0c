"""Who acts in which room, as the headers `X-USER-ID` and `X-ROOM-ID` say, and why that is believed.

Anyone can set a header. So it is believed of who is signed in as that user, or of a gateway that has signed the
user in itself and knows the token of the settings.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Security
from fastapi.security import APIKeyHeader
from pydantic import SecretStr, StringConstraints
from starlette.requests import Request

from services.wallet.domain.distributions import ROOM_PATTERN
from services.wallet.domain.sign_in import NotAllowedError, NotSignedInError
from services.wallet.http.sign_in import SignIn, Token

GATEWAY_HEADER = "X-GATEWAY-TOKEN"
_gateway = APIKeyHeader(
    name=GATEWAY_HEADER,
    auto_error=False,
    description="What a gateway sends that signs users in itself, instead of a session.",
)

UserId = Annotated[
    UUID | None,
    Header(
        alias="X-USER-ID",
        description="The user: who is signed in, as whom it may be left out, or whom the gateway vouches for.",
    ),
]
RoomId = Annotated[
    str,
    StringConstraints(pattern=ROOM_PATTERN),
    Header(alias="X-ROOM-ID", description="The room, in words of whoever keeps rooms.", examples=["r-1"]),
]
GatewayToken = Annotated[str | None, Security(_gateway)]


@dataclass(frozen=True, slots=True)
class Participant:
    """A user in a room."""

    user_id: UUID
    room_id: str


async def _user(request: Request, token: Token, gateway_token: GatewayToken, user_id: UserId = None) -> UUID:
    if gateway_token is not None:
        return _vouched_for(request, gateway_token, user_id)
    signing: SignIn = request.app.state.sign_in
    who = await signing.who(token)
    if who.user_id is None:
        raise NotAllowedError(f"this is for members; {who.name} is an {who.role.value}")
    if user_id not in {None, who.user_id}:
        raise NotAllowedError(f"X-USER-ID is not the user who is signed in as {who.name}")
    return who.user_id


def _vouched_for(request: Request, gateway_token: str, user_id: UUID | None) -> UUID:
    expected: SecretStr | None = request.app.state.gateway_token
    if expected is None or not secrets.compare_digest(
        gateway_token.encode(), expected.get_secret_value().encode()
    ):
        raise NotSignedInError(f"{GATEWAY_HEADER} is not that of a gateway")
    if user_id is None:
        raise NotSignedInError("a gateway says in X-USER-ID for whom it asks")
    return user_id


User = Annotated[UUID, Depends(_user)]
"""A parameter of routes for users: who is signed in, or for whom a gateway asks. Others are refused."""


async def _participant(user_id: User, room_id: RoomId) -> Participant:
    return Participant(user_id, room_id)


InRoom = Annotated[Participant, Depends(_participant)]
"""The same, in a room."""
