"""Right inference requests and their answers (protocol sections 1.2 to 1.8)."""

from __future__ import annotations

import math

from cases import BYTES, NOT_JSON, Case
from wire import Call, Given, given

INF, NAN = math.inf, math.nan

_VALUES = {
    "BOOL": [[True, False, True]],
    "UINT8": [[0, 1, 255]],
    "UINT16": [[0, 1, 65535]],
    "UINT32": [[0, 1, 2**32 - 1]],
    "UINT64": [[0, 1, 2**64 - 1]],
    "INT8": [[-128, 0, 127]],
    "INT16": [[-(2**15), 0, 2**15 - 1]],
    "INT32": [[-(2**31), 0, 2**31 - 1]],
    "INT64": [[-(2**63), 0, 2**63 - 1]],
    "FP16": [[0.5, -65504.0, 6e-8]],
    "BF16": [[0x3F80, 0xFF7F, 0x0001]],
    "FP32": [[0.1, -3.4028234663852886e38, 1e-45]],
    "FP64": [[0.1, -1.7976931348623157e308, 5e-324]],
    "BYTES": [[b"", b"text", "é漢".encode()]],
}
_NO_JSON = {"FP16", "BF16"}


def _echo(section: str, title: str, x: Given, *, model: str = "", y: Given | None = None, **more: object) -> Case:
    model = model or f"t_{x.datatype.lower()}"
    back = y or Given("y", x.datatype, x.shape, x.flat)
    return Case(section, title, Call(model, (x,)), (back,), **more)  # type: ignore[arg-type]


def _sum(model: str, rows: int, width: int, section: str, title: str) -> Case:
    a = [[row * width + column for column in range(width)] for row in range(rows)]
    b = [[1000 * row + column for column in range(width)] for row in range(rows)]
    total = [[x + y for x, y in zip(left, right, strict=True)] for left, right in zip(a, b, strict=True)]
    apart = [[x - y for x, y in zip(left, right, strict=True)] for left, right in zip(a, b, strict=True)]
    return Case(
        section,
        title,
        Call(model, (given("INPUT0", "INT32", a), given("INPUT1", "INT32", b))),
        (given("OUTPUT0", "INT32", total), given("OUTPUT1", "INT32", apart)),
    )


DATATYPES = [
    _echo("1.2", f"{wire} round trip", given("x", wire, values), **({"doors": BYTES} if wire in _NO_JSON else {}))
    for wire, values in _VALUES.items()
]
SHAPES = [
    *[
        _echo(
            "1.2",
            f"{wire} without elements",
            given("x", wire, [], shape),
            **({"doors": BYTES} if wire in _NO_JSON else {}),
        )
        for wire in ("BOOL", "INT8", "FP16", "FP32", "FP64", "BYTES")
        for shape in [(2, 0)]
    ],
    _echo("1.2", "NaN and infinities as bytes", given("x", "FP32", [[NAN, INF, -INF, -0.0]]), doors=NOT_JSON),
    _echo("1.2", "NaN and infinities in FP64", given("x", "FP64", [[NAN, INF, -INF, -0.0]]), doors=NOT_JSON),
    _echo("1.2", "BYTES that are not UTF-8", given("x", "BYTES", [[b"\xff\xfe", b"\x80"]]), doors=NOT_JSON),
    _echo("1.2", "BYTES with NULs", given("x", "BYTES", [[b"a\x00b", b"\x00", b"end\x00"]])),
    _echo("1.2", "BYTES of 100 kB", given("x", "BYTES", [[b"x" * 100_000, b""]])),
    _echo("1.2", "negative zero", given("x", "FP32", [[-0.0, 0.0]])),
    _echo("1.4", "a scalar", given("x", "FP32", 1.5), model="scalar"),
    _echo("1.4", "two variable axes", given("x", "FP32", [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]), model="grid"),
    _echo("1.4", "a variable axis of zero", given("x", "FP32", [], (2, 0, 3)), model="grid"),
    _echo("1.4", "a model that does not batch", given("x", "FP32", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), model="pair"),
    Case(
        "1.3",
        "reshape in the configuration",
        Call("folded", (given("x", "FP32", [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]),)),
        (given("y", "FP32", [[[2.0, 4.0], [6.0, 8.0], [10.0, 12.0]]]),),
    ),
    Case(
        "1.4",
        "an optional input left out",
        Call("optional", (given("x", "FP32", [1.0, 2.0]),)),
        (given("y", "FP32", [2.0, 3.0]),),
    ),
    Case(
        "1.4",
        "an optional input given",
        Call("optional", (given("w", "FP32", [10.0]), given("x", "FP32", [1.0, 2.0]))),
        (given("y", "FP32", [11.0, 12.0]),),
    ),
    Case(
        "1.2",
        "an infinite result as bytes",
        Call("double", (given("x", "FP32", [[3e38, 0.0, 1.0, -3e38]]),)),
        (given("y", "FP32", [[INF, 0.0, 2.0, -INF]]),),
        doors=NOT_JSON,
    ),
]
BATCHES = [
    *[_sum("strict", rows, 4, "1.4", f"a batch of {rows}") for rows in range(1, 9)],
    *[_sum("split", rows, 4, "1.4", f"{rows} rows where 4 are the maximum") for rows in (5, 8, 11)],
]
OUTPUTS = [
    Case(
        "1.4",
        "one output asked for",
        Call("two_outputs", (given("x", "FP32", [1.0]),), outputs=(("y", {}),)),
        (given("y", "FP32", [2.0]),),
    ),
    Case(
        "1.4",
        "outputs in the order asked for",
        Call("two_outputs", (given("x", "FP32", [1.0]),), outputs=(("y", {}), ("x", {}))),
        (given("y", "FP32", [2.0]), given("x", "FP32", [1.0])),
    ),
    Case(
        "1.4",
        "all outputs in the order of the model",
        Call("two_outputs", (given("x", "FP32", [1.0]),)),
        (given("x", "FP32", [1.0]), given("y", "FP32", [2.0])),
    ),
    *[
        Case(
            "1.4",
            f"the id {title} comes back",
            Call("double", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),), id=request_id),
            (given("y", "FP32", [[2.0, 4.0, 6.0, 8.0]]),),
        )
        for title, request_id in (("plain", "42"), ("of other alphabets", "é漢🙂"), ("with quotes", 'a"b\\c\n'))
    ],
    Case(
        "1.4",
        "parameters of the model's own",
        Call(
            "double",
            (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),),
            parameters={"text": "t", "number": 7, "share": 0.5, "flag": True, "sequence_id": 5, "sequence_start": True},
        ),
        (given("y", "FP32", [[2.0, 4.0, 6.0, 8.0]]),),
    ),
    *[
        Case(
            "1.4",
            f"version {version}",
            Call("versions", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),), version),
            (given("y", "FP32", [[factor, 2 * factor, 3 * factor, 4 * factor]]),),
            version=served,
        )
        for version, served, factor in (("1", "1", 2.0), ("3", "3", 3.0), ("", "3", 3.0))
    ],
    Case(
        "7",
        "a name that has to be percent-encoded",
        Call("odd name é%", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),)),
        (given("y", "FP32", [[2.0, 4.0, 6.0, 8.0]]),),
    ),
]
_ROWS = [[0.5, 4.0, -1.0, 2.25], [3.0, 3.0, 9.0, 0.0]]
CLASSES = [
    Case(
        "1.6",
        "the best two of each row with labels",
        Call("top", (given("x", "FP32", _ROWS),), outputs=(("y", {"classification": 2}),)),
        (given("y", "BYTES", [[b"4.000000:1:bee", b"2.250000:3:dog"], [b"9.000000:2:cat", b"3.000000:0:ant"]]),),
    ),
    Case(
        "1.6",
        "more than there are means all",
        Call("top", (given("x", "FP32", _ROWS[:1]),), outputs=(("y", {"classification": 9}),)),
        (
            given(
                "y",
                "BYTES",
                [[b"4.000000:1:bee", b"2.250000:3:dog", b"0.500000:0:ant", b"-1.000000:2:cat"]],
            ),
        ),
    ),
    Case(
        "1.6",
        "without a batch and with fewer labels than classes",
        Call("top_flat", (given("x", "FP32", [0.0, 1.0, 3.0, 2.0]),), outputs=(("y", {"classification": 3}),)),
        (given("y", "BYTES", [b"3.000000:2", b"2.000000:3", b"1.000000:1:bee"]),),
    ),
    Case(
        "1.6",
        "integers and no labels",
        Call("top_int", (given("x", "INT32", [[5, -7, 11, 0]]),), outputs=(("y", {"classification": 2}),)),
        (given("y", "BYTES", [[b"11:2", b"5:0"]]),),
    ),
]
SCHEDULE = [
    *[
        Case(
            "1.8",
            f"priority {priority}",
            Call("ranked", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),), parameters={"priority": priority}),
            (given("y", "FP32", [[1.0, 2.0, 3.0, 4.0]]),),
        )
        for priority in (0, 1, 2)
    ],
    Case(
        "1.8",
        "a priority where the model has no levels",
        Call("double", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),), parameters={"priority": 7}),
        (given("y", "FP32", [[2.0, 4.0, 6.0, 8.0]]),),
    ),
    Case(
        "1.8",
        "a timeout that is not reached",
        Call("double", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),), parameters={"timeout": 60_000_000}),
        (given("y", "FP32", [[2.0, 4.0, 6.0, 8.0]]),),
    ),
]

ANSWERS = [*DATATYPES, *SHAPES, *BATCHES, *OUTPUTS, *CLASSES, *SCHEDULE]
