"""A conformance case: one request, and what the protocol says must come back, whatever the door."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from doors import Door
from wire import Answer, Call, Given, Refusal

ALL = ("inprocess", "http_json", "http_binary", "grpc", "grpc_typed", "grpc_stream")
WIRE = ALL[1:]
BYTES = ("inprocess", "http_binary", "grpc", "grpc_stream")
"""Doors that carry tensors as bytes: for what JSON and typed contents cannot say."""
NOT_JSON = ("inprocess", "http_binary", "grpc", "grpc_typed", "grpc_stream")


@dataclass(frozen=True)
class Case:
    """`outputs` for an answer, or `kind` and `says` (fragments of the text) for a refusal."""

    section: str
    title: str
    call: Call
    outputs: tuple[Given, ...] | None = None
    kind: str = ""
    says: Sequence[str] = ()
    doors: Sequence[str] = ALL
    version: str = "1"


def over_doors(cases: Iterable[Case]) -> Any:
    """Parametrise a test by (door, case); the ids quote the section of the protocol."""
    return pytest.mark.parametrize(
        ("door", "case"),
        [
            pytest.param(door, case, id=f"{case.section}-{case.title.replace(' ', '_')}-{door}")
            for case in cases
            for door in case.doors
        ],
        indirect=["door"],
    )


def check(door: Door, case: Case) -> None:
    """Send it, and compare everything that came back."""
    got = door.infer(case.call)
    if case.outputs is None:
        assert isinstance(got, Refusal), got
        assert got.status == door.status_of(case.kind), got.text
        for fragment in case.says:
            assert fragment in got.text
        return
    assert isinstance(got, Answer), got
    assert (got.model, got.version, got.id) == (case.call.model, case.version, case.call.id)
    assert [(t.name, t.datatype, t.shape) for t in got.outputs] == [(t.name, t.datatype, t.shape) for t in case.outputs]
    # As bytes, because NaN is not equal to itself.
    assert [t.raw() for t in got.outputs] == [t.raw() for t in case.outputs]
