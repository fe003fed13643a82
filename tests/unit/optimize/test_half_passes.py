"""float16 and bfloat16: what is converted, what is kept, and that the numbers are the nearest there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tests.bench.graphs import bert
from tests.support import graphs, optimizing, pass_graphs
from tests.support.pass_graphs import weight

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.optimize.passes import bfloat, casts, registry, schemas
from tensorquay_convert.optimize.passes import graphs as pass_ends
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.optimize.variants import Step
from tensorquay_convert.proof.inputs import to_dtype
from tensorquay_convert.proof.runtime import Runtime

DIGITS = Path(__file__).parents[3] / "model_repo" / "digits" / "2" / "model.onnx"
FLOATS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}

Apply = Callable[..., tuple[PassReport, Path]]


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    """Applies a pass to a model or a file: the report, and the file written."""

    def run(name: str, source: Any, **parameters: Any) -> tuple[PassReport, Path]:
        path = source if isinstance(source, Path) else pass_graphs.write(source, tmp_path / "in")
        samples = optimizing.samples_folder(tmp_path, {"unused": np.zeros((2, 1), np.float32)})
        target = tmp_path / "out.onnx"
        bench = optimizing.bench(tmp_path, path, samples)
        return registry.make(Step(name, parameters)).apply(path, target, bench), target

    return run


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is not loaded: the runtime has next to no code for bfloat16 on a CPU."""
    monkeypatch.setattr(pass_ends, "try_out", lambda path, settings: None)


def stored(path: Path) -> dict[str, int]:
    return {each.name: each.data_type for each in onnx.load(path).graph.initializer}


# -- float16


def test_weights_are_halved_and_answers_stay(apply: Apply) -> None:
    report, target = apply("float16", DIGITS)
    kinds = list(stored(target).values())
    assert report.changed
    assert report.summary.startswith(
        f"{kinds.count(TensorProto.FLOAT16)} weights and {report.quantized} nodes in float16"
    )
    assert TensorProto.FLOAT not in kinds
    assert target.stat().st_size < 0.6 * DIGITS.stat().st_size
    images = {"image": np.random.default_rng(1).uniform(0, 16, (16, 1, 8, 8)).astype(np.float32)}
    wanted, got = Runtime(DIGITS).run(images), Runtime(target).run(images)
    np.testing.assert_allclose(got["probabilities"], wanted["probabilities"], atol=5e-3)
    assert (got["digit"] == wanted["digit"]).mean() > 0.9


@pytest.mark.parametrize("name", FLOATS)
def test_what_is_to_be_kept_stays_in_fp32(name: str, apply: Apply, untried: None) -> None:
    report, target = apply(name, pass_graphs.layers(), keep=["first", "Relu", "Gemm"])
    assert report.kept == ("MatMul 'first'", "Relu 'relu'")
    assert report.notes == ("nothing in the model is called 'Gemm'",)
    assert report.name == f"{name}, first, Relu, Gemm kept"
    kinds = stored(target)
    assert kinds == {"w0": TensorProto.FLOAT, "b0": FLOATS[name], "b1": FLOATS[name], "w1": FLOATS[name]}


def test_nodes_without_a_name_can_be_kept_by_operator(apply: Apply) -> None:
    proto = pass_graphs.layers()
    for node in proto.graph.node:
        node.name = ""
    report, target = apply("float16", proto, keep=["MatMul"])
    assert len(report.kept) == 2
    assert stored(target)["w0"] == stored(target)["w1"] == TensorProto.FLOAT


def test_numbers_beyond_float16_are_counted(apply: Apply) -> None:
    proto = pass_graphs.layers()
    large = np.array([1e5, -1e9, np.inf, *[1.0] * 13], np.float32)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(large, "b0"))
    report, target = apply("float16", proto)
    assert report.notes == ("numbers beyond float16's range (±65504) that were cut to it: 2",)
    values = {each.name: numpy_helper.to_array(each) for each in onnx.load(target).graph.initializer}
    assert values["b0"][:3].tolist() == [65504, -65504, np.inf]


@pytest.mark.parametrize("name", FLOATS)
def test_a_model_that_has_16_bits_already_is_left_alone(name: str, apply: Apply) -> None:
    proto = graphs.identity("FP16")
    report, _ = apply(name, proto)
    assert not report.changed
    assert report.summary == "the model has 16-bit numbers already"


def test_casts_are_there_once_and_none_goes_down_and_up_again(apply: Apply) -> None:
    _, target = apply("float16", pass_graphs.kept_twice())
    model = onnx.load(target)
    checker.check_model(model, full_check=True)
    made = {name: node for node in model.graph.node for name in node.output}
    ups = [node for node in model.graph.node if node.op_type == "Cast" and casts._to(node) == TensorProto.FLOAT]
    assert len({node.input[0] for node in ups}) == len(ups)
    assert not [node for node in ups if node.input[0] in made and made[node.input[0]].op_type == "Cast"]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    "graph", ["if", "loop", "scan", "function", "resize", "a value read twice in FP32", "opset 21"]
)
def test_what_is_written_is_valid(name: str, graph: str, apply: Apply, untried: None) -> None:
    report, target = apply(name, pass_graphs.AWKWARD[graph]())
    assert report.changed
    checker.check_model(onnx.load(target), full_check=True)


# -- bfloat16


def test_bfloat16_is_refused_where_the_runtime_has_no_code(apply: Apply) -> None:
    with pytest.raises(Unsupported) as refused:
        apply("bfloat16", pass_graphs.layers())
    assert "has no code for" in refused.value.sentence
    assert "on provider cpu (node '" in refused.value.sentence


def test_bfloat16_needs_an_operator_set_that_has_it(apply: Apply) -> None:
    with pytest.raises(Unsupported, match="bfloat16 needs operator set 13, the model has 11; import"):
        apply("bfloat16", pass_graphs.layers(11))


def test_bfloat16_takes_its_numbers_from_the_original(apply: Apply, untried: None) -> None:
    """float16 would have cut the large ones and lost the small ones."""
    proto = pass_graphs.layers()
    odd = np.array([3e38, -1e20, 1e-30, 1.00390625, 1.01171875, np.inf, *[0.1] * 10], np.float32)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(odd, "b0"))
    _, target = apply("bfloat16", proto)
    model = onnx.load(target)
    assert TensorProto.FLOAT16 not in stored(target).values()
    assert {casts._to(node) for node in model.graph.node if node.op_type == "Cast"} == {
        TensorProto.BFLOAT16,
        TensorProto.FLOAT,
    }
    got = next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == "b0")
    assert got.astype(np.float32).tolist() == odd.astype(ml_dtypes.bfloat16).astype(np.float32).tolist()
    # Halfway between two neighbours, the even one: down for the first, up for the second.
    assert got[3:5].astype(np.float64).tolist() == [1.0, 1.015625]


@given(arrays.arrays(np.float32, (5,), elements=st.floats(width=32, allow_nan=False)))
def test_bfloat16_is_rounded_to_nearest_even(values: np.ndarray) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT16)
    bfloat.set_bfloat16(tensor, numpy_helper.from_array(values, "w"))
    assert (tensor.name, list(tensor.dims)) == ("w", [5])
    assert np.frombuffer(tensor.raw_data, "<u2").tolist() == to_dtype(values, "bfloat16").tolist()


def test_bfloat16_computes_what_fp32_does_to_its_precision(apply: Apply, untried: None) -> None:
    """By onnx's own evaluator, which has every operator in bfloat16."""
    proto = pass_graphs.layers()
    report, target = apply("bfloat16", proto)
    assert report.quantized == 7
    fed = {"x": np.random.default_rng(3).standard_normal((5, 8), np.float32)}
    (wanted,), (got,) = ReferenceEvaluator(proto).run(None, fed), ReferenceEvaluator(onnx.load(target)).run(None, fed)
    assert got.dtype == np.float32
    # 8 bits of precision: two layers of sums are right to about a hundredth of their largest entries.
    np.testing.assert_allclose(got, wanted, atol=0.03 * np.abs(wanted).max())
    assert not np.allclose(got, wanted, atol=1e-5)


def test_bfloat16_runs_where_the_runtime_has_code(apply: Apply) -> None:
    """A normalisation with what moves values around it, all of which a CPU has in bfloat16."""
    proto = graphs.model(
        [
            helper.make_node("Gather", ["table", "index"], ["g"], "lookup"),
            helper.make_node("LayerNormalization", ["g", "gain", "shift"], ["n"], "normalise", axis=-1),
            helper.make_node("Transpose", ["n"], ["y"], "turn", perm=[1, 0]),
        ],
        [graphs.value("index", "INT64", ["n"])],
        [graphs.value("y", "FP32", [16, "n"])],
        [weight("table", 10, 16, scale=2.0), weight("gain", 16, seed=1), weight("shift", 16, seed=2)],
    )
    fed = {"index": np.array([3, 0, 9], np.int64)}
    wanted = Runtime(proto).run(fed)["y"]
    report, target = apply("bfloat16", proto)
    assert report.summary == "3 weights and 3 nodes in bfloat16, 0 nodes kept in FP32"
    got = Runtime(target).run(fed)["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=0.03)
    assert np.array_equal(got, got.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_bfloat16_keeps_what_has_no_bfloat16_form(apply: Apply, untried: None) -> None:
    """Convolutions have one from operator set 22 on."""
    report, target = apply("bfloat16", DIGITS)
    kinds = {each.op_type for each in onnx.load(target).graph.node}
    assert "Conv" in kinds
    assert [each for each in report.kept if each.startswith("Conv")]
    checker.check_model(onnx.load(target), full_check=True)


def test_which_operators_have_a_form_in_a_type() -> None:
    def lacking(proto: Any, kind: str) -> frozenset[str]:
        return schemas.lacking(proto, f"tensor({kind})")

    assert lacking(pass_graphs.resized(), "bfloat16") == {"Conv"}
    assert lacking(pass_graphs.resized(), "float16") == frozenset()
    own = graphs.model(
        [
            helper.make_node("BiasGelu", ["x", "x"], ["y"], domain="com.microsoft"),
            helper.make_node("Invented", ["y"], ["z"], domain="com.microsoft"),
            helper.make_node("LinearRegressor", ["z"], ["u"], domain="ai.onnx.ml"),
            helper.make_node("Shape", ["u"], ["s"]),
        ],
        [graphs.value("x", "FP32", [4])],
        [graphs.value("s", "INT64", [1])],
    )
    assert lacking(own, "float16") == {"com.microsoft.Invented", "ai.onnx.ml.LinearRegressor"}


# -- order and names


def test_nodes_are_put_behind_what_they_read_graphs_inside_included() -> None:
    proto = pass_graphs.branch()
    nodes = list(proto.graph.node)
    placed = [node.name for node in casts.in_order(reversed(nodes))]
    assert sorted(placed) == sorted(node.name for node in nodes)
    assert placed.index("product") < placed.index("if") < placed.index("tanh")


def test_what_a_node_reads_is_renamed_inside_it_as_well() -> None:
    node = next(each for each in pass_graphs.branch().graph.node if each.op_type == "If")
    assert casts.reads(node) == {"up", "m", "w"}
    casts.rename(node, {"m": "other", "up": "down"})
    assert casts.reads(node) == {"down", "other", "w"}


def test_a_fused_transformer_goes_to_float16(apply: Apply, tmp_path: Path) -> None:
    proto = bert(1, 32, 2, 100)
    source = pass_graphs.write(proto, tmp_path / "in")
    fed = pass_graphs.feeds(proto, size=5)
    samples = optimizing.samples_folder(tmp_path / "other", {"unused": np.zeros((2, 1), np.float32)})
    bench = optimizing.bench(tmp_path / "other", source, samples)
    fused = tmp_path / "fused.onnx"
    registry.make(Step("fuse transformers")).apply(source, fused, bench)
    report, target = apply("float16", fused)
    assert report.changed
    wanted, got = Runtime(source).run(fed)["y"], Runtime(target).run(fed)["y"]
    np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())
