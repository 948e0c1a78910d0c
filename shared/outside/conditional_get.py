"""Fetches a document over HTTP if it has changed (RFC 9110, 13.1): bounded in bytes, and in time as a whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from shared.errors import PermanentError, TransientError

_MAY_PASS = frozenset({408, 425, 429})


class RefusedAnswerError(PermanentError):
    """The server answered, and what it answered is not what was asked for: asking again changes nothing."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a server calls one version of a document; None where it does not."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """What was fetched, and which version that is."""

    content: bytes
    version: Version


async def get_if_changed(url: str, known: Version, *, timeout_s: float, bytes_max: int) -> Document | None:
    """The document at `url`, None where it is still the `known` version.

    `timeout_s` is from the look-up of the name to the last byte, however slowly they come. Redirections are not
    followed, and compressed answers not taken: their size is not known before they are unpacked. Raises
    `TransientError` for what may pass (the network, 408, 425, 429, 5xx), `RefusedAnswerError` for all else.
    """
    told = {"if-none-match": known.etag, "if-modified-since": known.last_modified}
    headers = {"accept-encoding": "identity", **{name: value for name, value in told.items() if value}}
    try:
        async with (
            asyncio.timeout(timeout_s),  # the client's own begins anew with every byte
            # To read the authorities that are trusted takes 40 ms: not where there is nothing to trust.
            httpx.AsyncClient(timeout=timeout_s, verify=not url.startswith("http://")) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            return await _read(answer, bytes_max)
    except (TimeoutError, httpx.TimeoutException):
        raise TransientError(f"not fetched within {timeout_s:g} s") from None
    except httpx.TransportError as error:
        raise TransientError(f"not fetched: {type(error).__name__}: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RefusedAnswerError(f"{type(error).__name__}: {error}") from error


async def _read(answer: httpx.Response, bytes_max: int) -> Document | None:
    status = answer.status_code
    if status == 304:
        return None
    if status in _MAY_PASS or status >= 500:
        raise TransientError(f"the server answered {status}")
    if status != 200:
        raise RefusedAnswerError(f"the server answered {status}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise RefusedAnswerError("the server compressed its answer, which was not asked for")
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > bytes_max:
            raise RefusedAnswerError(f"the answer has over {bytes_max:,} bytes")
    return Document(bytes(content), Version(answer.headers.get("etag"), answer.headers.get("last-modified")))
