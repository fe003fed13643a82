"""Warm-up: what a configuration asks for must run; zeros of our own may fail; nothing is allocated unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tensorquay.backends.api import GraphSignature, LoadRequest
from tensorquay.config.model import ExecutionConfig, InstanceKind, WarmupData, WarmupInput, WarmupSample
from tensorquay.config.rules import MAX_WARMUP_RUNS
from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import ModelFailed
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.lifecycle.warmup import INLINE_BELOW_NS, WarmupReport, warm_up
from tensorquay.testing.fake_backend import FakeBackend
from tensorquay.testing.manual_clock import ManualClock

FP32 = DataType.FP32


class Bench:
    """One fake session whose runs take as long as a test says, on a manual clock."""

    def __init__(self, tmp_path: Path, datatype: DataType = FP32, shape: tuple[int, ...] = (-1, 2)) -> None:
        self.clock = ManualClock()
        self.folder = tmp_path
        self.cost: Callable[[Array], int] = lambda array: 1_000
        self.datatype = datatype
        spec = TensorSpec("x", datatype, shape)
        out = TensorSpec("y", datatype, shape)
        self.signature = Signature("m", (spec,), (out,), 4 if len(shape) > 1 else 0)
        self.backend = FakeBackend(GraphSignature((spec,), (out,)), self.compute)
        model = tmp_path / "model.onnx"
        model.write_text("")
        self.session = self.backend.load(LoadRequest(model, ExecutionConfig(), InstanceKind.CPU, 0, 1))

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.clock.advance(self.cost(inputs["x"]))
        return {"y": inputs["x"]}

    def run(self, *samples: WarmupSample) -> WarmupReport:
        return warm_up([self.session], self.signature, samples, self.folder, self.clock)

    def sample(self, data: WarmupData = WarmupData.ZERO, *, rows: int = 2, count: int = 0, **extra) -> WarmupSample:
        given = {"datatype": self.datatype, "dims": (2,), "data": data} | extra
        return WarmupSample("w", rows, {"x": WarmupInput(**given)}, count)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_by_default_one_row_and_the_largest_batch_are_run(bench):
    report = bench.run()
    assert set(bench.backend.rows()) == {1, 4}
    assert report.cheap
    assert report.run_ns == 1_000


@pytest.mark.parametrize(("cost", "cheap"), [(INLINE_BELOW_NS - 1, True), (INLINE_BELOW_NS, False)])
def test_cheap_is_measured_at_the_largest_batch(bench, cost, cheap):
    bench.cost = lambda array: cost if array.shape[0] == 4 else 1
    report = bench.run()
    assert report.run_ns == cost
    assert report.cheap is cheap


def test_a_model_that_is_cheap_only_for_short_inputs_is_not_cheap(tmp_path):
    bench = Bench(tmp_path, shape=(-1, -1))
    bench.cost = lambda array: 1_000 * array.shape[1] ** 2
    report = bench.run()
    assert report.run_ns == 1_000
    assert not report.cheap


def test_zeros_that_do_not_suit_the_model_are_noted_and_no_failure(bench):
    bench.backend.fail_run = lambda inputs: ModelFailed("index 0 is out of range")
    report = bench.run()
    assert not report.cheap
    assert "index 0 is out of range" in report.notes[0]


def test_an_output_that_loses_the_batch_is_noted(bench):
    bench.backend.compute = lambda inputs: {"y": inputs["x"].sum(axis=0)}
    assert "does not keep the batch" in bench.run().notes[0]


def test_a_configured_sample_runs_as_often_as_it_says_before_anything_else(bench):
    bench.run(bench.sample(rows=3, count=5))
    assert bench.backend.rows()[:5] == [3] * 5
    assert bench.backend.rows()[5] != 3


def test_a_configured_sample_that_fails_fails_the_load(bench):
    bench.backend.fail_run = lambda inputs: ModelFailed("boom")
    with pytest.raises(ModelFailed, match="model_warmup 'w' failed: boom"):
        bench.run(bench.sample())


def test_random_data_is_the_same_at_every_load(bench):
    bench.run(bench.sample(WarmupData.RANDOM))
    bench.run(bench.sample(WarmupData.RANDOM))
    (
        first,
        *_,
    ) = bench.backend.batches
    again = bench.backend.batches[len(bench.backend.batches) // 2]
    assert first["x"].tolist() == again["x"].tolist()
    assert len(set(first["x"].ravel().tolist())) == 4


@pytest.mark.parametrize("datatype", list(DataType))
@pytest.mark.parametrize("data", [WarmupData.ZERO, WarmupData.RANDOM])
def test_every_data_type_can_be_made(tmp_path, datatype, data):
    bench = Bench(tmp_path, datatype)
    bench.run(bench.sample(data))
    array = bench.backend.batches[0]["x"]
    assert array.dtype == datatype.numpy
    assert array.shape == (2, 2)
    if datatype is DataType.BYTES:
        assert all(isinstance(item, bytes) for item in array.flat)


def test_a_file_holds_one_element_for_the_whole_batch(bench):
    (bench.folder / "warmup").mkdir()
    (bench.folder / "warmup/data").write_bytes(np.array([1, 2], np.float32).tobytes())
    bench.run(bench.sample(WarmupData.FILE, file="data"))
    assert bench.backend.batches[0]["x"].tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("data", b"123", "expecting 8 bytes"),
        ("missing", None, "does not exist"),
        ("../secret", b"12345678", "not the name of a file"),
        ("", None, "not the name of a file"),
    ],
)
def test_a_bad_file_fails_the_load_with_its_name(bench, file, content, text):
    (bench.folder / "warmup").mkdir()
    if content is not None:
        (bench.folder / "warmup" / file).write_bytes(content)
    with pytest.raises(ModelFailed, match=text) as caught:
        bench.run(bench.sample(WarmupData.FILE, file=file))
    assert str(bench.folder) not in caught.value.message


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"dims": (2**40,)}, "larger than a warm-up may be"),
        ({"dims": (2**60, 2**60)}, "more than"),
        ({"dims": (-1,)}, "negative dimension"),
        ({"rows": 5}, "expected 1 to 4"),
        ({"rows": 0}, "expected 1 to 4"),
        ({"dims": (3,)}, "unexpected shape"),
        ({"datatype": DataType.INT8}, "data-type"),
        ({"count": MAX_WARMUP_RUNS + 1}, "expected at most"),
    ],
)
def test_samples_that_do_not_fit_or_are_huge_are_refused_before_anything_is_made(bench, extra, text):
    with pytest.raises(ModelFailed, match=text):
        bench.run(bench.sample(**extra))
    assert bench.backend.batches == []


def test_a_huge_default_batch_is_cut(tmp_path):
    bench = Bench(tmp_path, shape=(-1, 1 << 20))
    object.__setattr__(bench.signature, "max_batch_size", 1 << 20)
    report = bench.run()
    assert max(bench.backend.rows()) == 16
    assert "warmed up to batch 16 only" in report.notes[0]
