"""What the clients raise, class by class: each has a meaning, and none that may pass stops a process for good."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import ModuleType

import aio_pika.exceptions
import aiokafka.errors
import aiormq.exceptions
import pytest

from deploy.paths import REPOSITORY
from shared.broker.base import HOW_TO_GO_ON
from shared.broker.kafka import errors as kafka
from shared.broker.rabbit import errors as rabbit
from shared.errors import ConfigurationError, PermanentError, TandemError, UnavailableError, UnroutableError

MODULES: list[tuple[ModuleType, str, Mapping[type[Exception], type[TandemError]]]] = [
    (aiokafka.errors, "aiokafka", kafka.ERRORS),
    (aiormq.exceptions, "aiormq", rabbit.ERRORS),
    (aio_pika.exceptions, "aio", rabbit.ERRORS),
]
PASSING = ConnectionError, OSError, TimeoutError, RuntimeError


def exceptions_of(module: ModuleType, root: str) -> set[type[Exception]]:
    """Those that the client itself defines, whatever module of it they come from."""
    members = inspect.getmembers(module, inspect.isclass)
    return {kind for _, kind in members if issubclass(kind, Exception) and kind.__module__.startswith(root)}


@pytest.mark.parametrize(("module", "root", "table"), MODULES, ids=["aiokafka", "aiormq", "aio-pika"])
def test_every_exception_of_the_client_has_its_own_line(
    module: ModuleType, root: str, table: Mapping[type[Exception], type[TandemError]]
) -> None:
    known = exceptions_of(module, root)
    assert len(known) >= 2
    assert {kind.__name__ for kind in known - table.keys()} == set()


def test_no_line_is_of_a_class_that_the_clients_no_longer_have() -> None:
    everything = [exceptions_of(module, root) for module, root, _ in MODULES]
    assert {kind.__name__ for kind in {*kafka.ERRORS, *rabbit.ERRORS} - set().union(*everything)} == set()


def test_a_class_without_a_line_would_be_seen() -> None:
    """Planted."""
    module = ModuleType("aiokafka.errors")
    new = type("NewError", (aiokafka.errors.KafkaError,), {"__module__": "aiokafka.errors"})
    module.NewError = new  # type: ignore[attr-defined]
    assert exceptions_of(module, "aiokafka") - kafka.ERRORS.keys() == {new}


def test_what_aiokafka_itself_would_try_again_is_unavailable() -> None:
    retriable = {kind for kind in kafka.ERRORS if getattr(kind, "retriable", False)}
    assert len(retriable) > 10
    assert {kind.__name__ for kind in retriable if kafka.ERRORS[kind] is not UnavailableError} == set()


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in kafka.ERRORS])
def test_a_process_that_runs_never_takes_kafkas_refusal_for_its_end(kind: type[Exception]) -> None:
    starting, running = kafka.refusal(kind("said")), kafka.failure(kind("said"))
    assert isinstance(starting, kafka.ERRORS[kind])
    assert isinstance(running, UnavailableError | PermanentError)
    assert isinstance(running, UnavailableError) == (not issubclass(kafka.ERRORS[kind], PermanentError))
    assert "said" in str(starting)


@pytest.mark.parametrize("error", [kind("said") for kind in PASSING], ids=lambda error: type(error).__name__)
def test_a_network_that_fails_is_unavailable(error: Exception) -> None:
    for said in (kafka.refusal(error), kafka.failure(error), rabbit.refusal(error), rabbit.unavailable(error)):
        assert isinstance(said, UnavailableError)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (aiormq.exceptions.ProbableAuthenticationError("ACCESS_REFUSED - Login was refused"), True),
        (aiormq.exceptions.AuthenticationError(["EXTERNAL"], ["PLAIN"]), True),
        (aiormq.exceptions.ChannelAccessRefused("ACCESS_REFUSED - access to queue 'q' refused"), True),
        (aiormq.exceptions.ChannelPreconditionFailed("inequivalent arg 'x-delivery-limit' for queue 'q'"), True),
        (aiormq.exceptions.ConnectionNotAllowed("NOT_ALLOWED - user's connection limit (5) is reached"), False),
        (aiormq.exceptions.ConnectionClosed(320, "CONNECTION_FORCED - broker forced connection closure"), False),
        (aiormq.exceptions.ConnectionInternalError("INTERNAL_ERROR - vhost '/' is down"), False),
        (aiormq.exceptions.ChannelNotFoundEntity("NOT_FOUND - no queue 'q' in vhost '/'"), False),
        (aiormq.exceptions.IncompatibleProtocolError(), False),
        (aiormq.exceptions.ChannelInvalidStateError("closed"), False),
    ],
)
def test_only_what_will_not_pass_stops_a_process_that_starts_on_rabbitmq(error: Exception, refused: bool) -> None:
    said = rabbit.refusal(error)
    assert isinstance(said, ConfigurationError if refused else UnavailableError)
    assert "\n" not in str(said)
    assert isinstance(rabbit.unavailable(error), UnavailableError)


def test_what_nobody_wants_is_told_apart() -> None:
    assert rabbit.ERRORS[aiormq.exceptions.PublishError] is UnroutableError


def test_the_refusal_of_a_queue_that_is_made_otherwise_says_how_to_go_on_and_that_is_there() -> None:
    said = str(rabbit.refusal(aiormq.exceptions.ChannelPreconditionFailed("inequivalent arg 'x-message-ttl'")))
    assert "x-message-ttl" in said
    assert said.endswith(HOW_TO_GO_ON)
    [title] = re.findall("“(.*)”", HOW_TO_GO_ON)
    assert f"\n## {title}\n" in (REPOSITORY / "docs" / "operating.md").read_text()
