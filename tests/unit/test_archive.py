"""What an archived object is: compressed lines, the same bytes for the same rows, and never cut without a word."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.notification.handlers import ARCHIVE, schedules
from shared.jobs.archive import lines as lines_module
from shared.jobs.archive.lines import Lines, PortionTooLargeError, unpacked
from shared.settings import Settings

SETTINGS: dict[str, Any] = {
    "broker": "rabbit",
    "http_port": 1,
    "postgres_dsn": "postgresql://u:p@127.0.0.1/notification",
    "redis_url": "redis://127.0.0.1/0",
    "rabbit_url": "amqp://127.0.0.1/",
}
STORAGE: dict[str, Any] = {
    "object_store_url": "http://127.0.0.1:1",
    "object_store_access_key": "a",
    "object_store_secret_key": "s",
}


async def packed(*portions: list[str]) -> bytes:
    made = Lines()
    for portion in portions:
        await made.add(portion)
    assert made.count == sum(map(len, portions))
    return made.close()


async def test_lines_come_back_as_they_were_and_any_gzip_reads_them() -> None:
    lines = ['{"a": "\u2028\x85\u00e9"}', "{}", '{"b": 12345678901234567890}']
    content = await packed(lines[:1], lines[1:])
    assert unpacked(content) == lines
    assert gzip.decompress(content).decode() == "".join(f"{line}\n" for line in lines)
    assert unpacked(await packed()) == []


async def test_a_line_break_between_the_parts_of_a_json_value_makes_no_second_line() -> None:
    assert unpacked(await packed(['{"a":\n1}'])) == ['{"a": 1}']


async def test_the_same_lines_are_the_same_bytes() -> None:
    lines = [f'{{"n": {number}}}' for number in range(1_000)]
    assert await packed(lines) == await packed(lines)


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c + c, lambda c: b"x" + c[1:], lambda _: b""])
async def test_what_is_cut_short_or_has_more_is_no_object(damage: Any) -> None:
    content = await packed(["{}"] * 10)
    with pytest.raises(ValueError, match=r"gzip|cut short"):
        unpacked(damage(content))


async def test_what_does_not_fit_an_object_is_refused_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "OBJECT_BYTES_MAX", 10)
    with pytest.raises(PortionTooLargeError, match="over 10 bytes"):
        await packed(["{}"])


def test_the_archive_is_due_on_sundays_at_midnight_in_seoul_and_only_where_there_is_a_storage() -> None:
    assert ARCHIVE.schedules(Settings(**SETTINGS)) == ()
    [schedule] = ARCHIVE.schedules(Settings(**SETTINGS, **STORAGE))
    row = schedule.row(datetime(2026, 11, 24, 12, tzinfo=UTC))
    assert (row["name"], row["zone"], row["next_due"]) == (
        "archive",
        "Asia/Seoul",
        datetime(2026, 11, 28, 15, tzinfo=UTC),
    )
    assert schedules(Settings(**SETTINGS, **STORAGE))


def test_every_service_with_jobs_archives_their_history() -> None:
    services = Path(__file__).parents[2] / "services"
    having = {
        path.parent.parent.name
        for path in services.glob("*/migrations/*.py")
        if "create_jobs_1" in path.read_text()
    }
    archiving = {
        path.relative_to(services).parts[0]
        for path in services.rglob("*.py")
        if "archive=ARCHIVE" in path.read_text()
    }
    assert having == archiving != set()
