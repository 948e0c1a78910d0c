"""How an order is judged: named rules, each with its points, and a verdict from their sum. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, Literal
from zoneinfo import ZoneInfo

from shared.errors import BusinessError

ZONE: Final = ZoneInfo("Asia/Seoul")
"""In which a day begins and ends."""
SCORE_MAX: Final = 100
VERY_LARGE: Final = 10
"""So many times what counts as a large amount is a very large one."""
ENTRIES_MAX: Final = 200_000
"""Of a threat-intelligence list."""
_PREFIX_MIN: Final = {4: 8, 6: 16}
"""A wider network is a mistake rather than a threat."""
_ADDRESS_MAX: Final = 254

Verdict = Literal["approve", "review", "reject"]


class EvaluationNotFoundError(BusinessError):
    """The order was not evaluated, or not yet."""


class NotAListError(BusinessError):
    """What was fetched is no threat-intelligence list, or too long for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """From where on a rule applies, and from which score on a verdict; amounts in the currency's minor unit."""

    amounts: Mapping[str, int]
    amount_default: int
    velocity_orders: int
    velocity_window_s: float
    new_user_s: float
    review_score: int
    reject_score: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an order when it is judged.

    `earlier_orders` are those of its user in the window before it, `registered_at` is None for a user of whom
    nothing is heard yet, and what is listed is so in the threat-intelligence list.
    """

    currency: str
    amount: int
    placed_at: datetime
    registered_at: datetime | None
    earlier_orders: int
    listed_ip: bool
    listed_address: bool


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that applied: its name, its points, and in a sentence why."""

    rule: str
    points: int
    said: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The score, from 0 to 100, the verdict that follows from it, and the rules that it is the sum of."""

    score: int
    verdict: Verdict
    reasons: tuple[Reason, ...]


Rule = Callable[[Facts, Policy], Reason | None]


def amount_rule(facts: Facts, policy: Policy) -> Reason | None:
    """A large amount, and a very large one."""
    limit = policy.amounts.get(facts.currency, policy.amount_default)
    if facts.amount < limit:
        return None
    is_very = facts.amount >= VERY_LARGE * limit
    at_least = VERY_LARGE * limit if is_very else limit
    return Reason(
        "amount", 80 if is_very else 40, f"the amount is at least {at_least} {facts.currency} minor units"
    )


def velocity_rule(facts: Facts, policy: Policy) -> Reason | None:
    """Many orders of one user in little time."""
    if facts.earlier_orders < policy.velocity_orders:
        return None
    window = f"{policy.velocity_window_s:g} s"
    return Reason("velocity", 40, f"at least {policy.velocity_orders} orders of this user in the {window} before")


def new_user_rule(facts: Facts, policy: Policy) -> Reason | None:
    """A user who has just registered, or of whom nothing is heard yet."""
    if facts.registered_at is None:
        return Reason("new_user", 20, "nothing is heard of this user yet")
    if facts.placed_at - facts.registered_at >= timedelta(seconds=policy.new_user_s):
        return None
    return Reason("new_user", 20, f"the user registered less than {policy.new_user_s:g} s before")


def listed_ip_rule(facts: Facts, _policy: Policy) -> Reason | None:
    """An IP address that is listed."""
    return Reason("listed_ip", 60, "the IP address is listed as a threat") if facts.listed_ip else None


def listed_address_rule(facts: Facts, _policy: Policy) -> Reason | None:
    """An e-mail address that is listed, or whose domain is."""
    return (
        Reason("listed_address", 60, "the e-mail address is listed as a threat") if facts.listed_address else None
    )


RULES: Final[tuple[Rule, ...]] = (amount_rule, velocity_rule, new_user_rule, listed_ip_rule, listed_address_rule)


def evaluate(facts: Facts, policy: Policy) -> Evaluation:
    """Judge an order by all rules."""
    reasons = tuple(reason for rule in RULES if (reason := rule(facts, policy)) is not None)
    score = min(sum(reason.points for reason in reasons), SCORE_MAX)
    return Evaluation(score, verdict_of(score, policy), reasons)


def verdict_of(score: int, policy: Policy) -> Verdict:
    """What a score comes to."""
    if score >= policy.reject_score:
        return "reject"
    return "review" if score >= policy.review_score else "approve"


# -- times and addresses


def moment_of(told: str | None, now: datetime) -> datetime:
    """An event's time; of one that has none to be read, now."""
    try:
        moment = now if told is None else datetime.fromisoformat(told)
    except ValueError:
        moment = now
    return (now if moment.tzinfo is None else moment).astimezone(UTC)


def span_of(day: date) -> tuple[datetime, datetime]:
    """When a day begins, and when the next one does."""
    begin, end = (datetime.combine(one, time(), ZONE) for one in (day, day + timedelta(days=1)))
    return begin, end


def written_ip(told: object) -> str | None:
    """An IP address as it is compared, IPv4 also where it came mapped into IPv6; None for what is none."""
    try:
        address = ip_address(told.partition("%")[0]) if isinstance(told, str) else None
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return None if address is None else str(address)


# -- the threat-intelligence list


@dataclass(frozen=True, slots=True)
class Threats:
    """The entries of a list, in lower case and in order, and how many of its lines could not be read."""

    values: tuple[str, ...]
    unreadable: int


def read_list(content: bytes) -> Threats:
    """Read a list: on each line an IP address, a network, an e-mail address, or a domain behind an `@`.

    What follows a `#` or a `;` is a comment. Raises `NotAListError` for what has no entry, more lines that cannot
    be read than entries, or too many of them: a page that says so in words is no list.
    """
    values, unreadable = set(), 0
    for line in content.decode(errors="replace").splitlines():
        told = line.partition("#")[0].partition(";")[0].strip().lower()
        value = _entry(told) if told else None
        if value is not None:
            values.add(value)
        elif told:
            unreadable += 1
    if not values or unreadable > len(values):
        raise NotAListError(f"no threat-intelligence list: {len(values)} entries, {unreadable} unreadable lines")
    if len(values) > ENTRIES_MAX:
        raise NotAListError(f"the list has over {ENTRIES_MAX:,} entries")
    return Threats(tuple(sorted(values)), unreadable)


def _entry(told: str) -> str | None:
    if "@" in told:
        is_one = told.count("@") == 1 and not told.endswith("@") and told.isprintable() and " " not in told
        return told if is_one and len(told) <= _ADDRESS_MAX else None
    try:
        network = ip_network(told, strict=False)
    except ValueError:
        return None
    return str(network) if network.prefixlen >= _PREFIX_MIN[network.version] else None
