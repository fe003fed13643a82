"""ONNX files as sources: what is read from them, what is refused, and what every exported model is made to be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support import graphs

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob, SourceKind
from tensorquay_convert.sources import onnx_rules
from tensorquay_convert.sources.onnx_file import OnnxConverter
from tensorquay_convert.tensors import Interface, Meaning

Opened = tuple[Any, Path, onnx_rules.Finished]


def silent(_text: str) -> None:
    pass


def opened(path: Path, **job: Any) -> Any:
    return OnnxConverter().open(ImportJob(source=str(path), **job), SourceKind.ONNX, silent)


def finished(path: Path, folder: Path, **job: Any) -> tuple[Any, Path, onnx_rules.Finished]:
    """The opened source, the finished model in a folder of its own, and what was done."""
    source = opened(path, **job)
    folder.mkdir()
    target = folder / "model.onnx"
    source.export(target, silent)
    done = onnx_rules.finish(
        target, source.facts.interface, silent, opset=job.get("opset"), outputs=job.get("outputs", ())
    )
    return source, target, done


def two_axes(first: Any, second: Any) -> onnx.ModelProto:
    """a, b FP32 → y = a + b."""
    return graphs.model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [graphs.value("a", "FP32", first), graphs.value("b", "FP32", second)],
        [graphs.value("y", "FP32", (None, None))],
    )


def shapes(interface: Interface) -> dict[str, Any]:
    return {spec.name: spec.shape for spec in (*interface.inputs, *interface.outputs)}


# -- what is read


def test_axes_have_names_and_the_first_is_the_batch(tmp_path: Path) -> None:
    path = graphs.write(two_axes(("N", "width"), ("N", "width")), tmp_path / "m.onnx")
    source, target, _ = finished(path, tmp_path / "out")
    assert shapes(source.facts.interface) == {"a": ("batch", "width"), "b": ("batch", "width"), "y": ("batch", "width")}
    made = onnx.load(target)
    assert [axis.dim_param for axis in made.graph.input[0].type.tensor_type.shape.dim] == ["batch", "width"]


def test_axes_without_names_are_tied_by_trying(tmp_path: Path) -> None:
    path = graphs.write(two_axes((None, None), (None, None)), tmp_path / "m.onnx")
    facts = opened(path).facts
    assert shapes(facts.interface) == {"a": ("batch", "a_1"), "b": ("batch", "a_1"), "y": ("batch", "a_1")}
    assert "a_1, b_1" in facts.notes[0]


def test_the_user_names_axes_and_declares_shapes(tmp_path: Path) -> None:
    path = graphs.write(two_axes((None, None), (None, None)), tmp_path / "m.onnx")
    named = opened(path, dynamic=(DynamicAxis("a", 1, "seq"), DynamicAxis("b", 1, "seq")))
    assert shapes(named.facts.interface)["y"] == ("batch", "seq")
    declared = opened(
        path, inputs=(DeclaredInput("a", "float32", ("batch", 4)), DeclaredInput("b", "float32", ("batch", 4)))
    )
    assert shapes(declared.facts.interface)["a"] == ("batch", 4)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"dynamic": (DynamicAxis("z", 1, "seq"),)}, "no input 'z'; it has x"),
        ({"dynamic": (DynamicAxis("x", 5, "seq"),)}, "no axis 5"),
        ({"dynamic": (DynamicAxis("x", 1, "seq"),)}, "fixed at 4 in the file"),
        ({"inputs": (DeclaredInput("z", "float32", (1,)),)}, "no input 'z'"),
        ({"inputs": (DeclaredInput("x", "int64", ("batch", 4)),)}, "is float32 in the file, not int64"),
        ({"inputs": (DeclaredInput("x", "float32", ("batch", 5)),)}, r"has shape \['batch', 4\] in the file"),
        ({"outputs": ("z",)}, "no output 'z'; it has y"),
    ],
)
def test_what_does_not_fit_the_file_is_refused(tmp_path: Path, job: dict[str, Any], said: str) -> None:
    path = graphs.write(graphs.scale(), tmp_path / "m.onnx")
    with pytest.raises(BadSource, match=said):
        opened(path, **job)


def test_a_first_axis_called_otherwise_by_the_user_is_no_batch(tmp_path: Path) -> None:
    path = graphs.write(graphs.scale(axes=("n", 4)), tmp_path / "m.onnx")
    source, target, _ = finished(path, tmp_path / "out", dynamic=(DynamicAxis("x", 0, "seq"),))
    assert shapes(source.facts.interface)["x"] == ("seq", 4)
    assert onnx.load(target).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "seq"


def test_token_ids_masks_and_positions_are_known(tmp_path: Path) -> None:
    table = numpy_helper.from_array(np.zeros((30, 4), np.float32), "words")
    model = graphs.model(
        [
            helper.make_node("Cast", ["input_ids"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Gather", ["words", "wide"], ["found"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["found", "column"], ["y"]),
        ],
        [graphs.value("input_ids", "INT32", ("b", "s")), graphs.value("attention_mask", "INT64", ("b", "s"))],
        [graphs.value("y", "FP32", ("b", "s", 4))],
        [table, numpy_helper.from_array(np.array([-1], np.int64), "last")],
    )
    ids, mask = opened(graphs.write(model, tmp_path / "m.onnx")).facts.interface.inputs
    assert (ids.values.meaning, ids.values.high) == (Meaning.TOKEN_IDS, 29.0)
    assert mask.values.meaning is Meaning.MASK


def test_the_source_runs_the_original_and_looks_inside(tmp_path: Path) -> None:
    path = graphs.write(graphs.scale(3.0), tmp_path / "m.onnx")
    source = opened(path)
    x = np.ones((2, 4), np.float32)
    assert source.run({"x": x})["y"].tolist() == [[3.0] * 4] * 2
    assert source.values_inside({"x": x}, ["y", "nothing"])["y"].tolist() == [[3.0] * 4] * 2
    assert dict(source.values_inside({"x": x}, ["nothing"])) == {}
    source.close()


def test_texts_go_in_and_out_as_bytes(tmp_path: Path) -> None:
    source = opened(graphs.write(graphs.identity("BYTES"), tmp_path / "m.onnx"))
    given = np.array([[b"a", "ü".encode()]], dtype=object)
    assert source.run({"x": given})["y"].tolist() == [[b"a", "ü".encode()]]


# -- what is refused


def bytes_of(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = graphs.scale()
    change(model)
    return model.SerializeToString()


def zipmap(model: onnx.ModelProto) -> None:
    del model.graph.output[:]
    model.graph.node.add(op_type="ZipMap", domain="ai.onnx.ml", input=["y"], output=["maps"]).attribute.append(
        helper.make_attribute("classlabels_int64s", [0, 1, 2, 3])
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    of = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(of)))


REFUSED = {
    "custom operator": (
        lambda m: m.graph.node.add(op_type="Magic", domain="acme", name="spell", input=["y"], output=["z"]),
        Unsupported,
        r"no code for: acme::Magic \(node 'spell'\)",
    ),
    "maps": (zipmap, Unsupported, "output 'output_probability' is a sequence, expected a tensor; .*zipmap=False"),
    "complex": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.COMPLEX64),
        Unsupported,
        "elements of type complex64",
    ),
    "no rank": (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), BadSource, "--input 'x:float32"),
    "no graph": (lambda m: m.graph.Clear(), BadSource, "its graph is empty"),
    "wrong operator": (lambda m: setattr(m.graph.node[0], "op_type", "Mulx"), BadSource, "does not load.*Mulx"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_served_say_why(tmp_path: Path, name: str) -> None:
    change, kind, said = REFUSED[name]
    (tmp_path / "m.onnx").write_bytes(bytes_of(change))
    with pytest.raises(kind, match=said):
        opened(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/etc/passwd", "expected a file inside the model's folder"),
        ("../weights.bin", "expected a file inside the model's folder"),
        ("a\\b", "expected a file inside the model's folder"),
        ("link.bin", "leads out of the model's folder"),
        ("gone.bin", "there is no file 'gone.bin' beside the model"),
        ("short.bin", "is it cut short"),
    ],
)
def test_weights_outside_missing_or_short_are_refused(tmp_path: Path, location: str, said: str) -> None:
    model, _ = graphs.dense(4, 3)
    content = graphs.make_external(model.graph.initializer[0], location, length="48")
    (tmp_path / "outside.bin").write_bytes(content)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "short.bin").write_bytes(content[:8])
    graphs.write(model, folder / "m.onnx")
    with pytest.raises(BadSource, match=said):
        opened(folder / "m.onnx")


# -- what it is made to be


def test_weights_beside_the_model_are_gathered_into_it(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    path, weights = graphs.write_external(tmp_path / "in", "deep/weights.bin")
    _, target, done = finished(path, tmp_path / "out")
    assert [each.name for each in target.parent.rglob("*")] == ["model.onnx"]
    assert done.files == (target,)
    shutil.rmtree(tmp_path / "in")
    session = onnx_rules.session_for(target)
    x = np.eye(weights.shape[0], dtype=np.float32)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], weights, rtol=1e-6)


def test_large_weights_stay_in_one_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = graphs.dense(64, 64)
    content = graphs.make_external(model.graph.initializer[0], "some.bin")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/some.bin").write_bytes(content)
    path = graphs.write(model, tmp_path / "in/m.onnx")
    monkeypatch.setattr(onnx_rules, "INLINE_BYTES", 1000)
    _, target, done = finished(path, tmp_path / "out")
    assert [each.name for each in done.files] == ["model.onnx", "model.onnx.data"]
    assert sorted(each.name for each in target.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (target.parent / "model.onnx.data").stat().st_size >= 64 * 64 * 4


def old(opset: int, ir_version: int) -> onnx.ModelProto:
    """y = softmax(relu(x) · w), as written years ago: the initialiser is listed as an input."""
    w = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) / 10, "w")
    unused = numpy_helper.from_array(np.zeros(1000, np.float32), "unused")
    model = graphs.model(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["m"]),
            helper.make_node("Softmax", ["m"], ["y"]),
        ],
        [
            graphs.value("x", "FP32", ("n", 4)),
            graphs.value("w", "FP32", (4, 3)),
            graphs.value("unused", "FP32", (1000,)),
        ],
        [graphs.value("y", "FP32", ("n", 3))],
        [w, unused],
    )
    model.opset_import[0].version = opset
    model.ir_version = ir_version
    return model


def test_an_old_operator_set_is_raised_and_equal(tmp_path: Path) -> None:
    path = graphs.write(old(9, 3), tmp_path / "m.onnx")
    source, target, done = finished(path, tmp_path / "out")
    assert done.opset == onnx_rules.OLDEST_OPSET
    assert "operator set raised from 9 to 17" in done.notes
    made = onnx.load(target)
    assert [each.name for each in made.graph.input] == ["x"]
    assert [each.name for each in made.graph.initializer] == ["w"], "what nothing reads is left out"
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    got = onnx_rules.session_for(target).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, source.run({"x": x})["y"], rtol=1e-6)


def test_the_operator_set_that_was_asked_for(tmp_path: Path) -> None:
    path = graphs.write(graphs.scale(), tmp_path / "m.onnx")
    assert finished(path, tmp_path / "out", opset=21)[2].opset == 21
    with pytest.raises(Unsupported, match="cannot be moved from operator set 17 to 99"):
        finished(path, tmp_path / "out2", opset=99)


def test_a_file_format_that_is_too_new_is_lowered(tmp_path: Path) -> None:
    model = graphs.scale()
    path = graphs.write(model, tmp_path / "m.onnx")
    source = opened(path)
    target = tmp_path / "out.onnx"
    model.ir_version = onnx.IR_VERSION
    target.write_bytes(model.SerializeToString())
    onnx_rules.finish(target, source.facts.interface, silent)
    assert onnx_rules.session_for(target)


def test_only_the_outputs_that_were_asked_for(tmp_path: Path) -> None:
    path = graphs.write(graphs.add_sub(), tmp_path / "m.onnx")
    source, target, _ = finished(path, tmp_path / "out", outputs=("OUTPUT1",))
    assert [spec.name for spec in source.facts.interface.outputs] == ["OUTPUT1"]
    made = onnx.load(target)
    assert [each.name for each in made.graph.output] == ["OUTPUT1"]
    assert len(made.graph.node) == 1
    assert list(source.run({"INPUT0": np.ones((1, 16), np.int32), "INPUT1": np.ones((1, 16), np.int32)})) == ["OUTPUT1"]


def test_optional_inputs_stay_optional(tmp_path: Path) -> None:
    source, target, _ = finished(graphs.write(graphs.optional_input(), tmp_path / "m.onnx"), tmp_path / "out")
    assert [(spec.name, spec.optional) for spec in source.facts.interface.inputs] == [("x", False), ("w", True)]
    assert source.run({"x": np.ones(3, np.float32)})["y"].tolist() == [2.0] * 3
    assert [each.name for each in onnx.load(target).graph.input] == ["x", "w"]


def test_an_invalid_export_is_refused(tmp_path: Path) -> None:
    source = opened(graphs.write(graphs.scale(), tmp_path / "m.onnx"))
    (tmp_path / "bad.onnx").write_bytes(bytes_of(lambda m: setattr(m.graph.node[0], "op_type", "Erfc")))
    with pytest.raises(Unsupported, match=r"not valid ONNX.*Erfc"):
        onnx_rules.finish(tmp_path / "bad.onnx", source.facts.interface, silent)


def test_a_graph_that_names_a_value_twice_is_refused(tmp_path: Path) -> None:
    """What some exporters write when an output is called like an inner value."""
    source = opened(graphs.write(graphs.scale(), tmp_path / "m.onnx"))
    again = lambda m: m.graph.node.add(op_type="Relu", input=["x"], output=["y"])  # noqa: E731
    (tmp_path / "bad.onnx").write_bytes(bytes_of(again))
    with pytest.raises(Unsupported):
        onnx_rules.finish(tmp_path / "bad.onnx", source.facts.interface, silent)
