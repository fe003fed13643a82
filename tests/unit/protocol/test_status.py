"""The table of statuses is total, and an error body can always be written."""

import json

import pytest

from tensorquay.core.errors import ErrorKind, InvalidArgument, Overloaded, ServingError
from tensorquay.protocol.status import error_body, grpc_code, grpc_message, http_status, retry_after

EXPECTED = {
    "INVALID_ARGUMENT": (400, 3),
    "NOT_FOUND": (404, 5),
    "UNAVAILABLE": (503, 14),
    "RESOURCE_EXHAUSTED": (429, 8),
    "DEADLINE_EXCEEDED": (504, 4),
    "ALREADY_EXISTS": (400, 6),
    "UNIMPLEMENTED": (501, 12),
    "PERMISSION_DENIED": (403, 7),
    "INTERNAL": (500, 13),
    "CANCELLED": (400, 1),
}


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.name)
def test_every_kind_has_the_status_the_protocol_gives_it(kind):
    assert (http_status(kind), grpc_code(kind)) == EXPECTED[kind.name]


def test_numbers_are_those_of_the_grpc_library():
    grpc = pytest.importorskip("grpc")
    for kind in ErrorKind:
        assert getattr(grpc.StatusCode, kind.name).value[0] == grpc_code(kind)


def test_error_body_holds_text_kind_and_facts():
    exc = InvalidArgument("input 'x': wrong", facts={"input": "x", "expected": [1, 2], "got": [3]})
    assert json.loads(error_body(exc)) == {
        "error": "input 'x': wrong",
        "code": "INVALID_ARGUMENT",
        "input": "x",
        "expected": [1, 2],
        "got": [3],
    }


def test_facts_cannot_replace_the_text():
    body = json.loads(error_body(InvalidArgument("real", facts={"error": "fake", "code": "OK"})))
    assert body == {"error": "real", "code": "INVALID_ARGUMENT"}


@pytest.mark.parametrize(
    "fact",
    [2**70, {1, 2}, object(), b"\xff", "\ud800", float("inf"), {"deep": {3: 2**70}}],
    ids=lambda fact: type(fact).__name__,
)
def test_any_fact_and_any_text_can_be_written(fact):
    body = json.loads(error_body(ServingError("bad \udcff name", facts={"got": fact})))
    assert body["error"].startswith("bad ")
    assert "got" in body
    json.dumps(body).encode()


def test_grpc_text_is_always_unicode():
    assert grpc_message(ServingError("a\udcffb")) == "a?b"


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(None, None), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (float("inf"), None), (float("nan"), None)],
)
def test_retry_after_is_whole_seconds_and_never_zero(seconds, header):
    assert retry_after(Overloaded("full", retry_after_s=seconds)) == header
