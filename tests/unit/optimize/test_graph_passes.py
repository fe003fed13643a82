"""The graph passes on real and on awkward graphs: what they report is what is in the file, and answers stay."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tests.bench.graphs import bert
from tests.support import graphs, optimizing, pass_graphs
from tests.support.pass_graphs import weight

from tensorquay_convert.errors import BadSource, CommandFailed, FrameworkMissing, Unsupported
from tensorquay_convert.optimize.passes import counts, fusion, prepared, registry
from tensorquay_convert.optimize.passes import graphs as pass_ends
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.optimize.variants import Settings, Step
from tensorquay_convert.proof.runtime import Runtime
from tensorquay_convert.sources import onnx_graph
from tensorquay_convert.tensors import Arrays

DIGITS = Path(__file__).parents[3] / "model_repo" / "digits" / "2" / "model.onnx"
LEVELS = [Step("graph level", {"level": level}) for level in ("basic", "extended", "all")]
SIMPLIFY = Step("simplify")
FUSE = [Step("fuse transformers", {"by": by}) for by in ("onnxscript", "onnxruntime")]
FLOAT16, KEEPING = Step("float16"), Step("float16", {"keep": ["MatMul", "Conv"]})
BFLOAT16 = Step("bfloat16")
EVERY = [*LEVELS, SIMPLIFY, *FUSE, FLOAT16, KEEPING, BFLOAT16]
TOLERANCE = {"float16": 0.01, "bfloat16": 0.05}

Apply = Callable[..., tuple[PassReport, Path]]


def named(step: Any) -> str:
    return " ".join([step.name, *map(str, step.parameters.values())]) if isinstance(step, Step) else str(step)


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    """Applies a step to a file: the report, and the file written."""

    def run(step: Step, source: Path, **changes: Any) -> tuple[PassReport, Path]:
        target = tmp_path / "out" / "model.onnx"
        target.parent.mkdir(exist_ok=True)
        return registry.make(step).apply(source, target, workbench(tmp_path, source, **changes)), target

    return run


def workbench(folder: Path, source: Path, **changes: Any) -> Workbench:
    samples = folder / "samples"
    if not samples.exists():
        optimizing.samples_folder(folder, {"unused": np.zeros((2, 1), np.float32)})
    return optimizing.bench(folder, source, samples, **changes)


def digest(folder: Path) -> str:
    files = sorted(each for each in folder.iterdir() if each.is_file())
    return hashlib.sha256(b"".join(each.name.encode() + each.read_bytes() for each in files)).hexdigest()


def interface(path: Path) -> list[bytes]:
    """Inputs and outputs with types and axes, and what optional inputs are when they are not given."""
    model = onnx.load(path)
    inputs = onnx_graph.graph_inputs(model)
    names = {each.name for each in inputs}
    defaults = [each for each in model.graph.initializer if each.name in names]
    told = [each.SerializeToString() for each in (*inputs, *model.graph.output)]
    return [*told, *sorted(each.name.encode() + numpy_helper.to_array(each).tobytes() for each in defaults)]


def assert_same_answers(source: Path, target: Path, fed: Arrays, tolerance: float = 1e-5) -> None:
    wanted, got = Runtime(source).run(fed), Runtime(target).run(fed)
    assert list(wanted) == list(got)
    for name, value in wanted.items():
        assert value.dtype == got[name].dtype
        if value.dtype.kind == "f":
            np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(got[name], value)


# -- whatever the graph


@pytest.mark.parametrize("step", EVERY, ids=named)
@pytest.mark.parametrize("name", pass_graphs.AWKWARD)
def test_a_graph_is_rewritten_right_or_refused_in_a_sentence(
    name: str, step: Step, apply: Apply, tmp_path: Path
) -> None:
    proto = pass_graphs.AWKWARD[name]()
    fed = pass_graphs.feeds(proto)
    source = pass_graphs.write(proto, tmp_path / "in")
    before = digest(source.parent)
    refused: CommandFailed | None = None
    try:
        report, target = apply(step, source)
    except CommandFailed as exc:
        refused = exc
    assert digest(source.parent) == before
    if refused is not None:
        assert step is BFLOAT16
        assert "\n" not in refused.sentence
        assert str(tmp_path) not in str(refused)
        return
    assert interface(target) == interface(source)
    assert_same_answers(source, target, fed, TOLERANCE.get(step.name, 1e-5))
    assert report.changed == (counts_of(source) != counts_of(target)) or step.name in TOLERANCE
    assert report.summary
    assert not report.summary.endswith(".")


def counts_of(path: Path) -> dict[str, int]:
    return dict(counts.operators(onnx.load(path)))


@pytest.mark.parametrize("step", EVERY[:-1], ids=named)
def test_weights_in_a_file_of_their_own_are_found_and_left_alone(step: Step, apply: Apply, tmp_path: Path) -> None:
    proto = pass_graphs.layers()
    fed = pass_graphs.feeds(proto)
    source = pass_graphs.write(proto, tmp_path / "in", external=True)
    before = digest(source.parent)
    _, target = apply(step, source)
    assert digest(source.parent) == before
    assert_same_answers(source, target, fed, TOLERANCE.get(step.name, 1e-5))
    # What is small lies inside again, and nothing is left beside it.
    assert [each.name for each in target.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("step", EVERY, ids=named)
def test_weights_that_are_missing_are_named(step: Step, apply: Apply, tmp_path: Path) -> None:
    source = pass_graphs.write(pass_graphs.layers(), tmp_path / "in", external=True)
    (source.parent / "weights.bin").unlink()
    with pytest.raises(BadSource, match=r"weights of 'w0' are missing.*weights\.bin"):
        apply(step, source)


@pytest.mark.parametrize("step", [LEVELS[2], FUSE[0], SIMPLIFY, FLOAT16], ids=named)
def test_large_weights_are_written_beside_the_model(
    step: Step, apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limits of a file set so low that a small model is beyond them."""
    from tensorquay_convert.optimize.passes import graph_level
    from tensorquay_convert.sources import onnx_rules

    monkeypatch.setattr(onnx_rules, "INLINE_BYTES", 20_000)
    monkeypatch.setattr(graph_level, "_INLINE_BYTES", 10_000)
    proto = bert(1, 32, 2, 500)
    fed = pass_graphs.feeds(proto)
    source = pass_graphs.write(proto, tmp_path / "in", external=True)
    report, target = apply(step, source)
    assert report.changed
    assert sorted(each.name for each in target.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert_same_answers(source, target, fed, TOLERANCE.get(step.name, 1e-4))


OPERATORS = ("Relu", "Tanh", "Identity", "Sigmoid", "MatMul", "Add", "Mul", "Max", "Softmax", "Exp")


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """Nodes over earlier values, weights, an optional input perhaps; any values as outputs, in any order."""
    names, nodes = ["x"], []
    weights = [weight(f"w{number}", 4, 4, seed=number) for number in range(draw(st.integers(1, 3)))]
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(OPERATORS))
        read = [draw(st.sampled_from(names))]
        if kind in {"MatMul", "Add", "Mul", "Max"}:
            read.append(draw(st.sampled_from(weights)).name)
        bounded = draw(st.booleans())
        nodes.append(helper.make_node(kind, read, [f"v{number}"], f"n{number}" if bounded else ""))
        nodes.append(helper.make_node("Tanh", [f"v{number}"], [f"t{number}"]))
        names.append(f"t{number}")
    outputs = draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=3, unique=True))
    axis = draw(st.sampled_from(["batch", "N", "unk__1"]))
    inputs = [graphs.value("x", "FP32", [axis, 4, 4])]
    if draw(st.booleans()):
        inputs.append(graphs.value("w0", "FP32", [4, 4]))
    shown = [graphs.value(name, "FP32", draw(st.sampled_from([[axis, 4, 4], [None, 4, 4], None]))) for name in outputs]
    return graphs.model(nodes, inputs, shown, weights)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(proto=chains(), step=st.sampled_from([LEVELS[1], SIMPLIFY, FLOAT16, KEEPING]))
def test_no_pass_changes_names_order_types_or_axes(
    proto: onnx.ModelProto, step: Step, apply: Apply, tmp_path: Path
) -> None:
    source = pass_graphs.write(proto, tmp_path / "in")
    _, target = apply(step, source)
    assert interface(target) == interface(source)
    assert_same_answers(source, target, pass_graphs.feeds(proto), 0.05 if step.name == "float16" else 1e-4)


def test_outputs_that_are_always_equal_keep_their_names(apply: Apply, tmp_path: Path) -> None:
    proto = graphs.model(
        [helper.make_node("Relu", ["x"], [name]) for name in ("a", "b", "c")],
        [graphs.value("x", "FP32", ["n"])],
        [graphs.value(name, "FP32", ["n"]) for name in ("b", "a", "c")],
    )
    source = pass_graphs.write(proto, tmp_path / "in")
    _, target = apply(SIMPLIFY, source)
    assert interface(target) == interface(source)
    assert_same_answers(source, target, pass_graphs.feeds(proto))


# -- what is reported


@pytest.mark.parametrize("step", LEVELS[1:], ids=named)
def test_the_runtime_fuses_convolutions_and_says_where_the_file_works(step: Step, apply: Apply) -> None:
    report, target = apply(step, DIGITS)
    now = counts_of(target)
    assert report.changed
    assert sum(report.fused.values()) == sum(
        count for name, count in now.items() if name.startswith("com.microsoft") and "Reorder" not in name
    )
    assert f"13 nodes, now {sum(now.values())}" in report.summary
    assert any("operators of ONNX Runtime's own, made for provider cpu" in note for note in report.notes)
    for_this_cpu = any(name.startswith("com.microsoft.nchwc") for name in now)
    assert for_this_cpu == any("CPUs of this kind" in note for note in report.notes)
    assert not (for_this_cpu and step is LEVELS[1])
    fed = {"image": np.random.default_rng(0).uniform(0, 16, (5, 1, 8, 8)).astype(np.float32)}
    assert_same_answers(DIGITS, target, fed)


def test_only_the_operator_sets_that_are_used_stay_in_the_file(apply: Apply) -> None:
    _, target = apply(LEVELS[1], DIGITS)
    assert {each.domain for each in onnx.load(target).opset_import} <= {"", "ai.onnx", "com.microsoft"}


@pytest.mark.parametrize("step", [LEVELS[0], SIMPLIFY, *FUSE], ids=named)
def test_a_graph_where_nothing_applies_stays_as_it_is(step: Step, apply: Apply) -> None:
    report, target = apply(step, DIGITS)
    assert not report.changed
    assert not report.fused
    assert report.summary.startswith(("nothing to", "there is no"))
    assert target.read_bytes() == DIGITS.read_bytes()


def test_simplifying_computes_constants_and_drops_the_rest(apply: Apply, tmp_path: Path) -> None:
    report, target = apply(SIMPLIFY, pass_graphs.write(pass_graphs.layers(), tmp_path / "in"))
    assert counts_of(target) == {"MatMul": 2, "Add": 1, "Relu": 1}
    assert report.summary.endswith("7 nodes, now 4")
    assert "Exp 1 → 0" in report.notes[0]


def test_random_numbers_and_quantized_weights_are_not_folded(apply: Apply, tmp_path: Path) -> None:
    proto = graphs.model(
        [
            helper.make_node("RandomNormal", [], ["r"], shape=[4], seed=1.0),
            helper.make_node("RandomNormal", [], ["r2"], shape=[4], seed=1.0),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
            helper.make_node("Add", ["x", "r"], ["a"]),
            helper.make_node("Add", ["a", "r2"], ["b"]),
            helper.make_node("Identity", ["b"], ["c"]),
            helper.make_node("Add", ["c", "d"], ["y"]),
        ],
        [graphs.value("x", "FP32", [4])],
        [graphs.value("y", "FP32", [4])],
        [
            numpy_helper.from_array(np.arange(4, dtype=np.int8), "q"),
            numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        ],
    )
    report, target = apply(SIMPLIFY, pass_graphs.write(proto, tmp_path / "in"))
    assert report.changed
    assert counts_of(target) == {"RandomNormal": 2, "DequantizeLinear": 1, "Add": 3}


@pytest.mark.parametrize("step", FUSE, ids=named)
def test_a_transformer_is_fused_and_counted(step: Step, apply: Apply, tmp_path: Path) -> None:
    proto = bert(2, 32, 4, 100)
    source = pass_graphs.write(proto, tmp_path / "in")
    report, target = apply(step, source)
    assert report.fused["SkipLayerNormalization"] == 4
    assert report.fused["BiasGelu"] == 2
    assert (step is FUSE[0]) == ("MultiHeadAttention" in report.fused)
    now = counts_of(target)
    assert {name: now[f"com.microsoft.{name}"] for name in report.fused} == dict(report.fused)
    fed = pass_graphs.feeds(proto, size=7)
    fed["attention_mask"][0, :2] = 0
    assert_same_answers(source, target, fed, 1e-4)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("step", FUSE, ids=named)
def test_normalisation_in_parts_is_found_in_old_operator_sets(
    opset: int, step: Step, apply: Apply, tmp_path: Path
) -> None:
    source = pass_graphs.write(normalised(opset), tmp_path / "in")
    report, target = apply(step, source)
    assert report.changed == bool(report.fused)
    assert_same_answers(source, target, pass_graphs.feeds(onnx.load(source)), 1e-4)


def normalised(opset: int) -> onnx.ModelProto:
    """x FP32 [batch, 4, 8] → y: a layer normalisation as exporters wrote it before there was one."""
    axes: dict[str, Any] = {"axes": [-1]}
    return graphs.model(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], **axes),
            helper.make_node("Sub", ["x", "mean"], ["d"]),
            helper.make_node("Pow", ["d", "two"], ["p"]),
            helper.make_node("ReduceMean", ["p"], ["v"], **axes),
            helper.make_node("Add", ["v", "epsilon"], ["e"]),
            helper.make_node("Sqrt", ["e"], ["s"]),
            helper.make_node("Div", ["d", "s"], ["n"]),
            helper.make_node("Mul", ["n", "gain"], ["g"]),
            helper.make_node("Add", ["g", "shift"], ["y"]),
        ],
        [graphs.value("x", "FP32", ["batch", 4, 8])],
        [graphs.value("y", "FP32", ["batch", 4, 8])],
        [
            weight("gain", 8), weight("shift", 8, seed=1),
            numpy_helper.from_array(np.array(2, np.float32), "two"),
            numpy_helper.from_array(np.array(1e-5, np.float32), "epsilon"),
        ],
        opset=opset,
    )  # fmt: skip


# -- what cannot be


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("squeeze"), "there is no pass 'squeeze'; there are: graph level, simplify, fuse transformers, float16"),
        (Step("graph level", {"level": "most"}), "one of basic, extended, all; got"),
        (Step("graph level", {"depth": 1}), "graph level takes 'level'"),
        (Step("simplify", {"hard": True}), "simplify takes no parameters"),
        (Step("fuse transformers", {"by": "hand"}), "one of onnxscript, onnxruntime"),
        (Step("float16", {"keep": "MatMul"}), "float16 takes 'keep', a list"),
        (Step("bfloat16", {"drop": []}), "bfloat16 takes 'keep', a list"),
    ],
    ids=named,
)
def test_unknown_names_and_parameters_are_refused(step: Step, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        registry.make(step)


@pytest.mark.parametrize("step", [SIMPLIFY, FUSE[0]], ids=named)
def test_a_missing_library_costs_its_passes_only(
    step: Step, apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pass_graphs.write(bert(1, 32, 2, 50), tmp_path / "in")
    for module in [each for each in sys.modules if each.split(".")[0] in {"onnxscript", "onnx_ir"}]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("onnxscript", "onnx_ir"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "tensorquay_convert.optimize.passes.simplify", raising=False)
    with pytest.raises(FrameworkMissing, match=r"needs onnx\w+, which is not installed; pip install 'tensorquay\[opt"):
        apply(step, source)
    assert apply(FUSE[1], source)[0].changed
    assert apply(FLOAT16, source)[0].changed


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is one here")
@pytest.mark.parametrize("step", [LEVELS[0], FLOAT16], ids=named)
def test_a_provider_that_is_not_there_is_named(step: Step, apply: Apply) -> None:
    with pytest.raises(Unsupported, match="cuda"):
        apply(step, DIGITS, settings=Settings(provider="cuda"))


# -- shapes


def test_shapes_are_inferred_afresh_and_nothing_is_said_of_weights(tmp_path: Path) -> None:
    proto = pass_graphs.layers()
    stale = [("m0", ["batch", 99]), ("w0", [16, 8]), ("y", ["batch", 4]), ("gone", [1])]
    proto.graph.value_info.extend(graphs.value(name, "FP32", axes) for name, axes in stale)
    source, target = pass_graphs.write(proto, tmp_path / "in"), tmp_path / "shaped.onnx"
    before = digest(source.parent)
    assert prepared.prepared(source, target, workbench(tmp_path, source)) == ()
    told = {each.name: onnx_graph.shape_of(each) for each in onnx.load(target).graph.value_info}
    assert told == {
        "m0": ("batch", 16), "b": (16,), "a0": ("batch", 16), "r0": ("batch", 16), "i0": ("batch", 16),
        "dead": ("batch", 16),
    }  # fmt: skip
    assert digest(source.parent) == before
    assert counts_of(target) == counts_of(source)


@pytest.mark.parametrize("external", [False, True])
def test_shapes_behind_the_runtimes_own_operators_are_known(external: bool, apply: Apply, tmp_path: Path) -> None:
    source = pass_graphs.write(bert(1, 32, 2, 100), tmp_path / "in")
    _, fused = apply(FUSE[0], source)
    again = pass_graphs.write(onnx.load(fused), tmp_path / "again", external=external)
    prepared.prepared(again, tmp_path / "shaped.onnx", workbench(tmp_path, again))
    model = onnx.load(tmp_path / "shaped.onnx")
    told = {each.name for each in model.graph.value_info} | {each.name for each in model.graph.output}
    # Some operators give more than anybody reads.
    read = {name for node in model.graph.node for name in node.input}
    assert {name for node in model.graph.node for name in node.output if name in read} <= told


@pytest.mark.parametrize("name", pass_graphs.AWKWARD)
def test_any_graph_can_be_prepared(name: str, tmp_path: Path) -> None:
    proto = pass_graphs.AWKWARD[name]()
    fed = pass_graphs.feeds(proto)
    source, target = pass_graphs.write(proto, tmp_path / "in"), tmp_path / "shaped.onnx"
    prepared.prepared(source, target, workbench(tmp_path, source))
    assert interface(target) == interface(source)
    assert_same_answers(source, target, fed)


# -- what a graph looks like


@pytest.mark.parametrize("step", EVERY[:-1], ids=named)
def test_what_a_model_says_of_itself_stays(step: Step, apply: Apply, tmp_path: Path) -> None:
    proto = bert(1, 32, 2, 50)
    proto.metadata_props.add(key="author", value="somebody")
    report, target = apply(step, pass_graphs.write(proto, tmp_path / "in"))
    assert report.changed
    assert {each.key: each.value for each in onnx.load(target).metadata_props} == {"author": "somebody"}


def test_a_transformer_is_told_by_attention_or_a_normalisation() -> None:
    assert fusion.has_transformer(bert(1, 32, 2, 50).graph)
    assert fusion.has_transformer(normalised(13).graph)
    assert fusion.has_transformer(attention("Identity").graph)
    assert not fusion.has_transformer(attention("ReduceSum").graph)
    assert not fusion.has_transformer(onnx.load(DIGITS).graph)


def attention(between: str) -> onnx.ModelProto:
    """x FP32 [n, 4] → y: a softmax, one more node, and a product with a weight."""
    return graphs.model(
        [
            helper.make_node("Softmax", ["x"], ["s"]),
            helper.make_node(between, ["s"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ],
        [graphs.value("x", "FP32", ["n", 4])],
        [graphs.value("y", "FP32", None)],
        [weight("w", 4, 4)],
    )


def test_what_kind_of_transformer_is_tried() -> None:
    def with_mask(values: np.ndarray) -> Any:
        found = attention("Identity")
        found.graph.initializer.append(numpy_helper.from_array(values, "mask"))
        return found.graph

    assert fusion.kinds_of(bert(1, 32, 2, 50).graph) == ("bert",)
    assert fusion.kinds_of(pass_graphs.resized().graph) == ("bert", "vit")
    assert fusion.kinds_of(with_mask(np.tril(np.ones((1, 1, 8, 8), bool)))) == ("bert", "gpt2")
    assert fusion.kinds_of(with_mask(np.ones((1, 1, 8, 8), bool))) == ("bert",)
    assert fusion.kinds_of(with_mask(np.triu(np.ones((8, 8), bool)))) == ("bert",)


def test_heads_are_read_from_the_reshape_before_they_are_moved() -> None:
    assert fusion.heads_of(bert(2, 32, 4, 50).graph) == (4, 8)
    assert fusion.heads_of(pass_graphs.layers().graph) == (0, 0)


def test_a_library_is_quiet_and_its_warnings_are_heard(capfd: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    with pass_ends.quiet() as heard:
        print("to nobody")
        logging.getLogger("some.library").warning("shapes are %s", "unknown")
        logging.getLogger("some.library").info("not this")
    assert heard == ["shapes are unknown"]
    assert capfd.readouterr().out == ""
    assert logging.getLogger().handlers == before


def test_counts_tell_what_is_fused_and_what_changed() -> None:
    before = {"Conv": 3, "Relu": 3, "LayerNormalization": 1, "com.microsoft.Gelu": 1}
    after = {
        "Conv": 1, "LayerNormalization": 2, "com.microsoft.FusedConv": 1, "com.microsoft.nchwc.Conv": 1,
        "com.microsoft.nchwc.ReorderOutput": 1, "com.microsoft.Gelu": 1, "com.microsoft.QuantizeLinear": 5,
    }  # fmt: skip
    assert counts.fused(before, after) == {"FusedConv": 1, "LayerNormalization": 1, "NCHWc Conv": 1}
    assert counts.listed({"Attention": 6, "BiasGelu": 1}) == "6 Attention, 1 BiasGelu"
    assert counts.listed({str(number): 1 for number in range(9)}).endswith("1 5 and 3 more kinds")
    assert counts.listed({}) == "nothing"
    assert counts.difference(before, before) == ""
    assert counts.difference(before, after).startswith("QuantizeLinear 0 → 5, Relu 3 → 0, Conv 3 → 1")
    assert counts.sizes({"Add": 1}, {}) == "1 node, now 0"
