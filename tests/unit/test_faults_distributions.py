"""What is damaged in distributions is found, each kind as its own class; what is sound is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from faults.distributions.checker import Found, Given, GivenFound, ReceiptFound, ShareFound, Told, check

GIVER, ADA, BOB, CYD, DAN = (UUID(int=number) for number in range(1, 6))
ADAS, BOBS, CYDS, LATE = (UUID(int=number) for number in range(11, 15))
ROOM, UNHEARD = "played-1", "played-2"
GIVEN = Given(GIVER, 100, 2)
RECEIVED = {ADA: ReceiptFound(ADAS, "received", 70), BOB: ReceiptFound(BOBS, "received", 30)}
NOTHING = ReceiptFound(LATE, "not_begun")


def told() -> Told:
    """Two have a share each, one heard of a link first; of a second distribution nobody heard."""
    return Told(
        asked={ROOM: GIVEN, UNHEARD: GIVEN},
        given={ROOM},
        received={(ROOM, user): receipt for user, receipt in RECEIVED.items()},
        refused={(ROOM, GIVER): "not-for-giver", (ROOM, CYD): "nothing-left"},
        linked={LATE: NOTHING, BOBS: RECEIVED[BOB]},
    )


def found() -> Found:
    """What agrees with it; of the second, one share is free, and given back."""
    return Found(
        given=[GivenFound(ROOM, GIVEN), GivenFound(UNHEARD, GIVEN, given_back=40)],
        shares=[
            ShareFound(ROOM, 70, ADA, ADAS),
            ShareFound(ROOM, 30, BOB, BOBS),
            ShareFound(UNHEARD, 60, DAN, CYDS),
            ShareFound(UNHEARD, 40),
        ],
        receipts=[
            ((ROOM, ADA), RECEIVED[ADA]),
            ((ROOM, BOB), NOTHING),
            ((ROOM, BOB), RECEIVED[BOB]),
            ((ROOM, CYD), ReceiptFound(UUID(int=16), "refused")),
            ((UNHEARD, DAN), ReceiptFound(CYDS, "received", 60)),
        ],
    )


def damage(told: Told, found: Found) -> set[str]:
    return {name for name, ones in check(told, found).damage().items() if ones}


def test_what_is_sound_is_found_sound() -> None:
    findings = check(told(), found())
    assert findings.sound, findings
    figures = (findings.acknowledged, findings.given, findings.received, findings.refused)
    assert (*figures, findings.not_begun) == (1, 2, 3, 1, 1)


def test_one_of_which_nobody_heard_need_not_be_there_and_may_be_open_still() -> None:
    there = found()
    open_still = replace(there.given[1], closed=False, given_back=0)
    assert check(told(), replace(there, given=[there.given[0], open_still])).sound
    alone = Found(there.given[:1], there.shares[:2], there.receipts[:4])
    assert check(told(), alone).sound


def with_shares(*shares: ShareFound) -> Callable[[Found], Found]:
    return lambda there: replace(there, shares=[*shares, *there.shares[2:]])


def with_given(*given: GivenFound) -> Callable[[Found], Found]:
    return lambda there: replace(there, given=given)


def with_receipt(user: UUID, receipt: ReceiptFound) -> Callable[[Found], Found]:
    return lambda there: replace(there, receipts=[*there.receipts, ((ROOM, user), receipt)])


UNHEARD_OF = GivenFound(UNHEARD, GIVEN, given_back=40)


@pytest.mark.parametrize(
    ("kinds", "planted"),
    [
        pytest.param({"lost", "wrong"}, with_given(UNHEARD_OF), id="a distribution that was acknowledged is gone"),
        pytest.param(
            {"wrong"}, with_given(GivenFound(ROOM, replace(GIVEN, giver_id=ADA)), UNHEARD_OF), id="another's gift"
        ),
        pytest.param(
            {"doubled"}, with_given(*[GivenFound(ROOM, GIVEN)] * 2, UNHEARD_OF), id="two gifts for one key"
        ),
        pytest.param(
            {"unequal"},
            with_given(GivenFound(ROOM, GIVEN, given_back=30), UNHEARD_OF),
            id="what was taken is given back, too",
        ),
        pytest.param(
            {"lost", "wrong"},
            with_shares(ShareFound(ROOM, 70, CYD, ADAS), ShareFound(ROOM, 30, BOB, BOBS)),
            id="a share taken twice: the second has it, the first was told so",
        ),
        pytest.param(
            {"lost", "wrong", "unequal"},
            with_shares(ShareFound(ROOM, 70), ShareFound(ROOM, 30, BOB, BOBS)),
            id="a reply that was taken for the truth: nothing was committed",
        ),
        pytest.param(
            {"wrong", "unequal"},
            with_shares(ShareFound(ROOM, 71, ADA, ADAS), ShareFound(ROOM, 30, BOB, BOBS)),
            id="shares that are more than the amount, and not as told",
        ),
        pytest.param(
            {"unequal", "wrong"},
            with_shares(ShareFound(ROOM, 70, ADA, ADAS), ShareFound(ROOM, 30, BOB, BOBS), ShareFound(ROOM, 0)),
            id="more shares than people",
        ),
        pytest.param(
            {"doubled", "lost", "wrong"},
            with_shares(ShareFound(ROOM, 70, ADA, ADAS), ShareFound(ROOM, 30, ADA, BOBS)),
            id="both shares are one user's",
        ),
        pytest.param(
            {"doubled", "wrong"},
            with_shares(ShareFound(ROOM, 70, ADA, ADAS), ShareFound(ROOM, 30, BOB, ADAS)),
            id="both shares are one receipt's",
        ),
        pytest.param(
            {"doubled", "wrong"},
            with_receipt(ADA, ReceiptFound(UUID(int=17), "received", 70)),
            id="two received receipts of one user",
        ),
        pytest.param({"unended"}, with_receipt(CYD, ReceiptFound(UUID(int=17), "asked")), id="never ended"),
    ],
)
def test_each_damage_is_found_as_what_it_is(kinds: set[str], planted: Callable[[Found], Found]) -> None:
    assert damage(told(), planted(found())) == kinds


@pytest.mark.parametrize(
    ("kinds", "planted"),
    [
        pytest.param(
            {"lost"}, {"received": {(ROOM, DAN): ReceiptFound(LATE, "received", 5)}}, id="a forged answer"
        ),
        pytest.param(
            {"wrong"}, {"received": {(ROOM, ADA): ReceiptFound(ADAS, "received", 30)}}, id="another amount told"
        ),
        pytest.param({"wrong"}, {"refused": {(ROOM, ADA): "nothing-left"}}, id="refused, and has a share"),
        pytest.param({"wrong"}, {"refused": {(UNHEARD, CYD): "nothing-left"}}, id="nothing left, and there is"),
        pytest.param({"wrong"}, {"refused": {(ROOM, CYD): "not-for-giver"}}, id="refused as who gives"),
        pytest.param({"wrong"}, {"refused": {(ROOM, CYD): "500"}}, id="refused for no reason"),
        pytest.param({"wrong"}, {"linked": {LATE: None}}, id="a link that leads nowhere"),
        pytest.param(
            {"wrong"}, {"linked": {LATE: ReceiptFound(LATE, "received", 30)}}, id="a link to another end"
        ),
        pytest.param({"doubled"}, {"doubled": ["somebody"]}, id="another answer for one key"),
    ],
)
def test_what_clients_were_told_is_compared(kinds: set[str], planted: dict[str, object]) -> None:
    assert damage(replace(told(), **planted), found()) == kinds  # type: ignore[arg-type]


def test_a_share_of_the_givers_is_wrong_though_all_agree() -> None:
    received = ReceiptFound(ADAS, "received", 70)
    there = found()
    stolen = replace(
        there,
        shares=[ShareFound(ROOM, 70, GIVER, ADAS), *there.shares[1:]],
        receipts=[((ROOM, GIVER), received), *there.receipts[1:]],
    )
    given = Told(asked={ROOM: GIVEN, UNHEARD: GIVEN}, given={ROOM}, received={(ROOM, GIVER): received})
    assert check(given, stolen).wrong == [f"{GIVER} in {ROOM}"]


def test_what_the_audit_finds_is_damage_and_what_was_found_before_is_not_found_again() -> None:
    before = check(told(), found(), ["nothing is negative: it is"])
    assert before.broken == ["nothing is negative: it is"]
    planted = with_receipt(CYD, ReceiptFound(UUID(int=17), "asked"))(found())
    now = check(told(), planted, ["nothing is negative: it is"]).since(before)
    assert (now.broken, now.unended, now.received) == ([], [f"{CYD} in {ROOM}"], 0)
