"""What the benchmark of spans makes of its figures, and the requests it sends."""

from __future__ import annotations

import pytest
from tests.bench import trace_cost
from tests.bench.trace_cost import CASES, report

from tensorquay.core.trace_context import parse, split_head


def test_each_round_is_compared_with_its_own_plain_one():
    plain, traced = CASES[0], CASES[1]
    lines = report({plain: [10.0, 20.0, 30.0], traced: [11.0, 21.0, 33.0]}).splitlines()
    assert lines[0] == f"{plain.name}: 20.0 us of CPU per request"
    assert lines[1] == f"{traced.name}: 21.0 us of CPU per request  x 1.100 (1.050 to 1.100)"


def test_http_and_grpc_are_not_compared_with_each_other():
    http, grpc = CASES[0], next(case for case in CASES if case.load == "grpc")
    assert " x " not in report({http: [10.0], grpc: [5.0]})


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
