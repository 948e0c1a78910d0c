"""The job of a service's archive: portion after portion is stored, read back and compared, and then deleted.

Each portion is a checkpoint: what deletes its rows, the row that names its object and the cursor behind it are
one transaction, fenced like all that a leased step does. An object's key tells its bytes: a portion that is stored
again, because its worker was killed before that transaction, is the same object, and no other is overwritten.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from shared import failpoints
from shared.failpoints import FailPoints
from shared.jobs.archive.lines import Lines
from shared.jobs.archive.source import Portion, Source
from shared.jobs.context import Chunk, JobContext
from shared.jobs.errors import Reject
from shared.jobs.retries import Retry
from shared.jobs.schedules import Cron, Schedule
from shared.jobs.signatures import Job, Signature, chain, group, job
from shared.outside.objects import BREAKER, Bucket, ObjectStore
from shared.settings import Settings

ALERT: Final = "archive.alert"
SCHEDULE: Final = "archive"
SUNDAYS: Final = Cron("0 0 * * 0")
_QUEUE: Final = "batch"
_SOFT_S: Final = 3_600.0
_PATIENT: Final = Retry(10, initial_s=2.0, max_s=600.0)
"""A storage that is away is waited for, some half an hour in all; the next Sunday takes up what then is left."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What a job has archived: in so many objects so many rows, and the bytes of the objects."""

    objects: int = 0
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Object:
    source: Source
    portion: Portion
    rows: int
    content: bytes
    digest: str


class Archive:
    """The archive of one service, of these sources, one after the other.

        ARCHIVE = Archive("notification", NOTIFICATIONS, HISTORY)
        JOBS = Jobs(NotificationStepReady, archive=ARCHIVE)
        Schedules(*ARCHIVE.schedules(settings))

    Where no object storage is set there is no schedule, and nothing is archived.
    """

    def __init__(self, service: str, *sources: Source) -> None:
        self._service = service
        self._sources = sources
        self._archive: Job[..., Any] = _archiving(self)
        self._tell: Job[..., Any] = _telling(service)
        self.handlers: tuple[Job[..., Any], ...] = (self._archive, self._tell)

    def graph(self, before: datetime) -> Signature:
        """The job that archives what is from before this moment, and tells when it could not."""
        return chain(group(self._archive.s(before), on_failure="pass"), self._tell.s())

    def schedules(self, settings: Settings) -> tuple[Schedule, ...]:
        """Sundays at 00:00, what is older than the settings say by then, however late it runs."""
        if settings.object_store_url is None:
            return ()
        age = timedelta(seconds=settings.archive_after_s)
        return (Schedule(SCHEDULE, SUNDAYS, lambda due: self.graph(due.astimezone(UTC) - age), overlap="skip"),)

    def key(self, of: _Object) -> str:
        """Where an object is stored: by the moment of its first row, and its own bytes."""
        at = of.portion.first_at.astimezone(UTC)
        return f"{self._service}/{of.source.name}/{at:%Y/%m}/{at:%Y%m%dT%H%M%SZ}-{of.digest[:16]}.jsonl.gz"

    async def read(self, ctx: JobContext, before: datetime, cursor: Any) -> Chunk | None:
        """The next object, not stored yet, and the cursor behind it."""
        number, after, done = (0, None, Archived()) if cursor is None else _told(cursor)
        for source in self._sources[number:]:
            lines = Lines()
            async with ctx.reading() as connection:
                portion = await source.read(connection, before, after, lines)
            if portion is not None:
                content = lines.close()
                made = _Object(source, portion, lines.count, content, sha256(content).hexdigest())
                done = Archived(done.objects + 1, done.rows + made.rows, done.bytes + len(content))
                return Chunk(made, {"source": number, "after": portion.after, **asdict(done)})
            number, after = number + 1, None
        return None


def _told(cursor: Any) -> tuple[int, Any, Archived]:
    return cursor["source"], cursor["after"], Archived(cursor["objects"], cursor["rows"], cursor["bytes"])


def _archiving(archive: Archive) -> Job[..., Any]:
    @job(name="archive", leased=True, queue=_QUEUE, retries=_PATIENT, soft_s=_SOFT_S, concurrency=1)
    async def move_old_rows(before: datetime, ctx: JobContext) -> Archived:
        """Move what is from before that moment to the object storage; what that came to, over all attempts.

        Nothing is deleted that was not stored and read back. Raises `ObjectRefusedError`, which no other attempt
        mends, and `TransientError` for what may pass.
        """
        settings, done = ctx.parts.settings, Archived()
        store = ObjectStore(Bucket.of(settings), ctx.parts.circuit_breakers.named(BREAKER))
        fail_points = FailPoints.told(settings.failpoints)

        async def read(cursor: Any) -> Chunk | None:
            nonlocal done
            done = done if cursor is None else _told(cursor)[2]
            return await archive.read(ctx, before, cursor)

        async for made in ctx.iterate(read):
            key = archive.key(made)
            told = {
                "key": key,
                "source": made.source.name,
                "sha256": await store.put_verified(key, made.content),
                "rows": made.rows,
                "bytes": len(made.content),
                "first_at": made.portion.first_at,
                "last_at": made.portion.last_at,
            }
            if fail_points is not None:
                fail_points.reach(failpoints.ARCHIVE_STORED)
            ctx.tell(made.source.record, {**told, **made.portion.deletes})
            done = replace(done, rows=done.rows + made.rows)
            ctx.report(done.rows, done.rows, f"{made.source.name} until {made.portion.last_at:%Y-%m-%d}")
        return done

    return move_old_rows


def _telling(service: str) -> Job[..., Any]:
    @job(name="tell-of-archive", leased=True, queue=_QUEUE)
    async def tell_of_archive(archived: list[Any], ctx: JobContext) -> Any:
        """The result; where there is none, raise an alert that nothing more was moved, and `Reject`."""
        [result] = archived
        if "error" not in result:
            return result
        # Here alone, because they bring an HTTP client, which no consumer is to pay for.
        from shared.outside.alerts import Alerts
        from shared.outside.mail import Mailer

        settings, error = ctx.parts.settings, result["error"]
        mailer = Mailer(settings, ctx.parts.circuit_breakers.named("smtp")) if settings.alert_mail_to else None
        said = {"error_type": str(error["type"]), "error": str(error["message"])[:500], "job": str(ctx.job_id)}
        what = f"the archive of {service} was not finished; what is left stays in the database"
        await Alerts(settings, mailer).raise_now(ALERT, {"what": what, **said})
        raise Reject(f"not archived: {error['type']}: {error['message']}")

    return tell_of_archive
