"""What travels with a model: digests that anyone can check, numbers that are JSON, settings that come back."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_convert import provenance
from tensorquay_convert.api import Exported, SourceFacts
from tensorquay_convert.convert import batched
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob, SourceKind, Tolerance
from tensorquay_convert.proof.verification import AxisProof, Case, Comparison, Verification
from tensorquay_convert.tensors import AxisRange, Interface, TensorSpec

NAN, INF = float("nan"), float("inf")


def compared(output: str, absolute: float, **more: Any) -> Comparison:
    given = {
        "dtype": "float32", "shape": (2, 3), "max_relative": absolute, "worst_index": (0, 1), "expected_there": 1.0,
        "got_there": 1.0, "cosine": None, "top1": None, "atol": 1e-5, "rtol": 1e-4, "within": True,
    }  # fmt: skip
    return Comparison(output=output, max_absolute=absolute, **{**given, **more})


def verification(*comparisons: Comparison, problems: tuple[str, ...] = ()) -> Verification:
    case = Case("batch 1", "seeded", {"batch": 1}, comparisons)
    axis = AxisProof("batch", ("x",), (1, 2), dynamic=True)
    return Verification((case,), (axis,), problems, None, "", 0, real_inputs=False, runtime="r", seconds=0.5)


def facts(*files: Path, shape: tuple[int | str, ...] = ("batch", 4)) -> SourceFacts:
    interface = Interface(
        (TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", shape),), {"s": AxisRange(1, 9)}
    )
    return SourceFacts(SourceKind.ONNX, "shown", interface, files, {"b": "2", "a": "1"}, labels={"y": ("cat",)})


def test_the_digest_of_a_source_is_what_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    paths = [tmp_path / "b.bin", tmp_path / "deep/a.bin"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100_000)
    described = provenance.describe_source("given", "imported", facts(*paths), ["note"])
    printed = subprocess.run(
        ["sha256sum", "b.bin", "deep/a.bin"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert described["sha256"] == hashlib.sha256(printed.encode()).hexdigest()
    assert [each["path"] for each in described["files"]] == ["b.bin", "deep/a.bin"]
    assert described["notes"] == ["note"]
    assert str(tmp_path) not in json.dumps(described["files"])


def test_the_proof_in_a_few_numbers() -> None:
    worst = provenance.summary(
        verification(compared("y", 1e-6, cosine=0.5, top1=1.0), compared("y", 2e-6, cosine=0.25), compared("z", NAN))
    )
    assert (worst["passed"], worst["cases"], worst["comparisons"]) == (True, 1, 3)
    assert (worst["max_absolute"], worst["worst_output"]) == (2e-6, "y")
    first, second = worst["outputs"]
    assert (first["max_absolute"], first["min_cosine"], first["min_top1"], first["within"]) == (2e-6, 0.25, 1.0, True)
    assert (second["name"], second["max_absolute"]) == ("z", None)
    assert worst["axes"] == {"batch": [1, 2]}


@pytest.mark.parametrize("value", [NAN, INF, -INF, 0.0])
def test_it_is_json_whatever_the_numbers_are(value: float) -> None:
    told = provenance.summary(verification(compared("y", value, cosine=value), problems=("wrong",)))
    assert told["passed"] is False
    json.dumps(told, allow_nan=False)


def test_nothing_compared_is_no_number() -> None:
    told = provenance.summary(verification())
    assert (told["max_absolute"], told["outputs"]) == (None, [])


def test_machine_time_and_conversion() -> None:
    machine = provenance.describe_machine({"b": "2", "a": "1"})
    assert list(machine["packages"]) == ["a", "b"]
    assert machine["python"].count(".") == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", provenance.now())
    made = provenance.describe_conversion(Exported("e 1", 18, ("dynamo: no",), ("n",)), 20, ["m"])
    assert made == {"exporter": "e 1", "opset": 20, "attempts": ["dynamo: no"], "notes": ["n", "m"]}
    interface = provenance.describe_interface(facts())
    assert interface["labels"] == {"y": ["cat"]}
    assert interface["axes"] == {"s": {"low": 1, "high": 9, "multiple": 1}}


def test_who_must_not_be_batched_is_told() -> None:
    assert batched(facts()) is None
    assert batched(facts(shape=("seq", 4))) is False
    assert batched(facts(shape=(1, 4))) is None
    assert batched(facts(shape=())) is None


texts = st.text(max_size=8)
axes = st.integers(0, 9) | texts
jobs = st.builds(
    ImportJob,
    source=texts,
    kind=st.none() | st.sampled_from(SourceKind),
    weights=st.none() | texts,
    inputs=st.lists(st.builds(DeclaredInput, texts, texts, st.lists(axes).map(tuple))).map(tuple),
    outputs=st.lists(texts).map(tuple),
    dynamic=st.lists(st.builds(DynamicAxis, texts, st.integers(0, 9), texts)).map(tuple),
    static=st.booleans(),
    examples=st.lists(texts).map(tuple),
    opset=st.none() | st.integers(7, 30),
    tolerance=st.builds(Tolerance, st.none() | st.floats(0, 1), st.none(), st.none(), st.none()),
)


@given(jobs)
def test_a_job_comes_back_from_json_as_it_was(job: ImportJob) -> None:
    assert ImportJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_a_job_with_something_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        ImportJob.from_json({"source": "x", "colour": "red"})
