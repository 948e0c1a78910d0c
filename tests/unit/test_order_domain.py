"""The rules of an order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.order import domain
from services.order.domain import KnownUser, Line, Order, OrderStatus
from services.order.http import CURRENCIES

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
ORDER_ID = UUID("0198c0de-0000-7000-8000-000000000001")
USER = KnownUser(UUID("0198c0de-0000-7000-8000-00000000000a"), active=True, version=1, traceparent=None)


def placed() -> Order:
    return domain.place(ORDER_ID, USER, "EUR", [Line("TEA-250", 2, 1250), Line("POT-1", 1, 4999)], NOW)


def test_a_new_order_is_placed_with_version_1_and_the_sum_of_its_lines() -> None:
    order = placed()
    assert (order.status, order.version, order.total_amount) == (OrderStatus.PLACED, 1, 2 * 1250 + 4999)
    assert (order.user_id, order.placed_at, order.updated_at) == (USER.user_id, NOW, NOW)
    assert (order.id, order.currency, order.note) == (ORDER_ID, "EUR", None)
    assert order.lines == (Line("TEA-250", 2, 1250), Line("POT-1", 1, 4999))
    assert domain.place(ORDER_ID, USER, "EUR", [], NOW, note="by the door").note == "by the door"


@pytest.mark.parametrize(
    ("change", "status"), [(domain.pay, OrderStatus.PAID), (domain.cancel, OrderStatus.CANCELLED)]
)
def test_a_placed_order_can_be_closed_once(change: object, status: OrderStatus) -> None:
    assert callable(change)
    order = change(placed(), LATER)
    assert (order.status, order.version, order.placed_at, order.updated_at) == (status, 2, NOW, LATER)
    for second in (domain.pay, domain.cancel):
        with pytest.raises(domain.IllegalStateChangeError, match=status.value):
            second(order, LATER)


def test_a_change_leaves_the_order_it_started_from_as_it_was() -> None:
    order = placed()
    domain.pay(order, LATER)
    assert order == placed()


def test_a_user_nobody_told_of_may_not_order_yet() -> None:
    with pytest.raises(domain.UserNotKnownError, match=f"{USER.user_id} is not known"):
        domain.require_known(None, USER.user_id)


def test_a_deactivated_user_may_not_order() -> None:
    with pytest.raises(domain.UserDeactivatedError, match=f"{USER.user_id} is deactivated"):
        domain.require_known(KnownUser(USER.user_id, active=False, version=1, traceparent=None), USER.user_id)


def test_the_largest_order_is_exact_in_a_bigint_and_in_a_double() -> None:
    lines = [Line("S", domain.QUANTITY_MAX, domain.UNIT_AMOUNT_MAX)] * domain.LINES_MAX
    total = domain.place(ORDER_ID, USER, "EUR", lines, NOW).total_amount
    assert total < 2**63
    assert int(float(total)) == total


def test_currencies_are_codes_that_one_can_pay_with() -> None:
    assert {"EUR", "USD", "JPY", "KRW", "KWD"} <= CURRENCIES
    assert not {"XXX", "XTS", "XAU", "HRK", "EUX", "eur"} & CURRENCIES
    assert all(len(code) == 3 and code.isalpha() and code.isupper() for code in CURRENCIES)
