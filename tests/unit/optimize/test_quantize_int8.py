"""Dynamic, static and weight-only quantization: what the reports say is in the file, and the answers stay close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, version_converter
from sklearn.datasets import load_digits
from tests.bench.graphs import bert
from tests.support.graphs import model, value, write
from tests.support.optimizing import bench, samples_folder

from tensorquay_convert.errors import CommandFailed, Unsupported
from tensorquay_convert.optimize import files
from tensorquay_convert.optimize.agreement import Agreements
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.passes import registry
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.optimize.variants import Step
from tensorquay_convert.proof.runtime import Runtime

DIGITS = Path(__file__).parents[3] / "model_repo" / "digits" / "2" / "model.onnx"
EVERY = (
    Step("dynamic int8", {"per_channel": True}),
    Step("static int8", {"method": "minmax", "per_channel": True}),
    Step("weight-only", {"bits": 8, "block_size": 32}),
    Step("mixed int8", {"base": "static int8"}),
    Step("mixed int8", {"base": "dynamic int8"}),
)
SIMILAR = GateRules(min_cosine=0.98)
DYNAMIC, STATIC = EVERY[0], EVERY[1]


def applied(step: Step, workbench: Workbench, target: Path) -> PassReport:
    report = registry.make(step).apply(workbench.baseline, target, workbench)
    assert not list(workbench.scratch.iterdir()), "temporary files are left"
    return report


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def digits_bench(tmp_path: Path, **changes: Any) -> Workbench:
    data = load_digits()
    images = data.images.astype(np.float32)[:, None]
    folder = samples_folder(tmp_path, {"image": images}, data.target, calibration=200, judging=450)
    return bench(tmp_path, DIGITS, folder, **changes)


def dense(seed: int = 0, *, opset: int = 17, wide: int = 32, gemm: bool = True) -> ModelProto:
    """x [batch, 32] → MatMul, Add, Relu → Gemm (transposed weight) → y [batch, 8]."""
    draw = np.random.default_rng(seed)
    weights = {
        "w1": draw.standard_normal((32, wide)).astype(np.float32) / 6,
        "b1": draw.standard_normal(wide).astype(np.float32),
        "w2": draw.standard_normal((8, wide)).astype(np.float32) / 6,
        "b2": draw.standard_normal(8).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
    ]
    if gemm:
        nodes.append(helper.make_node("Gemm", ["c", "w2", "b2"], ["y"], transB=1))
    else:
        nodes.append(helper.make_node("Identity", ["c"], ["y"]))
    stored = [
        numpy_helper.from_array(array, name) for name, array in weights.items() if gemm or name not in {"w2", "b2"}
    ]
    ends = [value("y", "FP32", ["batch", 8 if gemm else wide])]
    return model(nodes, [value("x", "FP32", ["batch", 32])], ends, stored, opset=opset)


def dense_bench(tmp_path: Path, proto: ModelProto | None = None, *, rows: int = 64, **changes: Any) -> Workbench:
    path = write(proto or dense(), tmp_path / "dense.onnx")
    x = np.random.default_rng(5).standard_normal((rows, 32)).astype(np.float32)
    return bench(tmp_path, path, samples_folder(tmp_path, {"x": x}), **changes)


def cosines(workbench: Workbench, path: Path) -> Mapping[str, float | None]:
    """Mean cosine of each output over the judging rows."""
    baseline, variant, found = Runtime(workbench.baseline), Runtime(path), Agreements(batched=True)
    for inputs in workbench.samples.judging(16):
        found.add(baseline.run(inputs), variant.run(inputs))
    return {each.name: each.cosine for each in found.results()}


def accuracy(workbench: Workbench, path: Path) -> float:
    runtime = Runtime(path)
    found = [runtime.run(inputs, ["digit"])["digit"] for inputs in workbench.samples.judging(64)]
    return float((np.concatenate(found) == workbench.samples.labels()).mean())


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_int8_of_digits_keeps_its_accuracy(tmp_path: Path, method: str) -> None:
    said: list[str] = []
    workbench = digits_bench(tmp_path, say=said.append)
    target = tmp_path / "out.onnx"
    report = applied(Step("static int8", {"method": method, "per_channel": True}), workbench, target)
    assert report.changed
    assert report.quantized == 4
    assert "3 Conv, 1 Gemm" in report.summary
    assert method in report.name
    found = operators(target)
    # Seen by the file itself: no product reads anything but dequantized values.
    assert found["Conv"] == 3
    assert found["Gemm"] == 1
    assert found["DequantizeLinear"] > found["QuantizeLinear"] > 0
    assert files.size(target) < files.size(DIGITS) / 3
    assert accuracy(workbench, target) >= accuracy(workbench, DIGITS) - 0.005
    assert any(each.startswith("calibrating, 3 of ") for each in said)


def test_dynamic_int8_says_what_it_quantized_and_the_file_agrees(tmp_path: Path) -> None:
    workbench = digits_bench(tmp_path)
    target = tmp_path / "out.onnx"
    report = applied(DYNAMIC, workbench, target)
    assert (report.changed, report.quantized) == (True, 4)
    assert report.summary == "quantized 3 Conv, 1 Gemm"
    found = operators(target)
    assert (found["ConvInteger"], found["MatMulInteger"], found["Conv"], found["Gemm"]) == (3, 1, 0, 0)
    assert accuracy(workbench, target) >= accuracy(workbench, DIGITS) - 0.005


def test_dynamic_int8_leaves_convolutions_alone_when_told(tmp_path: Path) -> None:
    workbench = digits_bench(tmp_path)
    report = applied(
        Step("dynamic int8", {"per_channel": False, "convolutions": False}), workbench, tmp_path / "o.onnx"
    )
    assert report.summary == "quantized 1 Gemm"
    assert operators(tmp_path / "o.onnx")["Conv"] == 3


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_in_few_bits_save_bytes(tmp_path: Path, bits: int) -> None:
    workbench = dense_bench(tmp_path, dense(wide=256))
    target = tmp_path / "out.onnx"
    report = applied(Step("weight-only", {"bits": bits, "block_size": 32}), workbench, target)
    assert report.changed
    assert report.quantized == operators(target)["MatMulNBits"] == 2
    assert f"2 MatMul in {bits} bits" in report.summary
    assert files.size(target) < files.size(workbench.baseline) * (0.5 if bits == 8 else 0.35)
    assert (cosines(workbench, target)["y"] or 0) > (0.999 if bits == 8 else 0.98)


@pytest.mark.parametrize("step", EVERY, ids=lambda step: f"{step.name} {step.parameters.get('base', '')}")
def test_the_interface_stays_and_the_same_seed_gives_the_same_bytes(tmp_path: Path, step: Step) -> None:
    workbench = dense_bench(tmp_path)
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    before = workbench.baseline.read_bytes()
    one, other = applied(step, workbench, first), applied(step, workbench, second)
    assert one.changed
    assert one == other
    assert first.read_bytes() == second.read_bytes()
    assert workbench.baseline.read_bytes() == before
    was, now = onnx.load(str(workbench.baseline)).graph, onnx.load(str(first)).graph
    assert list(was.input) == list(now.input)
    assert list(was.output) == list(now.output)
    assert Runtime(first).run({"x": np.zeros((3, 32), np.float32)})["y"].shape == (3, 8)
    assert (cosines(workbench, first)["y"] or 0) > 0.99


@pytest.mark.parametrize("step", EVERY, ids=lambda step: f"{step.name} {step.parameters.get('base', '')}")
def test_a_quantized_model_is_not_quantized_again(tmp_path: Path, step: Step) -> None:
    workbench = dense_bench(tmp_path)
    quantized = tmp_path / "quantized.onnx"
    applied(STATIC if "dynamic" in str(step) else DYNAMIC, workbench, quantized)
    with pytest.raises(Unsupported, match=r"quantized already, it has \d"):
        registry.make(step).apply(quantized, tmp_path / "again.onnx", workbench)


@pytest.mark.parametrize("step", EVERY, ids=lambda step: f"{step.name} {step.parameters.get('base', '')}")
def test_half_precision_is_refused(tmp_path: Path, step: Step) -> None:
    weight = numpy_helper.from_array(np.ones((32, 8), np.float16), "w")
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", "FP16", ["batch", 32])],
        [value("y", "FP16", ["batch", 8])],
        [weight],
    )
    workbench = dense_bench(tmp_path, proto)
    with pytest.raises(Unsupported, match="half precision, 2 float16"):
        applied(step, workbench, tmp_path / "out.onnx")


@pytest.mark.parametrize("step", EVERY, ids=lambda step: f"{step.name} {step.parameters.get('base', '')}")
def test_nothing_to_quantize_is_said_and_the_model_is_as_it_was(tmp_path: Path, step: Step) -> None:
    proto = model(
        [helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
        [value("x", "FP32", ["batch", 32])],
        [value("y", "FP32", ["batch", 32])],
    )
    workbench = dense_bench(tmp_path, proto)
    report = applied(step, workbench, tmp_path / "out.onnx")
    assert not report.changed
    assert "nothing" in report.summary
    assert (tmp_path / "out.onnx").read_bytes() == workbench.baseline.read_bytes()


@pytest.mark.parametrize("opset", [10, 12])
@pytest.mark.parametrize("step", EVERY[:3], ids=lambda step: step.name)
def test_an_old_operator_set_is_raised_where_it_must_be(tmp_path: Path, step: Step, opset: int) -> None:
    # Before 11, Gemm needs its bias and nothing else is different here.
    workbench = dense_bench(tmp_path, dense(opset=opset))
    report = applied(step, workbench, tmp_path / "out.onnx")
    assert report.changed
    if step.name != "weight-only":
        assert f"operator set raised from {opset} to 13" in report.notes


def test_an_operator_set_that_cannot_be_raised_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise RuntimeError("No Adapter From Version $16 for Identity\nat convert.h")

    monkeypatch.setattr(version_converter, "convert_version", refuses)
    with pytest.raises(Unsupported, match="needs operator set 13, the model has 11") as caught:
        applied(STATIC, dense_bench(tmp_path, dense(opset=11)), tmp_path / "out.onnx")
    assert caught.value.sentence.endswith("No Adapter From Version $16 for Identity")


def test_weights_in_constant_nodes_and_nodes_without_names_are_found(tmp_path: Path) -> None:
    proto = dense()
    for tensor in proto.graph.initializer:
        proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del proto.graph.initializer[:]
    report = applied(STATIC, dense_bench(tmp_path, proto), tmp_path / "out.onnx")
    assert report.summary == "quantized 1 Gemm, 1 MatMul"


def test_a_fused_transformer_with_several_lengths(tmp_path: Path) -> None:
    path = write(bert(layers=1, hidden=32, heads=2, vocabulary=50), tmp_path / "bert.onnx")
    draw = np.random.default_rng(1)
    names = [each.name for each in onnx.load(str(path)).graph.input]
    groups = [
        {
            name: draw.integers(0, 50, (24, length)) if "ids" in name else np.ones((24, length), np.int64)
            for name in names
        }
        for length in (8, 16)
    ]
    workbench = bench(tmp_path, path, samples_folder(tmp_path, groups))
    products = sum(
        node.op_type == "MatMul" and node.input[1].startswith("w") for node in onnx.load(str(path)).graph.node
    )
    for step in (DYNAMIC, Step("static int8", {"method": "percentile"})):
        report = applied(step, workbench, tmp_path / "out.onnx")
        assert f"{products} MatMul" in report.summary
        assert "2 MatMul stay" not in report.summary, "products of two activations are no candidates"
        assert all((each or 1) > 0.98 for each in cosines(workbench, tmp_path / "out.onnx").values())


def test_a_model_without_a_batch_axis(tmp_path: Path) -> None:
    proto = dense()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    path = write(proto, tmp_path / "fixed.onnx")
    x = np.random.default_rng(5).standard_normal((40, 2, 32)).astype(np.float32)
    workbench = bench(tmp_path, path, samples_folder(tmp_path, {"x": x}, batched=False))
    for step in EVERY:
        assert applied(step, workbench, tmp_path / "out.onnx").changed


def test_weights_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "beside" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(
        dense(wide=512), str(path), save_as_external_data=True, location="weights.bin", size_threshold=64
    )  # fmt: skip
    x = np.random.default_rng(5).standard_normal((64, 32)).astype(np.float32)
    workbench = bench(tmp_path, path, samples_folder(tmp_path, {"x": x}), rules=SIMILAR)
    for step in EVERY:
        report = applied(step, workbench, tmp_path / "out.onnx")
        assert report.changed
        assert files.size(tmp_path / "out.onnx") < files.size(path) * 0.5


def test_weights_keep_to_seven_bits_without_a_dot_product(tmp_path: Path) -> None:
    largest = {}
    for features in ((), ("avx2", "avx512_vnni")):
        workbench = dense_bench(tmp_path / str(len(features)), features=features)
        applied(STATIC, workbench, tmp_path / "out.onnx")
        stored = onnx.load(str(tmp_path / "out.onnx")).graph.initializer
        eights = [numpy_helper.to_array(each) for each in stored if each.data_type == TensorProto.INT8 and each.dims]
        largest[features] = max(int(np.abs(each.astype(int)).max()) for each in eights)
    assert list(largest.values()) == [64, 127] or list(largest.values()) == [63, 127]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dynamic int8", {"perchannel": True}),
        ("dynamic int8", {"per_channel": 1}),
        ("dynamic int8", {"operators": ["Softmax"]}),
        ("static int8", {"method": "average"}),
        ("static int8", {"operators": ["Add"]}),
        ("weight-only", {"bits": 3}),
        ("weight-only", {"bits": True}),
        ("mixed int8", {}),
        ("mixed int8", {"base": "weight-only"}),
        ("mixed int8", {"base": "static int8", "bits": 8}),
    ],
)
def test_parameters_that_nobody_knows_are_refused(name: str, parameters: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"parameter|operator"):
        registry.make(Step(name, parameters))


def test_what_fails_leaves_no_files_and_no_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workbench = dense_bench(tmp_path, rows=6)
    with pytest.raises(CommandFailed):
        registry.make(STATIC).apply(workbench.baseline, tmp_path / "out.onnx", workbench)
    assert not list(workbench.scratch.iterdir())
    assert not (tmp_path / "out.onnx").exists()
    applied(DYNAMIC, workbench, tmp_path / "out.onnx")
    assert capfd.readouterr() == ("", "")


def test_weights_that_the_graph_puts_together_are_computed_once(tmp_path: Path) -> None:
    """Halves joined, then turned, as fusions and exporters leave them."""
    proto = dense(gemm=False)
    whole = numpy_helper.to_array(next(each for each in proto.graph.initializer if each.name == "w1"))
    kept = [each for each in proto.graph.initializer if each.name != "w1"]
    del proto.graph.initializer[:]
    halves = [
        numpy_helper.from_array(np.ascontiguousarray(part), f"half{n}")
        for n, part in enumerate((whole.T[:16], whole.T[16:]))
    ]
    proto.graph.initializer.extend([*kept, *halves])
    proto.graph.node.insert(0, helper.make_node("Transpose", ["joined"], ["w1"], perm=[1, 0]))
    proto.graph.node.insert(0, helper.make_node("Concat", ["half0", "half1"], ["joined"], axis=0))
    workbench = dense_bench(tmp_path, proto)
    report = applied(STATIC, workbench, tmp_path / "out.onnx")
    assert report.summary == "quantized 1 MatMul"
    assert report.notes == ("2 nodes that put weights together were computed once",)
    assert not operators(tmp_path / "out.onnx").keys() & {"Concat", "Transpose"}
    assert (cosines(workbench, tmp_path / "out.onnx")["y"] or 0) > 0.99


def test_an_attention_with_a_bias_stays_as_the_library_would_drop_the_bias(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    weight = numpy_helper.from_array(draw.standard_normal((32, 96)).astype(np.float32) / 6, "qkv")
    shift = numpy_helper.from_array(np.zeros(96, np.float32), "shift")
    bias = numpy_helper.from_array(np.triu(np.full((1, 1, 4, 4), -1e4, np.float32), 1), "bias")
    after = numpy_helper.from_array(draw.standard_normal((32, 8)).astype(np.float32) / 6, "after")
    names = ["x", "qkv", "shift", "", "", "bias"]
    proto = model(
        [
            helper.make_node("Attention", names, ["a"], name="attention", domain="com.microsoft", num_heads=2),
            helper.make_node("MatMul", ["a", "after"], ["y"], name="product"),
        ],
        [value("x", "FP32", ["batch", 4, 32])],
        [value("y", "FP32", ["batch", 4, 8])],
        [weight, shift, bias, after],
    )
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path = write(proto, tmp_path / "attention.onnx")
    x = draw.standard_normal((64, 4, 32)).astype(np.float32)
    workbench = bench(tmp_path, path, samples_folder(tmp_path, {"x": x}))
    report = applied(DYNAMIC, workbench, tmp_path / "out.onnx")
    assert report.summary == "quantized 1 MatMul"
    assert report.kept == ("attention",)
    assert (cosines(workbench, tmp_path / "out.onnx")["y"] or 0) > 0.99
