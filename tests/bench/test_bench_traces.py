"""What the benchmark of spans makes of its figures, and the requests it sends."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
from tests.bench import trace_cost

from tensorquay.core.trace_context import parse, split_head


@dataclass
class Costs:
    """A bench whose loads cost what they are told to."""

    us_of: dict[str, float]

    def us(self, load: str, _requests: int) -> float:
        return self.us_of[load]


def test_a_callers_span_is_compared_with_the_same_servers_plain_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs({trace_cost.HTTP: 20.0, trace_cost.CALLERS: 22.0})
    monkeypatch.setattr(trace_cost, "_running", lambda _folder: nullcontext(costs))
    line = trace_cost.callers(3, 1)
    assert line.endswith("nothing traced: 1.100 (1.100 to 1.100), 20.0 us of CPU per request without")


def test_every_request_has_a_caller_of_its_own():
    request = b"POST / HTTP/1.1\r\nhost: h\r\n\r\nbody"
    callers = set()
    for number in range(5):
        head, _, body = trace_cost._with_caller(request, number).partition(b"\r\n\r\n")
        found = split_head(head + b"\r\n\r\n")
        assert found is not None
        rest, context = found
        assert rest + body == request
        caller = parse(context)
        assert caller is not None
        assert not caller.sampled
        callers.add(caller.trace_id)
    assert len(callers) == 5


def test_without_a_generator_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert trace_cost.main([]) == 1
    assert "apt-get install" in capsys.readouterr().err
