"""When a call is sent again: the rules, and the conversation that keeps to the deadline."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_client.calls import Call, Repeat, Reply
from tensorquay_client.errors import (
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Overloaded,
    Unavailable,
)
from tensorquay_client.retry import NO_RETRY, Pause, Retry, Send, converse


def a_call(repeat: Repeat, verb: str = "GET") -> Call[bytes]:
    return Call("a call", verb, "/x", lambda reply: reply.body, repeat=repeat)


REFUSED, BROKEN = ConnectionFailed("refused", sent=False), ConnectionFailed("broke", sent=True)
SHORTLY, BUSY = Unavailable("busy", retry_after_s=0.1), Unavailable("busy")
OVERLOADED = Overloaded("full", retry_after_s=0.1)


@pytest.mark.parametrize(
    ("repeat", "verb", "infer", "again"),
    [
        (Repeat.ALWAYS, "GET", False, {REFUSED, BROKEN, SHORTLY, BUSY, OVERLOADED}),
        (Repeat.IF_REFUSED, "POST", False, {REFUSED}),
        (Repeat.IF_REFUSED, "POST", True, {REFUSED, SHORTLY, OVERLOADED}),
        (Repeat.IF_REFUSED, "", False, {REFUSED}),
        (Repeat.IF_REFUSED, "", True, {REFUSED, SHORTLY, BUSY, OVERLOADED}),
        (Repeat.NEVER, "POST", True, {REFUSED}),
    ],
)
def test_only_what_is_safe_is_sent_again(repeat: Repeat, verb: str, infer: bool, again: set[ClientError]) -> None:
    retry = Retry(infer=infer)
    others = [InvalidArgument("no"), Internal("no"), DeadlineExceeded("no")]
    for error in (REFUSED, BROKEN, SHORTLY, BUSY, OVERLOADED, *others):
        assert (retry.pause_s(1, a_call(repeat, verb), error) is not None) == (error in again), error


def test_a_server_that_asks_for_a_long_pause_is_not_asked_again() -> None:
    long = Overloaded("full", retry_after_s=3600)
    assert Retry(longest_pause_s=2).pause_s(1, a_call(Repeat.ALWAYS), long) is None


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True), st.floats(0, 10), st.floats(0, 10))
def test_pauses_are_bounded_and_never_shorter_than_asked(tries: int, draw: float, first: float, asked: float) -> None:
    retry = Retry(attempts=10_000, first_pause_s=first, longest_pause_s=10, draw=lambda: draw)
    pause = retry.pause_s(tries, a_call(Repeat.ALWAYS), Unavailable("busy", retry_after_s=asked))
    assert pause is not None
    assert asked <= pause <= 10


def test_pauses_double_between_half_and_whole() -> None:
    call = a_call(Repeat.ALWAYS)
    low, high = Retry(attempts=9, draw=lambda: 0.0), Retry(attempts=9, draw=lambda: 1.0)
    assert [low.pause_s(n, call, BUSY) for n in (1, 2, 3)] == [0.025, 0.05, 0.1]
    assert [high.pause_s(n, call, BUSY) for n in (1, 2, 3, 8)] == [0.05, 0.1, 0.2, 2.0]


def test_nonsense_is_refused() -> None:
    for wrong in ({"attempts": 0}, {"first_pause_s": -1.0}, {"longest_pause_s": -1.0}):
        with pytest.raises(ValueError, match="Retry"):
            Retry(**wrong)


class Run:
    """Drives a conversation with a made-up clock; each try takes `seconds_per_try`."""

    def __init__(self, outcomes: Sequence[Reply | ClientError], seconds_per_try: float = 0.0) -> None:
        self.outcomes, self.seconds_per_try, self.now_s = list(outcomes), seconds_per_try, 100.0
        self.timeouts: list[float | None] = []
        self.pauses: list[float] = []

    def result(self, call: Call[bytes], retry: Retry, timeout_s: float | None) -> bytes:
        steps = converse(call, retry, timeout_s, lambda: self.now_s)
        outcome: Reply | ClientError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return bytes(done.value)
            match step:
                case Send(allowed_s):
                    self.timeouts.append(allowed_s)
                    self.now_s += self.seconds_per_try
                    outcome = self.outcomes.pop(0)
                case Pause(seconds):
                    self.pauses.append(seconds)
                    self.now_s += seconds
                    outcome = None


def test_it_tries_until_it_works() -> None:
    run = Run([REFUSED, BUSY, Reply(200, {}, b"yes")])
    assert run.result(a_call(Repeat.ALWAYS), Retry(draw=lambda: 1.0), None) == b"yes"
    assert run.pauses == [0.05, 0.1]
    assert run.timeouts == [None, None, None]


def test_it_gives_up_after_the_last_attempt_with_the_last_error() -> None:
    last = Unavailable("the last")
    with pytest.raises(Unavailable, match="the last"):
        Run([BUSY, BUSY, last]).result(a_call(Repeat.ALWAYS), Retry(attempts=3), None)
    with pytest.raises(ConnectionFailed):
        Run([REFUSED]).result(a_call(Repeat.ALWAYS), NO_RETRY, None)


def test_the_timeout_covers_all_tries_and_pauses() -> None:
    run = Run([BUSY] * 9, seconds_per_try=1.0)
    with pytest.raises(Unavailable):
        run.result(a_call(Repeat.ALWAYS), Retry(attempts=9, first_pause_s=0.5, draw=lambda: 1.0), 4.0)
    assert run.timeouts == [4.0, 2.5, 0.5]  # each what is left; no fourth try after the time is up


def test_no_time_at_all_sends_nothing() -> None:
    run = Run([])
    with pytest.raises(DeadlineExceeded, match="a call: no answer within 0 s"):
        run.result(a_call(Repeat.ALWAYS), Retry(), 0.0)
    assert run.timeouts == []
