"""What is wrong with a job, or with a step of it."""

from shared.errors import PermanentError


class Reject(PermanentError):
    """Raised by a handler: the step has failed for good, whatever its retries would allow."""


class BadArgumentsError(PermanentError):
    """Arguments are missing, too many, or not of the handler's types."""


class NoCursorError(PermanentError):
    """A step that runs inline, or in a process of its own, asks for a cursor: it has none, in no attempt."""


class UnknownHandlerError(PermanentError):
    """A step names a handler that this process does not have."""


class UnknownStepError(PermanentError):
    """A step is announced that the database does not hold."""


class TimeLimitError(Exception):
    """A step took longer than it may; it is tried again as after any other exception."""


class AnnouncementLostError(Exception):
    """The announcement of a step has not come for as long as the broker keeps one: it counts as an attempt."""


class CutOffError(PermanentError):
    """A step was stopped in the middle of a statement, which ends its transaction and what it could record."""


class ResultTooLargeError(PermanentError):
    """A handler's result has more bytes of JSON than it may, or several that are wanted together have."""
