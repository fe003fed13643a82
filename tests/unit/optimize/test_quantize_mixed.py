"""Calibration, sensitivity and mixed precision: a planted sensitive node is found, and kept in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, helper, numpy_helper
from tests.support.graphs import model, value, write
from tests.support.optimizing import bench, samples_folder

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.optimize import gate
from tensorquay_convert.optimize.agreement import Agreements
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.passes import registry, sensitivity
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.passes.quantizable import Candidate
from tensorquay_convert.optimize.results import OutputAgreement, PassReport
from tensorquay_convert.optimize.variants import Step
from tensorquay_convert.proof.runtime import Runtime

WIDE = 32
RULES = GateRules(min_cosine=0.99)
MIXED = {base: Step("mixed int8", {"base": base}) for base in ("static int8", "dynamic int8")}


def chain(*, outlier: float = 1.0, layers: int = 4, gather: bool = False) -> ModelProto:
    """x → (MatMul, Tanh) × layers → y.

    `outlier`: before the third product one of its inputs is that many times the others, and its row of the weight that
    many times smaller: in floats nothing changes, in 8 bits for all inputs the others are lost.
    """
    draw = np.random.default_rng(3)
    nodes, stored = [], []
    now = "x"
    for layer in range(layers):
        weight = (draw.standard_normal((WIDE, WIDE)) / WIDE**0.5).astype(np.float32) * 1.5
        if layer == 2 and outlier != 1.0:
            spread = np.ones(WIDE, np.float32)
            spread[0] = outlier
            weight /= spread[:, None]
            stored.append(numpy_helper.from_array(spread, "spread"))
            nodes.append(helper.make_node("Mul", [now, "spread"], ["spreaded"], name="spreading"))
            now = "spreaded"
        stored.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [now, f"w{layer}"], [f"m{layer}"], name=f"product{layer}"))
        now = f"t{layer}" if layer < layers - 1 else "embedding"
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [now], name=f"tanh{layer}"))
    return model(
        nodes, [value("x", "FP32", ["batch", WIDE])], [value("embedding", "FP32", ["batch", WIDE])], stored
    )  # fmt: skip


def chain_bench(tmp_path: Path, proto: ModelProto, *, rows: int = 128, x: Any = None, **changes: Any) -> Workbench:
    path = write(proto, tmp_path / "chain.onnx")
    if x is None:
        x = np.random.default_rng(5).standard_normal((rows, WIDE)).astype(np.float32)
    return bench(tmp_path, path, samples_folder(tmp_path, {"x": x}), rules=RULES, **changes)


def applied(step: Step, workbench: Workbench, target: Path) -> PassReport:
    report = registry.make(step).apply(workbench.baseline, target, workbench)
    assert not list(workbench.scratch.iterdir()), "temporary files are left"
    return report


def violations(workbench: Workbench, path: Path) -> tuple[str, ...]:
    """What the gate says of the judging rows."""
    baseline, variant, found = Runtime(workbench.baseline), Runtime(path), Agreements(batched=True)
    for inputs in workbench.samples.judging(gate.BATCH):
        found.add(baseline.run(inputs), variant.run(inputs))
    return gate.violations(found.results(), workbench.rules)


@pytest.mark.parametrize("base", MIXED)
def test_the_planted_node_is_kept_and_the_gate_holds(tmp_path: Path, base: str) -> None:
    workbench = chain_bench(tmp_path, chain(outlier=300.0))
    whole = applied(Step(base), workbench, tmp_path / "whole.onnx")
    assert whole.quantized == 4
    assert violations(workbench, tmp_path / "whole.onnx"), "whole-model INT8 should miss the gate here"
    target = tmp_path / "mixed.onnx"
    report = applied(MIXED[base], workbench, target)
    assert report.changed
    assert report.kept == ("product2",)
    assert report.quantized == 3
    assert "3 MatMul; 1 MatMul stay in FP32" in report.summary
    assert not violations(workbench, target)
    worst = max(workbench.sensitivity, key=lambda each: each.loss)
    assert (worst.node, worst.operator, worst.quantized) == ("product2", "MatMul", False)
    assert [each.node for each in workbench.sensitivity] == [f"product{layer}" for layer in range(4)]
    assert sum(each.quantized for each in workbench.sensitivity) == 3
    plain = {node.name: node.input[1] for node in onnx.load(str(target)).graph.node if node.op_type == "MatMul"}
    assert plain["product2"] == "w2"


@pytest.mark.parametrize("base", MIXED)
def test_without_a_sensitive_node_everything_is_quantized(tmp_path: Path, base: str) -> None:
    workbench = chain_bench(tmp_path, chain())
    report = applied(MIXED[base], workbench, tmp_path / "mixed.onnx")
    assert (report.quantized, report.kept) == (4, ())
    assert all(each.quantized for each in workbench.sensitivity)


def test_when_nothing_passes_the_model_stays_as_it_was(tmp_path: Path) -> None:
    workbench = chain_bench(tmp_path, chain())
    workbench.rules = GateRules(min_cosine=1.0)
    report = applied(MIXED["static int8"], workbench, tmp_path / "mixed.onnx")
    assert not report.changed
    assert "loses more than the gate allows" in report.summary
    assert not any(each.quantized for each in workbench.sensitivity)
    assert (tmp_path / "mixed.onnx").read_bytes() == workbench.baseline.read_bytes()


def test_it_is_judged_against_the_baseline_when_it_is_given_another_source(tmp_path: Path) -> None:
    """On top of a pass that has spoiled the model nothing can pass, however well it is quantized."""
    workbench = chain_bench(tmp_path, chain())
    spoiled = chain()
    for weight in spoiled.graph.initializer:
        if weight.name == "w1":
            weight.CopyFrom(numpy_helper.from_array(np.eye(WIDE, dtype=np.float32), "w1"))
    source = write(spoiled, tmp_path / "spoiled.onnx")
    report = registry.make(MIXED["dynamic int8"]).apply(source, tmp_path / "mixed.onnx", workbench)
    assert not report.changed


@pytest.mark.parametrize("base", MIXED)
def test_an_optional_input_keeps_its_default(tmp_path: Path, base: str) -> None:
    proto = chain(outlier=300.0)
    proto.graph.input.append(value("spread", "FP32", [WIDE]))
    workbench = chain_bench(tmp_path, proto)
    target = tmp_path / "mixed.onnx"
    report = applied(MIXED[base], workbench, target)
    assert report.kept == ("product2",)
    assert not violations(workbench, target)
    graph = onnx.load(str(target)).graph
    assert [each.name for each in graph.input] == ["x", "spread"]
    assert [each.name for each in graph.initializer].count("spread") == 1


def test_the_work_is_bounded_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "MOST_GROUPS", 3)
    said: list[str] = []
    workbench = chain_bench(tmp_path, chain(layers=7), say=said.append)
    applied(MIXED["static int8"], workbench, tmp_path / "mixed.onnx")
    measured = [each for each in said if each.startswith("measuring sensitivity")]
    assert measured == [f"measuring sensitivity, node {done} of 7" for done in (2, 4, 7)]
    assert len(workbench.sensitivity) == 7


@given(st.integers(0, 300))
def test_groups_hold_every_node_once_in_order_and_are_of_like_size(count: int) -> None:
    nodes = [Candidate(f"n{number}", "MatMul") for number in range(count)]
    groups = sensitivity.grouped(nodes)
    assert [node for group in groups for node in group] == nodes
    assert len(groups) <= sensitivity.MOST_GROUPS
    sizes = {len(group) for group in groups}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 0 not in sizes


def test_the_loss_is_that_of_the_worst_output() -> None:
    fine = OutputAgreement("a", 0.999, 0.99, 0.1, 0.1, 1.0, relative_error=0.05)
    worse = OutputAgreement("b", 0.9, 0.5, 0.1, 0.1, None, relative_error=0.4)
    digit = OutputAgreement("c", None, None, 1.0, 0.1, 0.75)
    single = OutputAgreement("d", None, None, 1.0, 0.1, None, relative_error=7.0)
    assert sensitivity.loss_of((fine, worse, digit)) == pytest.approx(0.1)
    assert sensitivity.loss_of((digit,)) == pytest.approx(0.25)
    assert sensitivity.loss_of((single,)) == sensitivity.WORST
    broken = OutputAgreement("e", 1.0, 1.0, 0.0, 0.0, 1.0, nonfinite=1)
    assert sensitivity.loss_of((fine, broken)) == sensitivity.WORST


def test_the_rules_of_the_search_are_stricter_than_the_gate() -> None:
    strict = sensitivity.stricter(GateRules())
    assert strict.min_cosine is not None
    assert 1 > strict.min_cosine > gate.MIN_COSINE
    assert strict.max_drop is not None
    assert 0 < strict.max_drop < gate.MAX_DROP
    assert sensitivity.stricter(GateRules(min_cosine=0.9)).max_drop is None


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_by_name(tmp_path: Path, bad: float, method: str) -> None:
    x = np.random.default_rng(5).standard_normal((64, WIDE)).astype(np.float32)
    x[17, 3] = bad
    workbench = chain_bench(tmp_path, chain(), x=x)
    with pytest.raises(BadSource, match="samples of input 'x' hold NaN or infinite"):
        registry.make(Step("static int8", {"method": method})).apply(
            workbench.baseline, tmp_path / "out.onnx", workbench
        )
    assert not list(workbench.scratch.iterdir())


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_a_value_inside_that_is_not_finite_is_named(tmp_path: Path, method: str) -> None:
    proto = chain()
    place = next(number for number, node in enumerate(proto.graph.node) if node.name == "tanh1")
    proto.graph.node[place].op_type = "Log"
    proto.graph.node[place].input[0] = "positive"
    proto.graph.node.insert(place, helper.make_node("Relu", ["m1"], ["positive"], name="relu"))
    workbench = chain_bench(tmp_path, proto)
    with pytest.raises(Unsupported, match=r"calibration found values of 't1' from -inf to \S+: no range") as caught:
        applied(Step("static int8", {"method": method}), workbench, tmp_path / "out.onnx")
    assert caught.value.facts == {"tensor": "t1"}


def test_ranges_of_nothing_but_zeros_are_refused(tmp_path: Path) -> None:
    workbench = chain_bench(tmp_path, chain(), x=np.zeros((64, WIDE), np.float32))
    with pytest.raises(Unsupported, match=r"nothing but zeros in '\w+'"):
        applied(Step("static int8"), workbench, tmp_path / "out.onnx")


def test_nodes_that_only_ever_saw_zeros_stay_in_fp32(tmp_path: Path) -> None:
    proto = chain()
    for weight in proto.graph.initializer:
        if weight.name == "w3":
            weight.CopyFrom(numpy_helper.from_array(np.eye(WIDE, dtype=np.float32), "w3"))
        elif weight.name == "w2":
            weight.CopyFrom(numpy_helper.from_array(np.zeros((WIDE, WIDE), np.float32), "w2"))
    report = applied(Step("static int8"), chain_bench(tmp_path, proto), tmp_path / "out.onnx")
    assert report.kept == ("product2", "product3")
    assert report.quantized == 2
    assert "nothing but zeros" in report.notes[0]


@pytest.mark.parametrize("rows", [0, 7])
def test_too_few_samples_are_one_sentence(tmp_path: Path, rows: int) -> None:
    x = np.ones((max(rows, 1), WIDE), np.float32)
    path = write(chain(), tmp_path / "chain.onnx")
    folder = samples_folder(tmp_path, {"x": x}, calibration=rows, judging=0)
    with pytest.raises(BadSource, match=f"needs 8 samples or more, there are {rows}"):
        applied(Step("static int8"), bench(tmp_path, path, folder), tmp_path / "out.onnx")


def test_calibration_is_bounded_and_sees_every_length(tmp_path: Path) -> None:
    said: list[str] = []
    groups = [{"x": np.full((400, 2, WIDE), 1.0, np.float32)}, {"x": np.full((400, 3, WIDE), 2.0, np.float32)}]
    proto = chain()
    for value_, size in ((proto.graph.input[0], "batch"), (proto.graph.output[0], "batch")):
        value_.CopyFrom(value(value_.name, "FP32", [size, "steps", WIDE]))
    path = write(proto, tmp_path / "chain.onnx")
    workbench = bench(tmp_path, path, samples_folder(tmp_path, groups, calibration=400, judging=0), say=said.append)
    applied(Step("static int8"), workbench, tmp_path / "out.onnx")
    assert sum("calibrating" in each for each in said) == 16, "16 batches of 16 rows, of 800"
    scales = {
        each.name: numpy_helper.to_array(each) for each in onnx.load(str(tmp_path / "out.onnx")).graph.initializer
    }
    assert scales["x_scale"] == pytest.approx(2.0 / 255), "rows of 2.0 are in the second group only"
