"""What asking may end with, besides an answer.

TransientError
├── TooManyRequestsError    this process waits for as many answers as it may; nothing was sent
├── NoAnswerError           it was asked, and nobody answered in time: it is not begun any more, and whether it
│                           was carried out only the row says that it would have left
└── UnavailableError        the broker did not confirm the request, which may be carried out all the same
PermanentError
└── RefusedError            the answer is no: nothing was carried out
"""

from __future__ import annotations

from shared.errors import PermanentError, TransientError


class TooManyRequestsError(TransientError):
    """Nothing was sent."""


class NoAnswerError(TransientError):
    """Nobody answered in time; what the request would have left behind says whether it was carried out."""


class RefusedError(PermanentError):
    """The answer is no: `reason` names the error's class at whoever answered, the message is its sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
