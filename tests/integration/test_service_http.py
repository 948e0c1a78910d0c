"""The services' HTTP on a real database: state, outbox and stored answers change together or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from deploy.native import Runtime
from services.notification import app as notification_app
from services.order import app as order_app
from services.order.domain import Line
from services.order.handlers import place_order
from services.order.store import Users
from services.user import app as user_app
from shared.errors import TransientError
from shared.http import idempotency
from shared.process.service import Service
from tests.integration.databases import migrated_database
from tests.integration.served import Running, served

LINES = [{"sku": "TEA-250", "quantity": 2, "unit_amount": 1250}]


Start = Callable[..., Any]


@pytest.fixture
async def start(servers: Runtime) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def started(service: Service, **overrides: Any) -> Running:
            return served(stack, servers, service, await migrated_database(servers, service.name), **overrides)

        yield started


@pytest.fixture
async def user(start: Start) -> Running:
    running: Running = await start(user_app.SERVICE)
    return running


@pytest.fixture
async def order(start: Start) -> Running:
    running: Running = await start(order_app.SERVICE)
    return running


@pytest.fixture
async def notification(start: Start) -> Running:
    running: Running = await start(notification_app.SERVICE)
    return running


async def known_user(order: Running, version: int = 1, event_type: str = "user.registered", **data: Any) -> str:
    user_id = data.pop("user_id", None) or str(uuid4())
    await order.receive(event_type, {"user_id": user_id, "version": version, **data})
    return user_id


def new_order(user_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "currency": "EUR", "lines": LINES}


# -- users


async def test_a_user_lives_from_registration_to_deactivation(user: Running) -> None:
    registered = await user.http.post("/users", json={"email": "ada@example.org", "name": " Ada "})
    assert registered.status_code == 201
    path = registered.headers["location"]
    assert path == f"/users/{registered.json()['id']}"
    assert UUID(registered.json()["id"]).version == 7
    assert (await user.http.get(path)).json() == registered.json()
    renamed = await user.http.patch(path, json={"name": "Ada King"})
    assert (renamed.status_code, renamed.json()["name"], renamed.json()["version"]) == (200, "Ada King", 2)
    assert (await user.http.patch(path, json={"name": "Ada King"})).json() == renamed.json()
    gone = await user.http.post(f"{path}/deactivate")
    assert (gone.status_code, gone.json()["status"], gone.json()["version"]) == (200, "deactivated", 3)
    assert (await user.http.post(f"{path}/deactivate")).status_code == 409
    assert (await user.http.patch(path, json={"name": "Ada"})).status_code == 409
    assert [(event.type, event.data["version"]) for event in await user.published()] == [
        ("user.registered", 1),
        ("user.profile_updated", 2),
        ("user.deactivated", 3),
    ]
    assert {event.key for event in await user.published()} == {registered.json()["id"]}


@pytest.mark.parametrize("name", ["Zoë", "名前", "🦊" * 200, "O'Brien; drop table users", "\u202e", "%s {0}"])
async def test_a_name_comes_back_as_it_was_given(user: Running, name: str) -> None:
    registered = await user.http.post("/users", json={"email": "a@b.org", "name": name})
    assert (await user.http.get(registered.headers["location"])).json()["name"] == name


async def test_what_nobody_has_is_not_found(user: Running, order: Running) -> None:
    some = uuid4()
    responses = [
        await user.http.get(f"/users/{some}"),
        await user.http.patch(f"/users/{some}", json={"name": "x"}),
        await user.http.post(f"/users/{some}/deactivate"),
        await order.http.get(f"/orders/{some}"),
        await order.http.post(f"/orders/{some}/pay"),
        await order.http.post(f"/orders/{some}/cancel"),
    ]
    assert [response.status_code for response in responses] == [404] * 6


# -- orders


async def test_an_order_is_placed_and_paid(order: Running) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    user_id = await known_user(order, traceparent=traceparent)
    placed = await order.http.post("/orders", json=new_order(user_id))
    assert placed.status_code == 201
    assert (placed.json()["status"], placed.json()["total_amount"], placed.json()["lines"]) == (
        "placed",
        2500,
        LINES,
    )
    path = placed.headers["location"]
    assert (await order.http.get(path)).json() == placed.json()
    paid = await order.http.post(f"{path}/pay")
    assert (paid.status_code, paid.json()["status"], paid.json()["version"]) == (200, "paid", 2)
    for change in ("pay", "cancel"):
        assert (await order.http.post(f"{path}/{change}")).status_code == 409
    events = await order.published()
    assert [(event.type, event.subject, event.data["version"]) for event in events] == [
        ("order.placed", placed.json()["id"], 1),
        ("order.paid", placed.json()["id"], 2),
    ]


async def test_a_note_comes_back_as_it_was_written_and_goes_with_the_event(order: Running) -> None:
    user_id = await known_user(order)
    for note in ("Ring twice.\n\tThen wait: \u540d\u524d \U0001f98a", "x" * 16_384, None):
        placed = await order.http.post("/orders", json={**new_order(user_id), "note": note})
        assert (placed.status_code, placed.json()["note"]) == (201, note)
        path = placed.headers["location"]
        assert (await order.http.get(path)).json()["note"] == note
        assert (await order.http.post(f"{path}/pay")).json()["note"] == note
        told, paid = (await order.published())[-2:]
        assert told.data["note"] == note
        assert "note" not in paid.data


async def test_a_user_who_is_not_known_yet_may_come_back_and_a_deactivated_one_not(order: Running) -> None:
    user_id = str(uuid4())
    unknown = await order.http.post("/orders", json=new_order(user_id))
    assert (unknown.status_code, unknown.headers["retry-after"]) == (409, "1")
    await known_user(order, user_id=user_id)
    assert (await order.http.post("/orders", json=new_order(user_id))).status_code == 201
    await known_user(order, 2, "user.deactivated", user_id=user_id)
    refused = await order.http.post("/orders", json=new_order(user_id))
    assert (refused.status_code, "retry-after" in refused.headers) == (409, False)
    assert len(await order.published()) == 1


@pytest.mark.parametrize(
    "arrivals",
    [
        [("user.registered", 1), ("user.profile_updated", 2), ("user.deactivated", 3)],
        [("user.deactivated", 3), ("user.profile_updated", 2), ("user.registered", 1)],
        [
            ("user.profile_updated", 2),
            ("user.deactivated", 3),
            ("user.registered", 1),
            ("user.profile_updated", 2),
        ],
    ],
)
async def test_the_newest_event_of_a_user_wins_in_whatever_order_they_arrive(
    order: Running, arrivals: list[tuple[str, int]]
) -> None:
    user_id = str(uuid4())
    for event_type, version in arrivals:
        await known_user(order, version, event_type, user_id=user_id)
    [row] = await order.rows("select active, version from known_user")
    assert (row.active, row.version) == (False, 3)


async def test_an_update_before_the_registration_makes_the_user_known(order: Running) -> None:
    user_id = await known_user(order, 2, "user.profile_updated")
    assert (await order.http.post("/orders", json=new_order(user_id))).status_code == 201


async def test_the_list_of_orders_has_each_once_newest_first(order: Running) -> None:
    user_id, other = await known_user(order), await known_user(order)
    placed = [(await order.http.post("/orders", json=new_order(user_id))).json()["id"] for _ in range(5)]
    await order.http.post("/orders", json=new_order(other))
    listed: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"user_id": user_id, "cursor": cursor, "limit": "2"}
        page = (await order.http.get("/orders", params=query)).json()
        listed += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert listed == placed[::-1]


async def test_of_many_who_pay_and_cancel_at_once_one_succeeds(order: Running) -> None:
    path = (await order.http.post("/orders", json=new_order(await known_user(order)))).headers["location"]
    responses = await asyncio.gather(*(order.http.post(f"{path}/{change}") for change in ["pay", "cancel"] * 8))
    assert sorted(response.status_code for response in responses) == [200] + [409] * 15
    assert len(await order.published()) == 2


# -- backpressure


async def test_while_the_outbox_is_full_nothing_can_be_changed_and_everything_can_be_read(start: Start) -> None:
    order = await start(order_app.SERVICE, outbox_rows_max=3)
    body = new_order(await known_user(order))
    placed = [await order.http.post("/orders", json=body) for _ in range(3)]
    assert [answer.status_code for answer in placed] == [201] * 3
    await order.process.parts.outbox_gate.look()
    path = placed[0].headers["location"]
    for refused in (await order.http.post("/orders", json=body), await order.http.post(f"{path}/pay")):
        assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
        assert refused.json()["type"] == "urn:tandem:problem:outbox-full"
    assert (await order.http.get(path)).json()["status"] == "placed"
    assert len(await order.published()) == 3
    await order.rows("delete from outbox where position = (select min(position) from outbox) returning 1")
    await order.process.parts.outbox_gate.look()
    assert (await order.http.post(f"{path}/pay")).status_code == 200


# -- notifications


async def test_notifications_are_found_by_user_and_by_order(notification: Running) -> None:
    user_id, order_id = str(uuid4()), str(uuid4())
    await notification.receive("user.registered", {"user_id": user_id, "name": "Ada", "version": 1})
    for version, event_type in enumerate(("order.placed", "order.paid"), 1):
        data = {
            "order_id": order_id,
            "user_id": user_id,
            "currency": "EUR",
            "total_amount": 2500,
            "version": version,
        }
        await notification.receive(event_type, data)
    by_order = (await notification.http.get("/notifications", params={"order_id": order_id})).json()["items"]
    assert [item["event_type"] for item in by_order] == ["order.paid", "order.placed"]
    assert "25.00 EUR" in by_order[0]["body"]
    first = (await notification.http.get("/notifications", params={"user_id": user_id, "limit": 2})).json()
    query = {"user_id": user_id, "cursor": first["next_cursor"]}
    second = (await notification.http.get("/notifications", params=query)).json()
    assert [item["event_type"] for item in second["items"]] == ["user.registered"]
    assert second["next_cursor"] is None
    both = {"user_id": str(uuid4()), "order_id": order_id}
    assert (await notification.http.get("/notifications", params=both)).json()["items"] == []


# -- idempotency keys


async def test_the_same_key_and_body_get_the_same_answer_and_one_effect(order: Running) -> None:
    body, key = new_order(await known_user(order)), {"Idempotency-Key": str(uuid4())}
    first = await order.http.post("/orders", json=body, headers=key)
    path = first.headers["location"]
    await order.http.post(f"{path}/pay")
    second = await order.http.post("/orders", json=body, headers=key)
    assert (second.status_code, second.content, second.headers["location"]) == (201, first.content, path)
    assert (second.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert len(await order.rows("select id from orders")) == 1


async def test_a_key_belongs_to_one_request(order: Running) -> None:
    body, key = new_order(await known_user(order)), {"Idempotency-Key": "k"}
    first = await order.http.post("/orders", json=body, headers=key)
    other_body = await order.http.post("/orders", json={**body, "currency": "USD"}, headers=key)
    other_path = await order.http.post(f"{first.headers['location']}/pay", headers=key)
    assert (other_body.status_code, other_path.status_code) == (409, 409)
    assert other_body.json()["type"] == "urn:tandem:problem:idempotency-key-reused"
    assert [event.type for event in await order.published()] == ["order.placed"]


async def test_many_with_one_key_at_once_get_one_answer(order: Running) -> None:
    body, key = new_order(await known_user(order)), {"Idempotency-Key": "k"}
    responses = await asyncio.gather(*(order.http.post("/orders", json=body, headers=key) for _ in range(25)))
    assert {(response.status_code, response.content) for response in responses} == {(201, responses[0].content)}
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 1
    assert len(await order.published()) == 1


async def test_a_refusal_is_not_kept(order: Running) -> None:
    user_id, key = str(uuid4()), {"Idempotency-Key": "k"}
    assert (await order.http.post("/orders", json=new_order(user_id), headers=key)).status_code == 409
    await known_user(order, user_id=user_id)
    assert (await order.http.post("/orders", json=new_order(user_id), headers=key)).status_code == 201


async def test_a_change_of_state_with_a_key_can_be_sent_again(order: Running) -> None:
    path = (await order.http.post("/orders", json=new_order(await known_user(order)))).headers["location"]
    answers = [await order.http.post(f"{path}/pay", headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


async def test_a_key_is_the_same_with_and_without_its_quotes(order: Running) -> None:
    body = new_order(await known_user(order))
    sent = ['"k1"', "k1", '"k1";v=2', '"order 42"', '" order 42"', '"a\\"b"', 'a"b']
    answers = [await order.http.post("/orders", json=body, headers={"Idempotency-Key": key}) for key in sent]
    assert [answer.status_code for answer in answers] == [201] * len(sent)
    keys = [row.key for row in await order.rows("select key from idempotency_key order by recorded_at")]
    assert keys == ["k1", "order 42", " order 42", 'a"b']
    assert len(await order.published()) == 4


async def test_a_key_that_an_earlier_version_kept_with_its_quotes_is_still_known(order: Running) -> None:
    body, key = new_order(await known_user(order)), {"Idempotency-Key": '"k1"'}
    first = await order.http.post("/orders", json=body, headers=key)
    await order.rows("update idempotency_key set key = '\"k1\"' returning 1")
    again = await order.http.post("/orders", json=body, headers=key)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    other = await order.http.post("/orders", json={**body, "currency": "USD"}, headers=key)
    assert other.status_code == 409
    literal = {"Idempotency-Key": '"\\"k1\\""'}
    assert (await order.http.post("/orders", json=body, headers=literal)).content != first.content
    assert len(await order.published()) == 2


async def test_a_profile_change_with_a_key_can_be_sent_again(user: Running) -> None:
    registered = await user.http.post("/users", json={"email": "ada@example.org", "name": "Ada"})
    path, key = registered.headers["location"], {"Idempotency-Key": "k"}
    first = await user.http.patch(path, json={"name": "Ada Lovelace"}, headers=key)
    await user.http.patch(path, json={"name": "Countess"})
    again = await user.http.patch(path, json={"name": "Ada Lovelace"}, headers=key)
    assert (first.status_code, again.content, again.headers["idempotent-replayed"]) == (200, first.content, "true")
    assert (await user.http.patch(path, json={"name": "Other"}, headers=key)).status_code == 409
    assert [event.data["version"] for event in await user.published()] == [1, 2, 3]


async def test_old_keys_are_forgotten_and_young_ones_not(order: Running) -> None:
    body = new_order(await known_user(order))
    for key in ("old", "young"):
        await order.http.post("/orders", json=body, headers={"Idempotency-Key": key})
    await order.rows(
        "update idempotency_key set recorded_at = now() - interval '2 days' where key = 'old' returning 1"
    )
    async with order.process.parts.database.transaction() as connection:
        assert await idempotency.prune(connection, 86_400.0, 10) == 1
    assert [row.key for row in await order.rows("select key from idempotency_key")] == ["young"]


async def test_nothing_is_left_of_a_request_that_failed(order: Running) -> None:
    user_id = await known_user(order)

    async def fail_at_the_end() -> None:
        async with order.process.parts.units.begin() as uow:
            await place_order(uow, Users(), UUID(user_id), "EUR", [Line("S", 1, 1)])
            await uow.flush()
            raise TransientError

    with pytest.raises(TransientError):
        await fail_at_the_end()
    assert await order.published() == []
    assert await order.rows("select id from orders") == []
