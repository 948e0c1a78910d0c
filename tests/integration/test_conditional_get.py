"""A document of somebody else's costs no more bytes and time than it may, and each failure has its kind."""

from __future__ import annotations

import pytest

from shared.errors import TandemError, TransientError
from shared.outside.conditional_get import Document, RefusedAnswerError, Version, get_if_changed
from tests.integration.misbehaving import HEAD, server_that

BYTES_MAX = 1_000
NEVER_S = 60.0


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


async def got(answers: bytes, again: bytes = b"", timeout_s: float = 30.0) -> object:
    async with server_that(answers, again, NEVER_S if not again else 0.01) as server:
        return await get_if_changed(server.url, Version(), timeout_s=timeout_s, bytes_max=BYTES_MAX)


async def test_a_document_comes_with_what_its_server_calls_its_version() -> None:
    answer = whole(b"x" * BYTES_MAX, b'etag: W/"1"', b"last-modified: Sat, 28 Nov 2026 00:00:00 GMT")
    version = Version('W/"1"', "Sat, 28 Nov 2026 00:00:00 GMT")
    assert await got(answer) == Document(b"x" * BYTES_MAX, version)


async def test_a_server_is_told_which_version_is_known_and_says_whether_it_still_is() -> None:
    answer = b"HTTP/1.1 304 Not Modified\r\n\r\n"
    async with server_that(answer, b"", NEVER_S) as server:
        known = Version('"1"', "Sat, 28 Nov 2026 00:00:00 GMT")
        assert await get_if_changed(server.url, known, timeout_s=30, bytes_max=BYTES_MAX) is None
    [request] = server.asked
    assert b'if-none-match: "1"\r\n' in request.lower()
    assert b"if-modified-since: sat, 28 nov 2026" in request.lower()


@pytest.mark.parametrize(
    ("answers", "again", "error"),
    [
        pytest.param(whole(b"", status=b"503 Unavailable"), b"", TransientError, id="away"),
        pytest.param(whole(b"", status=b"429 Too Many Requests"), b"", TransientError, id="asked too often"),
        pytest.param(whole(b"", status=b"404 Not Found"), b"", RefusedAnswerError, id="not there"),
        pytest.param(
            whole(b"", b"location: http://127.0.0.1:1/", status=b"302 Found"),
            b"",
            RefusedAnswerError,
            id="moved",
        ),
        pytest.param(whole(b"x" * (BYTES_MAX + 1)), b"", RefusedAnswerError, id="too long"),
        pytest.param(HEAD + b"\r\n", b"x" * 100, RefusedAnswerError, id="without end"),
        pytest.param(whole(b"x", b"content-encoding: gzip"), b"", RefusedAnswerError, id="compressed"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"", TransientError, id="another tongue"),
    ],
)
async def test_what_may_pass_is_told_from_what_will_not(
    answers: bytes, again: bytes, error: type[TandemError]
) -> None:
    with pytest.raises(error):
        await got(answers, again)


@pytest.mark.parametrize("answers", [b"", HEAD, HEAD + b"\r\n"], ids=["nothing", "no head", "no end"])
async def test_a_server_that_goes_on_for_ever_is_left_in_time(answers: bytes) -> None:
    with pytest.raises(TransientError, match=r"within 0\.3 s"):
        await got(answers, timeout_s=0.3)


async def test_nobody_there_may_pass_and_a_url_that_is_none_will_not() -> None:
    with pytest.raises(TransientError):
        await get_if_changed("http://127.0.0.1:1/", Version(), timeout_s=30, bytes_max=1)
    with pytest.raises(RefusedAnswerError):
        await get_if_changed("http://[::1", Version(), timeout_s=30, bytes_max=1)
