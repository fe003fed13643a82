"""The live figures of a server as `tensorquay top` gets them: server-sent events over HTTP, one connection at a time.

Source: WHATWG HTML, "Server-sent events" (only what `/v2/live` uses: one `event` and one `data` line each).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import click
import httpx

from tensorquay.commands.output import plain
from tensorquay.commands.server_options import Server

PATH = "/v2/live"

_CONNECT_TIMEOUT_S = 10.0
_QUIET_S = 90.0
"""Longer than any pause between two figures; then the server is taken for gone."""

_MOST_BYTES = 64 << 20
"""Of one event; a server with thousands of models needs far less."""

_MOST_ERROR_BYTES = 64 << 10
"""Of an answer that is no stream of events, and need not be of a server of ours."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `data` is what its JSON says."""

    name: str
    data: Any


class Lost(Exception):
    """There is no connection now; there may be one later."""


async def events(server: Server) -> AsyncIterator[Event]:
    """The events of one connection, until it ends.

    Raises: Lost when there is no connection or it ends; ClickException when the server will never tell us more.
    """
    waiting = httpx.Timeout(server.timeout_s or _CONNECT_TIMEOUT_S, read=_QUIET_S)
    try:
        # Not compressed: a few bytes of an answer could be very many.
        asked = {"accept": "text/event-stream", "accept-encoding": "identity"}
        async with (
            httpx.AsyncClient(timeout=waiting, headers=dict(server.headers), verify=server.verify()) as client,
            client.stream("GET", server.url + PATH, headers=asked) as answer,
        ):
            await _check(answer, server)
            async for block in _blocks(answer, server):
                yield _parsed(block, server)
    except httpx.InvalidURL as exc:
        raise click.ClickException(f"no answer from {server.url}: {exc}") from exc
    except httpx.HTTPError as exc:
        raise Lost(str(exc) or type(exc).__name__) from exc
    raise Lost("the server ended the connection")


async def _check(answer: httpx.Response, server: Server) -> None:
    if answer.status_code == httpx.codes.OK:
        if answer.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
            raise _strange(server)
        return
    text = ""
    content = bytearray()
    async for piece in answer.aiter_raw():
        content += piece
        if len(content) > _MOST_ERROR_BYTES:
            break
    try:
        said = json.loads(content)
        text = plain(str(said["error"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        text = answer.reason_phrase
    sentence = f"{server.url} answered {answer.status_code}: {text}"
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Lost(sentence)
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        sentence += " (--header NAME=VALUE sends one)"
    if answer.status_code == httpx.codes.NOT_FOUND:
        sentence += f" (it has no {PATH}; is it a Tensorquay server of this age?)"
    raise click.ClickException(sentence)


async def _blocks(answer: httpx.Response, server: Server) -> AsyncIterator[bytes]:
    kept = bytearray()
    async for piece in answer.aiter_bytes():
        searched = max(len(kept) - 1, 0)
        kept += piece
        while (end := kept.find(b"\n\n", searched)) >= 0:
            yield bytes(kept[:end])
            del kept[: end + 2]
            searched = 0
        if len(kept) > _MOST_BYTES:
            raise _strange(server)


def _parsed(block: bytes, server: Server) -> Event:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
    try:
        return Event(fields[b"event"].decode(), json.loads(fields[b"data"]))
    except (KeyError, ValueError, RecursionError) as exc:
        raise _strange(server) from exc


def _strange(server: Server) -> click.ClickException:
    return click.ClickException(f"{server.url}{PATH} does not tell live figures as a Tensorquay server does")
