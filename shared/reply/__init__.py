"""Request and reply: ask another service and wait for its answer, on either broker the same."""

from shared.reply.errors import NoAnswerError
from shared.reply.requester import Requests
from shared.reply.responder import Responder

__all__ = ["NoAnswerError", "Requests", "Responder"]
