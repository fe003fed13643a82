"""Which requests are traced: callers' decisions within a bound, and a share of the rest."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.telemetry.trace_sampling import RequestSampler, SamplingRule

SECOND = 10**9
ASKED = (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"v=1")
DECLINED = (ASKED[0][:-2] + b"00", b"")


def sampler(rule: SamplingRule, ended: list[RequestTrace] | None = None) -> RequestSampler:
    return RequestSampler(rule, (ended if ended is not None else []).append, dice=random.Random(7))


def test_a_caller_that_asks_is_followed_and_its_trace_goes_on():
    ended: list[RequestTrace] = []
    trace = sampler(SamplingRule(0.0), ended).begin(Entrance.GRPC, 5, ASKED)
    assert trace is not None
    assert trace.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert trace.parent_id.hex() == "b7ad6b7169203331"
    assert (trace.state, trace.entrance, trace.arrival_ns) == ("v=1", Entrance.GRPC, 5)
    assert trace.traceparent == f"00-{trace.trace_id.hex()}-{trace.span_id.hex()}-01".encode()
    trace.end(9, error="internal", status=500)
    trace.end(10)
    assert ended == [trace]
    assert (trace.ended_ns, trace.error, trace.status) == (9, "internal", 500)


def test_a_caller_that_does_not_ask_is_followed_too():
    each = sampler(SamplingRule(1.0))
    assert each.begin(Entrance.HTTP, 0, DECLINED) is None
    assert each.begin(Entrance.HTTP, 0) is not None


def test_an_invalid_callers_span_is_as_good_as_none():
    trace = sampler(SamplingRule(1.0)).begin(Entrance.HTTP, 0, (b"nonsense", b"v=1"))
    assert trace is not None
    assert (trace.parent_id, trace.state) == (b"", "")


def test_callers_cannot_have_everything_traced():
    each = sampler(SamplingRule(0.0, followed_per_s=10))
    burst = [each.begin(Entrance.HTTP, SECOND, ASKED) for _ in range(50)]
    assert sum(trace is not None for trace in burst) == 10
    later = [each.begin(Entrance.HTTP, SECOND + SECOND // 2, ASKED) for _ in range(50)]
    assert sum(trace is not None for trace in later) == 5


def test_beyond_the_bound_the_share_decides_within_the_callers_trace():
    trace = sampler(SamplingRule(1.0, followed_per_s=0)).begin(Entrance.HTTP, 0, ASKED)
    assert trace is not None
    assert trace.parent_id


def test_without_obedience_only_the_share_decides():
    never, always = sampler(SamplingRule(0.0, follow=False)), sampler(SamplingRule(1.0, follow=False))
    assert never.begin(Entrance.HTTP, 0, ASKED) is None
    trace = always.begin(Entrance.HTTP, 0, DECLINED)
    assert trace is not None
    assert trace.parent_id


@given(st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=300), st.integers(0, 50))
def test_however_they_come_no_more_are_followed_than_the_bound_allows(times: list[int], limit: int) -> None:
    each = sampler(SamplingRule(0.0, followed_per_s=limit))
    followed = sum(each.begin(Entrance.HTTP, at, ASKED) is not None for at in times)
    assert followed <= limit * 6


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 1.0])
def test_the_share_is_kept(ratio: float) -> None:
    each = sampler(SamplingRule(ratio))
    count = sum(each.begin(Entrance.HTTP, 0) is not None for _ in range(20_000))
    assert abs(count - 20_000 * ratio) <= 4 * (20_000 * ratio * (1 - ratio)) ** 0.5


def test_ids_are_never_zero():
    class Zeros(random.Random):
        def getrandbits(self, k: int) -> int:
            return 0

    each = RequestSampler(SamplingRule(1.0), print, dice=Zeros())
    assert all(any(made) for made in each.ids())


def test_processes_share_a_bound():
    assert SamplingRule(0.1, followed_per_s=100).shared(3) == SamplingRule(0.1, followed_per_s=34)
    assert SamplingRule(0.1, followed_per_s=0).shared(3).followed_per_s == 0
