"""When a call is sent again, and the one conversation that both sync and async clients follow.

Pure: no clock, no sleep, no socket of its own. `converse` is a generator that yields what to do next (`Send`, `Pause`)
and receives what came of it; a driver of a few lines obeys it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from tensorquay_client.calls import Call, Repeat, Reply
from tensorquay_client.errors import ClientError, ConnectionFailed, DeadlineExceeded, Overloaded, Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently to try again.

    A request that cannot have reached the server (connection refused) is always worth another try. One that may have
    is repeated only if that is harmless: questions (health, metadata, configuration, statistics, index) are;
    loading and unloading are not; a prediction is repeated only with `infer=True`, and then only when the server said
    itself that it did not run it (503 or 429 with Retry-After over HTTP; UNAVAILABLE or RESOURCE_EXHAUSTED over gRPC).

    Args:
        attempts: tries in all; 1 turns retries off.
        first_pause_s: the first pause is random between half of this and this; each further one up to twice as long.
        longest_pause_s: bound of a pause. A server that asks for a longer one (Retry-After) gets its error raised.
        infer: also repeat predictions that the server refused.
        draw: a random number in [0, 1); for tests.
    """

    attempts: int = 3
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    infer: bool = False
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_pause_s < 0 or self.longest_pause_s < 0:
            raise ValueError("Retry: attempts must be ≥ 1 and pauses ≥ 0 seconds")

    def pause_s(self, tries: int, call: Call[Any], error: ClientError) -> float | None:
        """Seconds to wait after `tries` failed tries, or None to give up and raise `error`."""
        if tries >= self.attempts or not self._again(call, error):
            return None
        asked = error.retry_after_s
        if asked is not None and asked > self.longest_pause_s:
            return None
        # The exponent is bounded: 2**tries of a large `attempts` would overflow a float.
        backoff = min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(tries - 1, 32))
        jittered = backoff * (0.5 + 0.5 * self.draw())
        return max(jittered, asked or 0.0)

    def _again(self, call: Call[Any], error: ClientError) -> bool:
        if isinstance(error, ConnectionFailed):
            return call.repeat is Repeat.ALWAYS or not error.sent
        if not isinstance(error, Unavailable | Overloaded):
            return False
        match call.repeat:
            case Repeat.ALWAYS:
                return True
            case Repeat.IF_REFUSED:
                # gRPC (no verb) need not say when to come back: its code alone says that nothing was run.
                return self.infer and (error.retry_after_s is not None or not call.verb)
            case Repeat.NEVER:
                return False


NO_RETRY = Retry(attempts=1)


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call, allowing it `timeout_s` seconds (None: no limit)."""

    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for `seconds`."""

    seconds: float


Outcome: TypeAlias = Reply | ClientError | None
"""What came of a step: a reply or the transport's error after `Send`, None after `Pause`."""


def converse(
    call: Call[T], retry: Retry, timeout_s: float | None, now_s: Callable[[], float]
) -> Generator[Send | Pause, Outcome, T]:
    """Send `call`, try again as `retry` allows, return its result.

    Args: timeout_s: for everything together, pauses included. now_s: monotonic seconds.
    Raises: the last try's error; DeadlineExceeded when the time is up.
    """
    end_s = None if timeout_s is None else now_s() + timeout_s
    tries = 0
    while True:
        left_s = None if end_s is None else end_s - now_s()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded(f"{call.what}: no answer within {timeout_s:g} s")
        outcome = yield Send(left_s)
        tries += 1
        try:
            if isinstance(outcome, ClientError):
                raise outcome
            assert outcome is not None
            return call.parse(outcome)
        except ClientError as error:
            pause_s = retry.pause_s(tries, call, error)
            if pause_s is None or (end_s is not None and now_s() + pause_s >= end_s):
                raise
        yield Pause(pause_s)
