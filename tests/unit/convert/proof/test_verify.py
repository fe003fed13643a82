"""The proof as a whole: what it runs, what it notes, what it refuses, and that it never raises for a mismatch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.unit.convert.proof.graphs import (
    GraphSource,
    build,
    changed,
    classifier,
    node,
    numbers,
    reader,
    set_attribute,
    set_stored,
    tensor,
)

from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, Tolerance
from tensorquay_convert.proof import summary
from tensorquay_convert.proof.runtime import Runtime
from tensorquay_convert.proof.verification import Verification
from tensorquay_convert.proof.verify import ProofOptions, verify
from tensorquay_convert.tensors import BATCH, Arrays, AxisRange, Interface, TensorSpec


def _verify(
    source: GraphSource, model: Any, folder: Path, options: ProofOptions | None = None, said: list[str] | None = None
) -> Verification:
    path = folder / "model.onnx"
    onnx.save(model, path)
    told = [] if said is None else said
    return verify(source, path, options or ProofOptions(), told.append)


class Picky(GraphSource):
    """A source that takes batches of `takes` only."""

    takes: tuple[int, ...] = (2,)

    def run(self, inputs: Arrays) -> Arrays:
        if next(iter(inputs.values())).shape[0] not in self.takes:
            raise ValueError("view size is not compatible\nwith the rest")
        return super().run(inputs)


def test_options_come_from_the_import() -> None:
    job = ImportJob("m", examples=("a.npz", "x=b.npy"), max_batch=9, seed=3, static=True, tolerance=Tolerance(atol=1.0))
    options = ProofOptions.from_job(job)
    assert (options.max_batch, options.seed, options.static) == (9, 3, True)
    assert options.examples == (Path("a.npz"), Path("x=b.npy"))
    assert options.tolerance.atol == 1.0


def test_the_same_seed_gives_the_same_proof(tmp_path: Path) -> None:
    model, interface = classifier()
    first, second, other = (
        _verify(GraphSource(model, interface), model, tmp_path, ProofOptions(seed=seed)) for seed in (1, 1, 2)
    )
    assert first.cases == second.cases
    assert first.samples == second.samples
    assert other.samples != first.samples
    assert first.runtime.startswith("onnxruntime ")


def test_the_verification_is_plain_json(tmp_path: Path) -> None:
    model, interface = classifier()
    found = _verify(GraphSource(model, interface), changed(model, lambda graph: graph.node[3].output.pop()), tmp_path)
    assert not found.passed
    good = _verify(GraphSource(model, interface), model, tmp_path)
    assert json.loads(json.dumps(good.to_json(), allow_nan=False))["passed"] is True
    assert json.dumps(found.to_json(), allow_nan=False)


def test_a_model_that_does_not_load_is_refused(tmp_path: Path) -> None:
    model, interface = classifier()
    broken = changed(model, lambda graph: set_attribute(graph, "node_transpose", "perm", [0, 0, 0, 0]))
    found = _verify(GraphSource(model, interface), broken, tmp_path)
    assert "ONNX Runtime does not load the model" in found.problems[0]
    assert found.cases == ()
    assert "--opset" in found.advice


def test_examples_are_cases_and_make_inputs_real(tmp_path: Path) -> None:
    model, interface = classifier()
    path = tmp_path / "mine.npz"
    np.savez(path, image=numbers(1, 4, 3, 8, 8))
    found = _verify(GraphSource(model, interface), model, tmp_path, ProofOptions(examples=(path,)))
    assert found.real_inputs
    assert (found.cases[0].name, found.cases[0].origin, found.cases[0].sizes) == ("mine.npz", "mine.npz", {BATCH: 4})
    with pytest.raises(BadSource, match="no such file"):
        _verify(GraphSource(model, interface), model, tmp_path, ProofOptions(examples=(Path("none.npz"),)))


def test_a_case_the_source_does_not_take_is_a_note(tmp_path: Path) -> None:
    model, interface = classifier()
    source = Picky(model, interface)
    source.takes = (1, 2, 7)
    found = _verify(source, model, tmp_path)
    assert found.passed
    assert [case.name for case in found.cases if case.outside] == ["batch 3", "batch 32"]
    assert "the source itself does not run 2 of 10 cases" in found.notes[0]
    assert "with the rest" not in found.notes[0]


def test_an_axis_the_source_only_takes_at_one_size_is_refused(tmp_path: Path) -> None:
    model, interface = classifier()
    found = _verify(Picky(model, interface), model, tmp_path)
    assert found.problems == (
        "axis 'batch' is called dynamic and was only seen at 2, the source itself does not run at 1, 3, 7, 32",
    )
    assert found.culprit is None


def test_a_source_that_takes_nothing_proves_nothing(tmp_path: Path) -> None:
    model, interface = classifier()
    source = Picky(model, interface)
    source.takes = ()
    found = _verify(source, model, tmp_path)
    assert not found.passed
    assert (
        "nothing could be compared: the source does not take these inputs: ValueError: view size" in found.problems[0]
    )


def test_missing_and_foreign_names_are_refused(tmp_path: Path) -> None:
    model, interface = classifier()
    more = Interface(interface.inputs, (*interface.outputs, tensor("extra", "float32", BATCH)), {})
    found = _verify(GraphSource(model, more), model, tmp_path)
    assert "the ONNX model has no output 'extra'; it has 'colour', 'shape'" in found.problems
    fewer = Interface((), interface.outputs, {})
    assert any(
        "needs an input 'image' that the source does not have" in each
        for each in _verify(GraphSource(model, fewer), model, tmp_path).problems
    )


def test_another_dtype_or_rank_is_refused(tmp_path: Path) -> None:
    model, interface = classifier()
    colour = interface.outputs[0]
    wrong = Interface(
        interface.inputs, (TensorSpec("colour", "float64", colour.shape), tensor("shape", "float32", BATCH)), {}
    )
    problems = _verify(GraphSource(model, wrong), model, tmp_path).problems
    assert "output 'colour' is float32 in the ONNX model, float64 in the source" in problems
    assert "output 'shape' has 2 axes in the ONNX model, 1 in the source" in problems


def test_a_static_import_runs_what_there_is(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"], "node_relu")]
    model, interface = build(nodes, [tensor("x", "float32", 4, 3)], [tensor("y", "float32", 4, 3)])
    found = _verify(GraphSource(model, interface), model, tmp_path, ProofOptions(static=True))
    assert found.passed
    assert found.axes == ()
    assert {tuple(case.comparisons[0].shape) for case in found.cases} == {(4, 3)}
    assert not [note for note in found.notes if "could be dynamic" in note]


def test_a_fixed_axis_that_could_be_dynamic_is_a_note(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"], "node_relu")]
    model, interface = build(nodes, [tensor("x", "float32", 4, 3)], [tensor("y", "float32", 4, 3)])
    free, _ = build(nodes, [tensor("x", "float32", "n", 3)], [tensor("y", "float32", "n", 3)])
    found = _verify(GraphSource(free, interface), model, tmp_path)
    assert found.passed
    assert found.notes == ("the first axis is fixed at 4, but the source takes 5 as well: it could be dynamic",)


def test_time_is_bounded_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    model, interface = reader()
    said: list[str] = []
    found = _verify(GraphSource(model, interface), model, tmp_path, ProofOptions(budget_s=0.0), said)
    assert found.passed
    assert {case.sizes[BATCH] for case in found.cases} >= {1, 2, 3}
    assert "cases were left out" in found.notes[0]
    assert said[0].startswith("case 1 of 12: ")


class Waves(GraphSource):
    """The same phase by one multiplication instead of two: it rounds once."""

    def run(self, inputs: Arrays) -> Arrays:
        return {"y": np.sin(inputs["x"] * np.float32(29.7 * 101.1))}


def test_a_source_that_is_sensitive_to_rounding_is_judged_by_that(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["x", "thirty"], ["some"], "node_some"),
        node("Mul", ["some", "hundred"], ["phase"], "node_phase"),
        node("Sin", ["phase"], ["y"], "node_sin"),
    ]
    stored = {"thirty": np.array(29.7, np.float32), "hundred": np.array(101.1, np.float32)}
    built = build(nodes, [tensor("x", "float32", BATCH, 99)], [tensor("y", "float32", BATCH, 99)], stored)
    source, model = Waves(*built, blind=True), built[0]
    found = _verify(source, model, tmp_path)
    assert found.passed
    assert [note for note in found.notes if "sensitive to rounding in 'y'" in note]
    strict = ProofOptions(tolerance=Tolerance(atol=1e-6, rtol=1e-6))
    assert not _verify(source, model, tmp_path, strict).passed
    wrong = changed(model, lambda graph: set_stored(graph, "thirty", lambda old: old * np.float32(1.01)))
    assert not _verify(source, wrong, tmp_path).passed


def test_texts_and_bfloat16_pass_through(tmp_path: Path) -> None:
    model, interface = build(
        [node("Identity", ["t"], ["u"], "node_texts"), node("Identity", ["h"], ["g"], "node_halves")],
        [tensor("t", "string", BATCH, 2), tensor("h", "bfloat16", BATCH, 2)],
        [tensor("u", "string", BATCH, 2), tensor("g", "bfloat16", BATCH, 2)],
    )
    assert _verify(GraphSource(model, interface), model, tmp_path).problems == ()


def test_without_inputs_there_is_one_case(tmp_path: Path) -> None:
    nodes = [node("Identity", ["c"], ["y"], "node_identity")]
    model, interface = build(nodes, [], [tensor("y", "float32", 2)], {"c": np.ones(2, np.float32)})
    found = _verify(GraphSource(model, interface), model, tmp_path)
    assert (found.passed, len(found.cases)) == (True, 1)


def test_axes_of_one_size_and_multiples_are_respected(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"], "node_relu")]
    axes = {"h": AxisRange(32, 96, 32), "one": AxisRange(5, 5)}
    shape = (BATCH, "h", "one")
    model, interface = build(nodes, [tensor("x", "float32", *shape)], [tensor("y", "float32", *shape)], axes=axes)
    found = _verify(GraphSource(model, interface), model, tmp_path)
    assert found.passed
    assert {axis.name: axis.sizes for axis in found.axes}["h"] == (32, 64, 96)
    assert {axis.name: axis.sizes for axis in found.axes}["one"] == (5,)


def test_only_the_runtimes_optimizer_is_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, interface = classifier()
    plain = Runtime.__init__

    def broken(self: Runtime, given: Any, *, folder: Path | None = None, optimized: bool = True) -> None:
        fault = changed(model, lambda graph: set_stored(graph, "mix", np.transpose))
        plain(self, fault if optimized else given, folder=folder, optimized=optimized)

    source = GraphSource(model, interface)
    monkeypatch.setattr(Runtime, "__init__", broken)
    found = _verify(source, model, tmp_path)
    assert not found.passed
    assert found.culprit is None
    assert "without ONNX Runtime's optimizations the model is right" in found.problems[-1]
    assert "optimizer" in found.advice


def test_the_verdict_in_one_sentence(tmp_path: Path) -> None:
    model, interface = classifier()
    good = _verify(GraphSource(model, interface), model, tmp_path)
    assert summary.verdict(good).startswith("proven equal on 10 cases at batch 1 to 32; largest absolute error ")
    bad = _verify(
        GraphSource(model, interface), changed(model, lambda graph: set_stored(graph, "mix", np.transpose)), tmp_path
    )
    assert summary.verdict(bad).startswith("not equal: case 'batch 1': 'colour' differs at ")
