"""W3C Trace Context: what is a caller's span, what is none, and what happens to a head it is taken out of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.trace_context import (
    CallerContext,
    join_repeated,
    of_headers,
    of_metadata,
    parse,
    render,
    split_head,
)
from tensorquay.transport.h1_head import HeadReader

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01".encode()


def parsed(parent: bytes, state: bytes = b"") -> CallerContext | None:
    return parse((parent, state))


def test_a_traceparent_says_trace_span_and_decision():
    assert parsed(VALID) == CallerContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), True)
    assert parsed(b" \t" + VALID[:-2] + b"00 ") == CallerContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), False)


@given(st.binary(min_size=16, max_size=16).filter(any), st.binary(min_size=8, max_size=8).filter(any))
def test_what_is_rendered_is_read_back(trace: bytes, span: bytes) -> None:
    assert parsed(render(trace, span)) == CallerContext(trace, span, True)


@given(st.integers(0, 255))
def test_of_the_flags_only_the_lowest_bit_decides(flags: int) -> None:
    caller = parsed(VALID[:-2] + b"%02x" % flags)
    assert caller is not None
    assert caller.sampled == bool(flags & 1)


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        VALID[:-1],
        VALID + b"-",
        VALID + b"-01",
        VALID.upper(),
        b"ff" + VALID[2:],
        b"0g" + VALID[2:],
        VALID.replace(TRACE.encode(), b"0" * 32),
        VALID.replace(SPAN.encode(), b"0" * 16),
        VALID.replace(b"-", b"_"),
        VALID + b"," + VALID,
        VALID + b"\n",
        b"01" + VALID[2:] + b"x",
        b"01" + VALID[2:] + b"-" + b"x" * 300,
        "00-٠af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".encode(),
    ],
)
def test_what_is_not_valid_does_not_exist(parent: bytes) -> None:
    assert parsed(parent) is None


def test_later_versions_may_say_more():
    assert parsed(b"01" + VALID[2:] + b"-what-ever") == parsed(VALID)


@given(st.binary(max_size=300), st.binary(max_size=700))
def test_nothing_a_caller_sends_is_an_error(parent: bytes, state: bytes) -> None:
    caller = parsed(parent, state)
    assert caller is None or (len(caller.trace_id), len(caller.span_id)) == (16, 8)
    assert len(parsed(VALID, state).state) <= 512  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given_state", "kept"),
    [
        (b"a=1", "a=1"),
        (b" a=1 ,, b@vendor=x y\t", "a=1,b@vendor=x y"),
        (b"1tenant@v=~!;:", "1tenant@v=~!;:"),
        (b"A=1", ""),
        (b"a=1,a=2", ""),
        (b"a", ""),
        (b"a=1=2", ""),
        (b"a=\x01", ""),
        (b"1a=x", ""),
        (b",".join(b"k%d=v" % n for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        (b",".join(b"k%d=v" % n for n in range(33)), ""),
        (b"a=" + b"x" * 600, ""),
    ],
)
def test_a_tracestate_is_kept_whole_or_not_at_all(given_state: bytes, kept: str) -> None:
    caller = parsed(VALID, given_state)
    assert caller is not None
    assert caller.state == kept


def test_headers_and_metadata_say_the_same():
    assert of_headers({b"traceparent": VALID, b"tracestate": b"a=1"}) == (VALID, b"a=1")
    assert of_headers({b"tracestate": b"a=1"}) is None
    pairs = [("x", "y"), ("tracestate", "a=1"), ("traceparent", VALID.decode()), ("tracestate", "b=2")]
    assert of_metadata(pairs) == (VALID, b"a=1,b=2")
    assert of_metadata([("tracestate", "a=1")]) is None
    assert parse(of_metadata([("traceparent", VALID.decode())] * 2) or (b"", b"")) is None
    assert of_metadata([("traceparent", "\udce9")]) is not None


def test_repeated_headers_are_joined_and_two_parents_are_none():
    headers = [(b"traceparent", VALID), (b"x", b"1"), (b"x", b"2"), (b"traceparent", VALID), (b"tracestate", b"a=1")]
    names = dict(headers)
    join_repeated(names, headers)
    assert names == {b"traceparent": VALID + b"," + VALID, b"x": b"2", b"tracestate": b"a=1"}


# -- heads of HTTP/1.1


class Handler:
    """Every path below /hot is a hot route."""

    draining = False

    def __init__(self) -> None:
        self.asked = 0

    def route(self, method: str, path: str, headers: object) -> object:
        self.asked += 1
        return self if path.startswith("/hot") else None


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def test_a_head_that_differs_in_the_callers_span_only_is_parsed_once():
    handler = Handler()
    reader = HeadReader(handler)  # type: ignore[arg-type]
    heads = set()
    for number in range(50):
        parent = f"00-{number + 1:032x}-{SPAN}-01"
        said = (f"traceparent: {parent}", f"tracestate: a={number}")
        lines = ("POST /hot HTTP/1.1", "Host: h", *said, "Content-Length: 3")
        known, context = reader.read(head(*lines))
        assert context == (parent.encode(), f"a={number}".encode())
        assert reader.find(head(*lines)) == (known, context)
        assert b"traceparent" not in dict(known.headers)
        assert known.content_length == 3
        heads.add(id(known))
    assert handler.asked == len(heads) == len(reader.known) == 1


def test_the_application_sees_every_line():
    known, context = HeadReader(Handler()).read(  # type: ignore[arg-type]
        head("GET /other HTTP/1.1", "Host: h", f"Traceparent: {VALID.decode()}")
    )
    assert context is None
    assert dict(known.headers)[b"traceparent"] == VALID


def test_where_the_line_is_forwarded_it_stays():
    reader = HeadReader(Handler(), apart=False)  # type: ignore[arg-type]
    data = head("POST /hot HTTP/1.1", "Host: h", f"traceparent: {VALID.decode()}")
    known, context = reader.read(data)
    assert context is None
    assert dict(known.headers)[b"traceparent"] == VALID
    assert reader.find(data + b"x") == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        "traceparent: nonsense",
        f"traceparent:  {VALID.decode()}",
        f"TraceParent: {VALID.decode()}",
        f"traceparent: {VALID.decode()} ",
        f"x-traceparent: {VALID.decode()}",
        f"traceparent: {VALID.decode()}\r\n continued: x",
    ],
)
def test_a_line_that_is_written_unusually_is_left_to_the_parser(line: str) -> None:
    assert split_head(head("POST /hot HTTP/1.1", "Host: h", line)) is None


@pytest.mark.parametrize(
    "states", [["tracestate: a=1", "tracestate: b=2"], ["tracestate:a=1"], ["TraceState: a=1"], ["tracestate: \xe9"]]
)
def test_a_state_that_is_written_unusually_is_left_to_the_parser(states: list[str]) -> None:
    mine = f"traceparent: {VALID.decode()}"
    assert split_head(head("POST /hot HTTP/1.1", mine, *states)) is None
    assert split_head(head("POST /hot HTTP/1.1", *states, mine)) is None


_LINE = st.from_regex(r"[a-z]{1,8}: [!-~]{0,20}", fullmatch=True)


@given(st.lists(_LINE, max_size=4), st.lists(_LINE, max_size=4), st.sampled_from(["traceparent", "Traceparent"]))
def test_taking_the_line_out_changes_nothing_else(before: list[str], after: list[str], name: str) -> None:
    request, mine = "POST /hot HTTP/1.1", f"{name}: {VALID.decode()}"
    found = split_head(head(request, *before, mine, *after))
    assert found is not None
    assert found == (head(request, *before, *after), (VALID, b""))
