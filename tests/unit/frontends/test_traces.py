"""The two halves of a trace, which a front end and the owner have: joined, or the link is broken."""

from __future__ import annotations

import json

import pytest

from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.frontends import traces
from tensorquay.frontends.records import BrokenLink
from tensorquay.frontends.traces import OpenTraces, document_of, ids_of

IDS = b"i" * 24 + bytes(8)


def at_the_door(call: int = 5) -> RequestTrace:
    trace = RequestTrace(lambda _: None, Entrance.GRPC, 100, b"t" * 16, b"s" * 8, b"p" * 8, "v=1")
    trace.asks("digits", "2", "r-\u00e9")
    trace.call = call
    trace.end(900, error="internal", status=500)
    return trace


def travelled(trace: RequestTrace) -> object:
    return json.loads(json.dumps(document_of(trace)))


def test_the_halves_make_a_whole():
    whole: list[RequestTrace] = []
    halves = OpenTraces(whole.append)
    inside = halves.open(5, ids_of(at_the_door()), 100)
    inside.asks("digits", "2", "r-\u00e9")
    inside.accepted("2", "CPU", 3)
    inside.waited(200)
    halves.close(travelled(at_the_door()))
    (trace,) = whole
    assert trace is inside
    expected = at_the_door()
    for name in ("trace_id", "span_id", "parent_id", "state", "entrance", "arrival_ns", "ended_ns", "error", "status",
                 "model", "version_asked", "request_id"):  # fmt: skip
        assert getattr(trace, name) == getattr(expected, name), name
    assert (trace.version, trace.provider, trace.rows, trace.queued_ns) == ("2", "CPU", 3, 200)


def test_what_the_owner_never_heard_of_is_recorded_too():
    whole: list[RequestTrace] = []
    OpenTraces(whole.append).close(travelled(at_the_door(call=traces.NEVER_SENT)))
    assert (whole[0].model, whole[0].error, whole[0].arrival_ns) == ("digits", "internal", 100)


def test_halves_that_never_come_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_OPEN", 3)
    halves = OpenTraces(lambda _: None)
    for call in range(10):
        halves.open(call, IDS, 0)
    assert len(halves._open) <= 3


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        [5],
        [5, "zz", "", []],
        [5, "00" * 24 + "09" * 8, "", []],
        [5, "00" * 24, "", []],
        [5, "00" * 32, "", [1]],
        "x" * 5,
    ],
)
def test_what_makes_no_sense_breaks_the_link(document: object) -> None:
    with pytest.raises(BrokenLink):
        OpenTraces(lambda _: None).close(document)


def test_when_the_front_end_is_gone_what_is_known_is_told():
    whole: list[RequestTrace] = []
    halves = OpenTraces(whole.append)
    inside = halves.open(5, ids_of(at_the_door()), 100)
    inside.asks("digits", "2", "r")
    halves.lose(700)
    assert whole == [inside]
    assert (inside.entrance, inside.model, inside.error, inside.ended_ns) == (Entrance.GRPC, "digits", "cancelled", 700)
    halves.lose(800)
    assert len(whole) == 1


def test_a_half_of_another_trace_breaks_the_link():
    halves = OpenTraces(lambda _: None)
    halves.open(5, b"x" * 24 + bytes(8), 0)
    with pytest.raises(BrokenLink):
        halves.close(travelled(at_the_door()))
