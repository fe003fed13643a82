"""Which requests have spans: those whose caller asks for it, within a bound, and of the others a share.

A caller's decision is obeyed (the sampled flag of traceparent), so that its traces are whole. As anybody may set that
flag, only so many requests a second are followed; the next are treated as if they had no caller's span.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.core.trace_context import RawContext, parse, wish

_IDS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """What is sampled.

    Args:
        ratio: share of the requests without a caller's span, 0 to 1.
        follow: whether a caller's flag is obeyed; otherwise `ratio` decides about every request.
        followed_per_s: sampled requests of callers that are obeyed a second, on average; as many may come at once.
    """

    ratio: float
    follow: bool = True
    followed_per_s: int = 100

    def shared(self, count: int) -> SamplingRule:
        """The rule of one of `count` processes that keep it together."""
        return SamplingRule(self.ratio, self.follow, -(-self.followed_per_s // count))


class RequestSampler:
    """Begins the traces of one process. Loop-confined; owner: whoever opens the doors.

    Args:
        ended: takes every trace that has ended.
        dice: for ids and decisions; need not be unpredictable.
    Attributes:
        roll, ratio: a request without a caller's span is sampled when `roll() < ratio`. For those who ask so often that
            a call more is one too many; then `new`.
    """

    def __init__(
        self, rule: SamplingRule, ended: Callable[[RequestTrace], None], *, dice: random.Random | None = None
    ) -> None:
        self._rule = rule
        self.ratio = rule.ratio
        self._ended = ended
        dice = dice or random.Random()
        self.roll = dice.random
        self._bits = dice.getrandbits
        self._ids: list[tuple[bytes, bytes]] = []
        self._allowance = float(rule.followed_per_s)
        self._counted_ns = 0

    def begin(self, entrance: Entrance, arrival_ns: int, context: RawContext | None = None) -> RequestTrace | None:
        """The trace of the request that came at `arrival_ns`, or None for most."""
        if context is not None and self._rule.follow:
            asked = wish(context)
            if asked is False:
                return None
            if asked and self._may_follow(arrival_ns):
                return self.new(entrance, arrival_ns, context)
        return self.new(entrance, arrival_ns, context) if self.roll() < self.ratio else None

    def new(self, entrance: Entrance, arrival_ns: int, context: RawContext | None = None) -> RequestTrace:
        """The trace of a request that is sampled."""
        trace_id, span_id = self.ids()
        caller = None if context is None else parse(context)
        if caller is None:
            return RequestTrace(self._ended, entrance, arrival_ns, trace_id, span_id)
        return RequestTrace(self._ended, entrance, arrival_ns, caller.trace_id, span_id, caller.span_id, caller.state)

    def ids(self) -> tuple[bytes, bytes]:
        """A new trace's id and a new span's; neither is all zeros."""
        if not self._ids:
            # One in a while finds nothing of this in the processor's caches; many at once do.
            self._ids = [
                ((self._bits(128) or 1).to_bytes(16, "big"), (self._bits(64) or 1).to_bytes(8, "big"))
                for _ in range(_IDS_AT_ONCE)
            ]
        return self._ids.pop()

    def _may_follow(self, now_ns: int) -> bool:
        most = float(self._rule.followed_per_s)
        passed_s = max(0, now_ns - self._counted_ns) / 1e9
        self._counted_ns = max(self._counted_ns, now_ns)
        self._allowance = min(most, self._allowance + passed_s * most)
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True
