"""Which names there are: of settings in an environment, and of subscriptions in a setting. Others are refused."""

from __future__ import annotations

from collections.abc import Collection

from shared.errors import ConfigurationError

PREFIX = "TANDEM_"
OTHER_NAMES = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "BOOTSTRAP_LOCKED",
        "CACHE",
        "FORK_SERVICES",
        "INSTANCE_ROOT",
        "KAFKA_SERVERS",
        "POSTGRES_PASSWORD",
        "RABBIT_COOKIE",
        "RABBIT_PASSWORD",
        "REDIS_PASSWORD",
        "TEST_SERVERS",
    )
)
"""What the tools that run the services read: no settings of a process, and no mistake in its environment."""


def require_known(environment: Collection[str], fields: Collection[str]) -> None:
    """Raises `ConfigurationError` for names of variables that look like settings and are none of the `fields`."""
    known = {f"{PREFIX}{field.upper()}" for field in fields} | OTHER_NAMES
    wrong = sorted(name for name in environment if name.upper().startswith(PREFIX) and name not in known)
    if wrong:
        raise ConfigurationError("bad settings: " + "; ".join(_unknown(name, known) for name in wrong))


def require_subscriptions(named: Collection[str], known: Collection[str]) -> None:
    """Raises `ConfigurationError` when a rate is limited of a subscription that is not among the `known`."""
    wrong = sorted(set(named) - set(known))
    if wrong:
        said = "; ".join(f"there is no subscription {name}{_nearest(name, known)}" for name in wrong)
        raise ConfigurationError(f"bad settings: {PREFIX}RATE_LIMIT_PER_S: {said}")


def _unknown(name: str, known: Collection[str]) -> str:
    near = _nearest(name.upper().removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], PREFIX)
    return f"{name} is no setting{near}"


def _nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    from difflib import get_close_matches  # only where something is wrong

    near = get_close_matches(name, sorted(known), n=1)
    return f", did you mean {prefix}{near[0]}?" if near else ""
