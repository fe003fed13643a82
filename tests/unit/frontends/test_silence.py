"""A front end is taken to hang when it has not answered for long, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from tensorquay.frontends.link import Link
from tensorquay.frontends.owner import Owned, OwnerEnd
from tensorquay.frontends.records import HEAD, Kind, Part, RecordReader, record

TIMEOUT_S = 30


class FrontEnd:
    """The other end: answers as many pings as it is told."""

    def __init__(self, answers: int) -> None:
        owned = Owned(cast("Any", None), hot=None, grpc=None, control={})
        self.end = OwnerEnd(owned, ready=lambda: None)
        self.end.attach(cast("Link", self))
        self.answers = answers
        self.pings = 0

    def send(self, parts: Sequence[Part]) -> None:
        data, (at,) = RecordReader().feed(b"".join(parts))
        assert HEAD.unpack_from(data, at)[1] == Kind.PING
        self.pings += 1
        if self.pings <= self.answers:
            asyncio.get_running_loop().call_soon(self.end.handlers()[Kind.PONG], b"".join(record(Kind.PONG)), 0)


@pytest.mark.parametrize("answers", [0, 1, 25])
def test_who_answers_is_asked_again_and_who_does_not_is_given_up(answers: int) -> None:
    front = FrontEnd(answers)
    asyncio.run(asyncio.wait_for(front.end.silent(0.01), TIMEOUT_S))
    assert front.pings == answers + 1
