"""The error tree.

    TandemError
    ├── ConfigurationError            refuse to start: a setting is missing, wrong, or contradicts another,
    │                                 or a server refuses what they say (a wrong password)
    ├── TransientError                the same event may succeed later: retry it, bounded
    │   ├── UnavailableError          a server (PostgreSQL, Redis, the broker) cannot be reached:
    │   │   │                         no event is to blame, so no attempt is counted
    │   │   └── UnroutableError       the broker is there, and has no queue that wants the message
    │   └── DelayError                something outside is known to be away: not before `delay_s` have gone by,
    │                                 and no attempt is used up
    └── PermanentError                the event can never succeed: dead-letter it at once
        ├── UndecodableError          not a CloudEvents 1.0 envelope in structured JSON
        ├── UnknownEventTypeError     a type that the subscriber neither handles nor knows to ignore
        ├── UnknownSchemaError        a known type in a schema version that this consumer does not know
        ├── SchemaViolationError      the data does not match the schema
        ├── EventTooLargeError        over the limit of 1 MB (`envelope.EVENT_BYTES_MAX`)
        ├── AttemptsExhaustedError    it ended its consumer, or failed, as often as the subscription allows
        └── BusinessError             the domain says that it cannot be

Handlers raise `TransientError` or `PermanentError` (or a subclass); any other exception counts as unknown:
retried within the same bounds, then dead-lettered.
"""


class TandemError(Exception):
    """Root of every error that Tandem raises on purpose."""


class ConfigurationError(TandemError):
    """A setting is missing or wrong, two settings contradict each other, or a server refuses them."""


class TransientError(TandemError):
    """The same work may succeed later."""


class UnavailableError(TransientError):
    """A server cannot be reached or does not answer in time."""


class UnroutableError(UnavailableError):
    """The broker has no queue for the message, or not yet; others are not affected."""


class DelayError(TransientError):
    """The event is to wait for `delay_s` seconds, and nobody is to blame: what it needs is known to be away."""

    def __init__(self, message: str, *, delay_s: float) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class PermanentError(TandemError):
    """The same work can never succeed."""


class UndecodableError(PermanentError):
    """The bytes are no CloudEvents envelope."""


class UnknownEventTypeError(PermanentError):
    """Nobody told this subscriber about the type."""


class UnknownSchemaError(PermanentError):
    """The type is known, its schema version is not."""


class SchemaViolationError(PermanentError):
    """The data does not match the schema that the event names."""


class EventTooLargeError(PermanentError):
    """The encoded event is larger than the wire allows."""


class AttemptsExhaustedError(PermanentError):
    """The event was delivered as often as the subscription allows and never finished."""


class BusinessError(PermanentError):
    """The domain says that this cannot be."""
