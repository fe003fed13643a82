"""What `tensorquay top` shows: it fits, it sorts, and nothing a server tells reaches the terminal as an order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tensorquay.commands.output import plain
from tensorquay.commands.top import _split
from tensorquay.commands.top_state import State, number
from tensorquay.commands.top_view import SORTS, Look, block, frame, millis, ordered, rate, size

SERVER = {
    "requests_per_s": 1234.5, "failures_per_s": 2.0, "refused_per_s": 0.0, "inflight_requests": 3, "waiting": 7,
    "cpu_cores": 1.25, "cpu_limit_cores": 2.0, "memory_bytes": 3 << 28, "memory_limit_bytes": 2 << 30,
    "throttled_share": 0.25, "latency_ms": {"p50": 1.0, "p95": 12.5, "p99": 130.0},
}  # fmt: skip


def version(**told: Any) -> dict[str, Any]:
    return {"version": "1", "state": "READY", "reason": "", "provider": "CPU", **told}


def busy(model: str, number: str = "1", **told: Any) -> dict[str, Any]:
    return {
        "model": model, "version": number, "requests_per_s": 10.0, "failures_per_s": {"REJECTED": 1.5}, "waiting": 2,
        "rows_per_run": 3.5, "busy": 0.5, "latency_ms": {"p50": 0.5, "p95": 1.5, "p99": 2.5}, **told,
    }  # fmt: skip


def state(models: dict[str, list[dict[str, Any]]], figures: list[dict[str, Any]] | None = None) -> State:
    made = State("http://127.0.0.1:8000")
    made.take("hello", {"server": {"version": "0.1.0", "control_mode": "none", "started_ms": 0}})
    made.take("models", {"models": [{"name": name, "versions": found} for name, found in models.items()]})
    for at in (1, 2, 3):
        made.take("figures", {"at_ms": 3_723_000 + at, "server": SERVER, "versions": figures or []})
    return made


MIXED = {
    "digits": [version(), version(version="2", state="LOADING", reason="importing: exporting")],
    "broken": [version(state="UNAVAILABLE", reason="[red]model.onnx[/red] is cut short", provider=None)],
    "never": [],
}


def text(made: State, **look: Any) -> str:
    return frame(made, Look(**look)).plain


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_frame_says_how_the_server_does_and_every_version(width):
    shown = text(state(MIXED, [busy("digits")]), width=width)
    for part in (
        "tensorquay 0.1.0",
        "up 1 h 2 min",
        "1,234",
        "12.5 ms",
        "1.25 of 2",
        "768 MiB of 2.0 GiB",
        "25%",
        "digits/1",
        "READY",
        "10.0",
    ):
        assert part in shown, part
    assert "broken/1 UNAVAILABLE: [red]model.onnx[/red] is cut short" in shown
    assert "digits/2 LOADING: importing" in shown
    assert "not loaded" in shown
    assert ("rows" in shown) == (width > 60)
    assert "p99 ms" in shown


def test_what_serves_is_ordered_by_traffic_and_otherwise_as_asked():
    made = state(
        {name: [version()] for name in ("a", "b", "c")},
        [
            busy("b", requests_per_s=50.0, failures_per_s={}),
            busy("c", failures_per_s={"BACKEND": 9.0}, waiting=40),
        ],
    )  # fmt: skip
    orders = {name: "".join(line.model for line in ordered(made, at)) for at, (name, _) in enumerate(SORTS)}
    assert orders == {"traffic": "bca", "failures": "cab", "p99": "bca", "queue": "cba", "busy": "bca", "name": "abc"}
    assert [line.name for line in ordered(state({"m": [version(version=v) for v in ("10", "9", "2")]}), 5)] == [
        "m/2",
        "m/9",
        "m/10",
    ]


def test_more_versions_than_fit_are_scrolled():
    made = state({f"m{each:02}": [version()] for each in range(40)})
    assert "m00/1" in text(made, height=16)
    assert "m39/1" not in text(made, height=16)
    last = text(made, height=16, first=99)
    assert "m39/1" in last
    assert "40 of 40 versions" in last
    assert "and 36 more with a reason" not in last


def test_many_reasons_leave_room_for_the_figures():
    made = state({f"m{each:02}": [version(state="UNAVAILABLE", reason="no")] for each in range(40)})
    shown = text(made, height=20)
    assert shown.count("UNAVAILABLE: no") == 3
    assert "and 37 more with a reason" in shown
    assert block(made, 200, unicode=True).plain.count("UNAVAILABLE: no") == 40


def test_a_lost_connection_is_what_the_frame_begins_with():
    made = state(MIXED)
    made.trouble = "All connection attempts failed"
    assert text(made).startswith("no connection: All connection attempts failed; trying again")


NASTY = st.text(st.sampled_from("ab/ []\x1b\x07\n\r\t\u202e\u0085\u009b日\u0301%{}") | st.characters(), max_size=60)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | NASTY,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NASTY, inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60)
@given(NASTY, NASTY, ANYTHING, st.integers(20, 160), st.integers(6, 50), st.integers(0, 9), st.booleans())
def test_nothing_told_is_obeyed_and_everything_fits(name, reason, odd, width, height, sort, unicode):
    made = state(
        {name: [version(state="UNAVAILABLE", reason=reason), version(version=reason, provider=odd, state=odd)]},
        [busy(name, requests_per_s=odd, waiting=odd, busy=odd, rows_per_run=odd, latency_ms=odd, failures_per_s=odd)],
    )
    made.trouble = reason
    look = Look(width, height, sort, 1, unicode)
    lines = frame(made, look).plain.split("\n")
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)
    assert all(line.isprintable() for line in block(made, width, unicode=unicode).plain.split("\n"))


@given(NASTY)
def test_plain_text_is_printable_and_what_was_printable_stays(given_text):
    shown = plain(given_text)
    assert shown.isprintable()
    assert shown == given_text or not given_text.isprintable()


@given(st.sampled_from(["hello", "models", "history", "figures"]), ANYTHING)
def test_what_is_shaped_differently_is_refused(name, data):
    """With the errors the command knows, or it was harmless."""
    made = state(MIXED)
    try:
        made.take(name, data)
    except (TypeError, KeyError, AttributeError, ValueError):
        return
    frame(made, Look())


def test_unknown_events_are_left_alone():
    assert state(MIXED).take("news", [1]) is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (2.5, 2.5),
        (True, None),
        ("3", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_numbers(value, expected):
    assert number(value) == expected


def test_values_have_few_digits():
    assert [rate(each) for each in (0, 0.012, 0.5, 99.94, 100, 12345.6)] == [
        "0",
        "0.01",
        "0.5",
        "99.9",
        "100",
        "12,346",
    ]
    assert [millis(each) for each in (None, 0.123, 12.34, 1234.5)] == ["", "0.12", "12.3", "1,234"]
    assert [size(each) for each in (7, 2048, 15 << 20, 3 << 40)] == ["7 B", "2.0 KiB", "15 MiB", "3.0 TiB"]


def test_keys_that_come_together_are_told_apart():
    assert list(_split(b"\x1b[A\x1bOBq\x1b[6~")) == [b"\x1b[A", b"\x1bOB", b"q", b"\x1b[6~"]
    assert list(_split(b"")) == [b""]
    assert list(_split(b"\x1b")) == [b"\x1b"]
