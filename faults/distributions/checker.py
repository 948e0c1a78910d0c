"""Compares the distributions that were given, and what clients were told who asked for shares, with what is there.

Pure functions. Each class of damage is proved by tests that plant it (tests/unit/test_faults_distributions.py, and
on a broken wallet tests/integration/test_wallet_sabotaged.py). What is true of the ledger as a whole is asked of
the wallet's own audit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from faults.beside import Findings

_ASKED, _RECEIVED, _REFUSED, _NOT_BEGUN = "asked", "received", "refused", "not_begun"
NOTHING_LEFT, NOT_FOR_GIVER = "nothing-left", "not-for-giver"
"""The refusals that there may be here, as the wallet calls their problems."""

Asker = tuple[str, UUID]
"""A room, of which each has one distribution, and a user in it."""


@dataclass(frozen=True, slots=True)
class Given:
    """A distribution that was asked for; the amount is in minor units."""

    giver_id: UUID
    amount: int
    people: int


@dataclass(frozen=True, slots=True)
class GivenFound:
    """A distribution's row."""

    room_id: str
    given: Given
    given_back: int = 0
    closed: bool = True


@dataclass(frozen=True, slots=True)
class ShareFound:
    """A share's row; nobody has taken it while `receiver_id` is None."""

    room_id: str
    amount: int
    receiver_id: UUID | None = None
    receipt_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ReceiptFound:
    """A receipt: its row, or what a client was answered."""

    id: UUID
    status: str
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """All that is there; `receipts` are by who asked, some have several."""

    given: Sequence[GivenFound] = ()
    shares: Sequence[ShareFound] = ()
    receipts: Sequence[tuple[Asker, ReceiptFound]] = ()


@dataclass(slots=True)
class DistributionFindings(Findings):
    """What the check found: rooms, users in them, rules of the ledger. Nothing in any list is sound."""

    given: int = 0
    received: int = 0
    refused: int = 0
    not_begun: int = 0
    lost: list[str] = field(default_factory=list)
    """Acknowledged distributions, and shares that somebody was told to have, that are not there."""
    unended: list[str] = field(default_factory=list)
    """Receipts that are still asked when there was time enough."""
    wrong: list[str] = field(default_factory=list)
    """Another giver, amount or number of people than asked for, another share than told, a share of the giver's or
    of somebody who was refused, a refusal without its reason, a link that tells of another outcome."""
    doubled: list[str] = field(default_factory=list)
    """Two distributions for one key, two shares or received receipts of one user, a share of two receipts."""
    crowds: list[str] = field(default_factory=list)
    """What says that a crowd was not served: not as many users with a share, and not as many who were told so, as
    there are shares, somebody who was never told how it ended, a sum that is not the amount."""
    unequal: list[str] = field(default_factory=list)
    """Distributions whose shares are not its amount and number, or which gave back another than nobody took."""
    untold: list[str] = field(default_factory=list)
    """Closed distributions of which their givers were not notified in time."""
    told_twice: list[str] = field(default_factory=list)
    """Events of distributions that have two notifications."""
    broken: list[str] = field(default_factory=list)
    """Rules that the audit found broken, and where."""
    unserved: list[str] = field(default_factory=list)
    """What says that nothing is given or received any more after the fault."""


@dataclass(slots=True)
class Told:
    """What clients were told: `given` by the rooms of those that were answered, among all that were `asked` for.

    `refused` has the last reason. `linked` is what the links of answers without an outcome led to, None where that
    was nowhere: as it should be of what was not even written down. `doubled` are those who were given another
    answer for a key that had one. `crowds` are those who asked until they were told, by the room: the giver, and
    more members than there are shares.
    """

    asked: dict[str, Given] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    received: dict[Asker, ReceiptFound] = field(default_factory=dict)
    refused: dict[Asker, str] = field(default_factory=dict)
    linked: dict[UUID, ReceiptFound | None] = field(default_factory=dict)
    crowds: dict[str, frozenset[UUID]] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)


def check(told: Told, found: Found, broken: Sequence[str] = ()) -> DistributionFindings:
    """Classify every distribution, share and receipt; `broken` is what the audit said."""
    statuses = Counter(receipt.status for _, receipt in found.receipts)
    verdict = DistributionFindings(len(told.given), given=len(found.given), broken=list(broken))
    verdict.received, verdict.refused = statuses[_RECEIVED], statuses[_REFUSED]
    verdict.not_begun = statuses[_NOT_BEGUN]
    verdict.unended = [_name(asker) for asker, receipt in found.receipts if receipt.status == _ASKED]
    _check_given(told, found, verdict)
    _check_shares(told, found, verdict)
    _check_refusals(told, found, verdict)
    _check_links(told, found, verdict)
    _check_crowds(told, found, verdict)
    return verdict


def _check_given(told: Told, found: Found, verdict: DistributionFindings) -> None:
    rooms = Counter(one.room_id for one in found.given)
    verdict.lost += sorted(told.given - rooms.keys())
    verdict.wrong += [one.room_id for one in found.given if told.asked.get(one.room_id) != one.given]
    verdict.doubled += [*told.doubled, *(room for room, count in rooms.items() if count > 1)]
    shares = _by_room(found.shares)
    verdict.unequal += [one.room_id for one in found.given if not _is_whole(one, shares.get(one.room_id, []))]


def _is_whole(one: GivenFound, shares: Sequence[ShareFound]) -> bool:
    """Whether its shares are what was given, and what nobody took went back where it is closed."""
    free = sum(share.amount for share in shares if share.receiver_id is None)
    amounts = [share.amount for share in shares]
    as_given = (sum(amounts), len(amounts)) == (one.given.amount, one.given.people) and min(amounts) > 0
    return as_given and one.given_back == (free if one.closed else 0)


def _check_shares(told: Told, found: Found, verdict: DistributionFindings) -> None:
    """Each share that is taken is its receiver's one, by the one receipt that says so, and as it was told."""
    givers = {one.room_id: one.given.giver_id for one in found.given}
    receipts = [(asker, receipt) for asker, receipt in found.receipts if receipt.status == _RECEIVED]
    taken = [
        ((share.room_id, share.receiver_id), share) for share in found.shares if share.receiver_id is not None
    ]
    verdict.doubled += _twice(asker for asker, _ in taken)
    verdict.doubled += _twice(asker for asker, _ in receipts)
    shares_of = Counter(share.receipt_id for _, share in taken)
    verdict.doubled += [f"receipt {id_}" for id_, count in shares_of.items() if count > 1]
    as_shared = {(asker, share.receipt_id, share.amount) for asker, share in taken}
    as_received = {(asker, receipt.id, receipt.amount) for asker, receipt in receipts}
    verdict.wrong += sorted({_name(asker) for asker, *_ in as_shared ^ as_received})
    verdict.wrong += [_name(asker) for asker, _ in taken if givers.get(asker[0]) == asker[1]]
    shared = {asker for asker, _ in taken}
    for asker, receipt in told.received.items():
        if asker not in shared:
            verdict.lost.append(_name(asker))
        elif (asker, receipt.id, receipt.amount) not in as_shared:
            verdict.wrong.append(_name(asker))


def _check_refusals(told: Told, found: Found, verdict: DistributionFindings) -> None:
    """Who was refused has nothing; to nobody is said that nothing is left where something is."""
    givers = {one.room_id: one.given.giver_id for one in found.given}
    free = {share.room_id for share in found.shares if share.receiver_id is None}
    shared = {(share.room_id, share.receiver_id) for share in found.shares}
    for asker, reason in told.refused.items():
        room_id, user_id = asker
        if reason == NOT_FOR_GIVER:
            is_right = givers.get(room_id) == user_id
        else:
            is_right = reason == NOTHING_LEFT and room_id not in free
        if not is_right or asker in shared:
            verdict.wrong.append(f"{_name(asker)} {reason}")


def _check_links(told: Told, found: Found, verdict: DistributionFindings) -> None:
    rows = {receipt.id: receipt for _, receipt in found.receipts}
    for id_, answered in told.linked.items():
        if rows.get(id_) != answered:
            verdict.wrong.append(f"receipt {id_}")


def _check_crowds(told: Told, found: Found, verdict: DistributionFindings) -> None:
    """Each share of a crowd's is another member's, who was told so; all others were told that none is left."""
    shares = _by_room(found.shares)
    for room_id, members in told.crowds.items():
        given = told.asked[room_id]
        takers = Counter(share.receiver_id for share in shares.get(room_id, []) if share.receiver_id is not None)
        received = {
            user_id: told.received[room_id, user_id] for user_id in members if (room_id, user_id) in told.received
        }
        refused = Counter(told.refused.get((room_id, user_id)) for user_id in members - received.keys())
        counts = {
            "users with one share": (sum(count == 1 for count in takers.values()), given.people),
            "takers who did not ask": (len(takers.keys() - members), 0),
            "told of a share": (len(received), given.people),
            "told the amount, in all": (sum(one.amount for one in received.values()), given.amount),
            "told that nothing is left": (refused[NOTHING_LEFT], len(members) - 1 - given.people),
            "told that who gives does not take": (refused[NOT_FOR_GIVER], 1),
            "never told": (refused[None], 0),
        }
        verdict.crowds += [
            f"{room_id}: {there} {what}, not {due}" for what, (there, due) in counts.items() if there != due
        ]


def _by_room(shares: Iterable[ShareFound]) -> dict[str, list[ShareFound]]:
    rooms: dict[str, list[ShareFound]] = {}
    for share in shares:
        rooms.setdefault(share.room_id, []).append(share)
    return rooms


def _twice(askers: Iterable[Asker]) -> list[str]:
    return [_name(asker) for asker, count in Counter(askers).items() if count > 1]


def _name(asker: Asker) -> str:
    return f"{asker[1]} in {asker[0]}"
