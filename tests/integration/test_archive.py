"""The archive of the notification service over a real object storage, and that storage by itself."""

from __future__ import annotations

import asyncio
import gzip
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256

import orjson
import pytest

from deploy.native import Runtime
from services.notification import handlers, store
from shared.errors import PermanentError, TransientError
from shared.jobs.archive import history
from shared.jobs.retries import Retry
from shared.outside import objects
from shared.outside.objects import ObjectDamagedError, ObjectNotFoundError, ObjectRefusedError, ObjectStore
from tests.forked import fork
from tests.integration.archived import DEADLINE_S, NEW, OLD, Notifications, bucket_of, file_of, opened, service


@pytest.fixture(scope="module")
async def notifications(servers: Runtime, object_storage: Runtime) -> AsyncIterator[Notifications]:
    async with service(servers, object_storage) as made:
        yield made


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two retries at once, in place of those of half an hour."""
    monkeypatch.setattr(handlers.ARCHIVE.handlers[0], "retries", Retry(2, initial_s=0.01, max_s=0.05))


# -- what is archived


async def test_what_is_old_is_in_objects_byte_for_byte_and_in_no_table_until_it_is_put_back(
    notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ARCHIVED_AT_ONCE", 2)
    await notifications.notify("old", 5)
    await notifications.notify("young", 2, NEW)
    query = "select * from notification where event_id like 'old%' order by sequence"
    rows = await notifications.rows(query)

    job = await notifications.archive()

    assert job["state"] == "succeeded", job
    assert (await notifications.left("old"), await notifications.left("young")) == (0, 2)
    found = await notifications.archived("notifications")
    assert [one.rows for one in found] == [2, 2, 1]
    assert [found[0].first_at, found[-1].last_at] == [rows[0].recorded_at, rows[-1].recorded_at]
    contents = [file_of(notifications.storage, one.key).read_bytes() for one in found]
    assert [sha256(content).hexdigest() for content in contents] == [one.sha256 for one in found]
    assert [len(content) for content in contents] == [one.bytes for one in found]
    told = [orjson.loads(line) for content in contents for line in gzip.decompress(content).split(b"\n")[:-1]]
    assert [(one["table"], one["row"]["body"]) for one in told] == [("notification", row.body) for row in rows]
    result = (await notifications.http.get(f"/jobs/{job['id']}")).json()
    assert {step["handler"]: step["state"] for step in result["steps"]}["archive"] == "succeeded"

    again = await notifications.archive()

    assert again["state"] == "succeeded"
    assert len(await notifications.archived("notifications")) == 3, "there was nothing more"
    assert [await notifications.restore(one.key) for one in found] == [2, 2, 1]
    assert await notifications.rows(query) == rows
    assert [await notifications.restore(one.key) for one in found] == [0, 0, 0]
    assert (await notifications.archive())["state"] == "succeeded"
    assert await notifications.left("old") == 0
    assert [one.key for one in await notifications.archived("notifications")] == [one.key for one in found]


async def test_the_history_of_jobs_is_archived_as_wholes_and_can_be_put_back(
    notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "JOBS_MAX", 2)
    http = notifications.http
    span = {"first": "2026-01-01T00:00:00+09:00", "last": "2026-01-20T00:00:00+09:00"}
    ids = (await http.post("/schedules/archive/backfill", json=span)).json()["jobs"]
    assert len(ids) == 3, "the Sundays of that time"
    for job_id in ids:
        assert (await notifications.ended(job_id))["state"] == "succeeded"
    await notifications.rows(f"update job set finished_at = {OLD} where id = any(cast(:ids as uuid[]))", ids=ids)
    shown = [(await http.get(f"/jobs/{job_id}")).json() for job_id in ids]

    assert (await notifications.archive())["state"] == "succeeded"

    assert {(await http.get(f"/jobs/{job_id}")).status_code for job_id in ids} == {404}
    found = await notifications.archived("jobs")
    tables = [[orjson.loads(line)["table"] for line in await notifications.lines(one.key)] for one in found]
    assert [lines.count("job") for lines in tables] == [2, 1]
    assert {*tables[0]} == {"job", "job_step", "job_edge", "job_attempt"}
    for one, lines in zip(found, tables, strict=True):
        assert await notifications.restore(one.key) == one.rows == len(lines)
    assert [(await http.get(f"/jobs/{job_id}")).json() for job_id in ids] == shown


async def test_of_rows_of_which_one_has_gone_since_they_were_read_none_is_deleted(
    notifications: Notifications,
) -> None:
    await notifications.notify("counted", 3)
    [row, *_] = await notifications.rows("select sequence from notification where event_id like 'counted%'")
    rows = await notifications.rows("select sequence from notification where event_id like 'counted%'")
    told = {
        "key": "k", "source": "notifications", "sha256": "", "rows": 3, "bytes": 1,
        "first_at": datetime.now(UTC), "last_at": datetime.now(UTC), "sequences": [one.sequence for one in rows],
    }  # fmt: skip
    await notifications.rows("delete from notification where sequence = :one", one=row.sequence)
    with pytest.raises(Exception, match="null value"):
        async with notifications.parts.units.begin() as uow:
            uow.tell(store.RECORD_ARCHIVED, told)
    assert await notifications.left("counted") == 2
    await notifications.rows("delete from notification where event_id like 'counted%'")


# -- what goes wrong


@pytest.mark.usefixtures("patience")
async def test_an_object_that_does_not_come_back_as_it_was_put_deletes_nothing_and_is_told(
    notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = ObjectStore.put

    async def damaging(self: ObjectStore, key: str, content: bytes) -> None:
        await put(self, key, content)
        place = file_of(notifications.storage, key)
        damaged = bytearray(place.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        place.write_bytes(damaged)

    await notifications.notify("damaged", 4)
    known = len(await notifications.archived())
    with monkeypatch.context() as planted:
        planted.setattr(ObjectStore, "put", damaging)
        job = await notifications.archive()
    assert job["state"] == "failed"
    assert [step["attempt"] for step in job["steps"] if step["handler"] == "archive"] == [3]
    assert await notifications.left("damaged") == 4
    assert len(await notifications.archived()) == known
    assert [alert["alert"] for alert in notifications.alerts] == ["archive.alert"]
    assert notifications.alerts[0]["error_type"] == "ObjectDamagedError"

    assert (await notifications.archive())["state"] == "succeeded"
    assert await notifications.left("damaged") == 0
    notifications.alerts.clear()


@pytest.mark.usefixtures("patience")
async def test_while_the_storage_is_away_nothing_is_deleted_and_that_is_told(notifications: Notifications) -> None:
    await notifications.notify("waiting", 4)
    processes = notifications.storage.processes
    await asyncio.to_thread(processes.stop, "objects")
    try:
        job = await notifications.archive()
    finally:
        await asyncio.to_thread(processes.start, "objects")
    assert job["state"] == "failed"
    assert await notifications.left("waiting") == 4
    assert [alert["alert"] for alert in notifications.alerts] == ["archive.alert"]
    said = orjson.dumps([job, notifications.alerts]).decode()
    assert notifications.storage.site.password not in said

    answer = await notifications.http.post("/schedules/archive/run")
    assert (await notifications.ended(answer.json()["id"]))["state"] == "succeeded"
    assert await notifications.left("waiting") == 0
    notifications.alerts.clear()


async def test_a_worker_that_is_killed_between_storing_and_deleting_repeats_one_object_and_loses_none(
    servers: Runtime, object_storage: Runtime
) -> None:
    async with service(servers, object_storage, is_running=False) as notifications:
        await notifications.notify("killed", 12_000)
        job_id = await notifications.submit()
        before = await opened(object_storage).list_keys("notification", 1_000)
        first = await fork("tests.integration.archive_worker", environment=notifications.environment(
            failpoints="archive.stored=kill@2", worker_beat_interval_s=1, worker_beat_limit_s=3
        ))  # fmt: skip
        assert await first.wait(DEADLINE_S) == -signal.SIGKILL
        [stored] = await notifications.archived()
        assert await notifications.left("killed") == 12_000 - stored.rows == 7_000
        keys = await opened(object_storage).list_keys("notification", 1_000)
        mine = [key for key in keys if key not in before]
        assert len(mine) == 2, "what was stored and not yet deleted"

        async with notifications.running():
            job = await notifications.ended(job_id)

        assert job["state"] == "succeeded"
        [step] = [step for step in job["steps"] if step["handler"] == "archive"]
        assert step["attempt"] == 2
        assert await notifications.left("killed") == 0
        found = await notifications.archived()
        assert [one.rows for one in found] == [5_000, 5_000, 2_000]
        keys = await opened(object_storage).list_keys("notification", 1_000)
        assert {key for key in keys if key not in before} == {one.key for one in found} >= {*mine}


# -- the storage by itself


async def test_an_object_is_stored_listed_read_back_and_deleted(object_storage: Runtime) -> None:
    objects_ = opened(object_storage)
    content = bytes(range(256)) * 100
    assert await objects_.put_verified("some/where/first", content) == sha256(content).hexdigest()
    await objects_.put("some/where/second", b"2")
    await objects_.put("some/where/first", b"1")
    assert await objects_.list_keys("some/where", 10) == ["some/where/first", "some/where/second"]
    assert await objects_.list_keys("some/where", 1) == ["some/where/first"]
    assert await objects_.get("some/where/first") == b"1"
    with pytest.raises(ObjectDamagedError):
        await objects_.get_verified("some/where/first", sha256(content).hexdigest())
    await objects_.delete("some/where/first")
    await objects_.delete("some/where/first")
    with pytest.raises(ObjectNotFoundError):
        await objects_.get("some/where/first")


async def test_what_can_never_be_stored_is_refused_and_no_key_is_told(
    object_storage: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "not-the-secret-key"
    with pytest.raises(ObjectRefusedError, match="not allowed: put k") as refused:
        await opened(object_storage, secret_key=secret).put("k", b"")
    assert secret not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert secret not in repr(bucket_of(object_storage, secret_key=secret))
    with pytest.raises(ObjectRefusedError, match="no bucket elsewhere"):
        await opened(object_storage, name="elsewhere").put("k", b"")
    await opened(object_storage).put("large", b"12345")
    monkeypatch.setattr(objects, "OBJECT_BYTES_MAX", 4)
    with pytest.raises(ObjectRefusedError, match="5 bytes, over the 4 allowed"):
        await opened(object_storage).get("large")
    with pytest.raises(PermanentError, match="5 bytes, over the 4 allowed"):
        await opened(object_storage).put("large", b"12345")


async def test_a_storage_that_never_answers_is_given_up_after_its_time_and_may_pass(
    object_storage: Runtime,
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TransientError, match="object storage"):
            await opened(object_storage, url=url, timeout_s=0.3).put("k", b"")
