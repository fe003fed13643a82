"""SavedModels and frozen graphs: signatures, fixed batches, what is refused before anything is loaded, and damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.convert.tensorflow_zoo import TRAINED_ON, Zoo, assert_equal, digits, inner_values, opened, run_onnx

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import DeclaredInput, DynamicAxis, SourceKind
from tensorquay_convert.sources import tensorflow_graph

pytestmark = pytest.mark.frameworks

KIND = SourceKind.SAVED_MODEL
X = {"x": ((None, 4), "float32")}
ONE = {"x": ((1, 4), "float32")}


def _no_loading(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*given: Any, **named: Any) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(zoo.tf.saved_model, "load", loaded)


def test_a_trained_cnn_keeps_its_answers_and_can_be_looked_into(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    images, labels = digits()
    source = opened(KIND, tensorflow_zoo.exported("cnn"))
    assert source.facts.shown.startswith("a TensorFlow SavedModel, signature 'serving_default', 1 input, 1 output, ")
    assert {"saved_model.pb", "variables.index"} <= {file.name for file in source.facts.files}
    assert source.facts.versions["tf2onnx"]
    assert any("channels come last" in note for note in source.facts.notes)
    path = assert_equal(source, tmp_path)
    answer = run_onnx(path, {"image": images[TRAINED_ON:]})["output_0"]
    assert (answer.argmax(1) == labels[TRAINED_ON:]).mean() > 0.9
    inputs = {"image": images[:3]}
    names = [output for node in onnx.load(path).graph.node for output in node.output]
    known = source.values_inside(inputs, [*names, "no such value", "no/such:0", "image:7"])
    assert len(known) >= len(names) // 2
    assert known.keys() <= set(names)
    for name, value in inner_values(path, inputs, list(known)).items():
        np.testing.assert_allclose(value, known.get(name, value), atol=1e-4, err_msg=name)
    source.close()


def test_one_of_several_signatures_is_chosen_and_the_others_are_listed(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    path = tensorflow_zoo.module(
        "two",
        embed=(lambda w, x: {"embedding": x @ w, "echo": x}, X),
        score=(lambda w, x: {"total": tensorflow_zoo.tf.reduce_sum(x @ w, 1)}, X),
    )
    source = opened(KIND, path, signature="embed")
    assert [spec.name for spec in source.facts.interface.outputs] == ["echo", "embedding"]
    assert any("signature 'embed' was chosen; also there: score" in note for note in source.facts.notes)
    assert_equal(source, tmp_path)
    assert_equal(opened(KIND, path, signature="embed", outputs=("embedding",)), tmp_path)
    with pytest.raises(BadSource, match=r"several signatures and none is 'serving_default': 'embed', 'score'"):
        opened(KIND, path)
    with pytest.raises(BadSource, match=r"has no signature 'nope'; it has 'embed', 'score'"):
        opened(KIND, path, signature="nope")
    with pytest.raises(BadSource, match=r"no output is called 'nope'; there are echo, embedding"):
        opened(KIND, path, signature="embed", outputs=("nope",))
    with pytest.raises(BadSource, match=r"--dynamic names axis 2 of 'x', which is not there; inputs: x\[None, 4\]"):
        opened(KIND, path, signature="embed", dynamic=(DynamicAxis("x", 2, "seq"),))
    with pytest.raises(BadSource, match=r"declared int64\['batch', 4\]; the model has float32\[None, 4\]"):
        opened(KIND, path, signature="embed", inputs=(DeclaredInput("x", "int64", ("batch", 4)),))


def test_a_fixed_batch_is_freed_where_rows_stay_apart(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    tf = tensorflow_zoo.tf
    path = tensorflow_zoo.module(
        "fixed",
        rows=(lambda w, x: {"y": tf.tanh(x @ w)}, ONE),
        mixed=(lambda w, x: {"y": x @ w - tf.reduce_mean(x @ w)}, {"x": ((2, 4), "float32")}),
        built_in=(lambda w, x: {"y": tf.reshape(tf.reshape(x @ w, [3, 1]) * 2, [1, 3])}, ONE),
        none=(lambda w, x: {"y": tf.reduce_sum(x @ w)}, {"x": ((3, 4), "float32")}),
    )
    source = opened(KIND, path, signature="rows")
    assert source.facts.interface.inputs[0].shape == ("batch", 4)
    assert any("its batch axis was fixed at 1" in note for note in source.facts.notes)
    assert_equal(source, tmp_path)
    with pytest.raises(Unsupported, match=r"output 'y' is another one when rows come together"):
        opened(KIND, path, signature="mixed")
    with pytest.raises(Unsupported, match=r"its batch axis is fixed at 1, and that is built into the graph"):
        opened(KIND, path, signature="built_in")
    with pytest.raises(Unsupported, match=r"has no batch axis: inputs x\[3, 4\], outputs y\[\]"):
        opened(KIND, path, signature="none")
    for signature, rows in (("mixed", 2), ("built_in", 1), ("none", 3)):
        as_it_is = opened(KIND, path, signature=signature, static=True)
        assert as_it_is.facts.interface.inputs[0].shape == (rows, 4)
        assert_equal(as_it_is, tmp_path)


def test_what_reaches_outside_is_refused_before_anything_is_loaded(
    tensorflow_zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = tensorflow_zoo.tf

    def python(w: Any, x: Any) -> Any:
        return {"y": tf.ensure_shape(tf.numpy_function(lambda each: each, [x], tf.float32), [None, 4]) @ w}

    def write(w: Any, x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file("/tmp/never", "x")]):
            return {"y": x @ w}

    def restore(w: Any, x: Any) -> Any:
        return {
            "y": x @ w
            + tf.raw_ops.RestoreV2(prefix="p", tensor_names=["n"], shape_and_slices=[""], dtypes=["float"])[0]
        }

    plain = (lambda w, x: {"y": x @ w}, X)
    paths = {
        "runs Python code: PyFunc": tensorflow_zoo.module("python", a=plain, b=(python, X)),
        "reads or writes files: WriteFile": tensorflow_zoo.module("write", a=plain, b=(write, X)),
        "reads or writes checkpoints: RestoreV2": tensorflow_zoo.module("restore", a=plain, b=(restore, X)),
    }
    _no_loading(tensorflow_zoo, monkeypatch)
    for why, path in paths.items():
        # The signature that is asked for is harmless; loading would still bring the other one in.
        with pytest.raises(BadSource, match=why + r", node '.+'.* in function '.+'; it is not loaded"):
            opened(KIND, path, signature="a")


def test_texts_are_refused_by_operator(tensorflow_zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    tf = tensorflow_zoo.tf
    path = tensorflow_zoo.module(
        "texts",
        lengths=(lambda w, t: {"y": tf.strings.length(t)}, {"t": ((None,), "string")}),
        numbers=(lambda w, x: {"y": x @ w}, X),
    )
    assert opened(KIND, path, signature="numbers").facts.interface.inputs[0].name == "x"
    _no_loading(tensorflow_zoo, monkeypatch)
    with pytest.raises(Unsupported, match=r"StringLength, node 'StringLength'") as caught:
        opened(KIND, path, signature="lengths")
    assert "--signature" in caught.value.remedy


def test_damage_is_told_in_one_sentence(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    whole = tensorflow_zoo.module("plain", a=(lambda w, x: {"y": x @ w}, X))

    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    cut = copy("cut")
    (cut / "saved_model.pb").write_bytes((whole / "saved_model.pb").read_bytes()[:-100])
    with pytest.raises(BadSource, match=r"saved_model.pb in 'cut' is damaged or cut off"):
        opened(KIND, cut)
    bare = copy("bare")
    shutil.rmtree(bare / "variables")
    with pytest.raises(BadSource, match=r"cannot load 'bare': its variables are not there"):
        opened(KIND, bare)
    short = copy("short")
    (data,) = (short / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:20])
    with pytest.raises(BadSource, match=r"TensorFlow cannot load 'short'"):
        opened(KIND, short)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadSource, match=r"no saved_model.pb in it"):
        opened(KIND, tmp_path / "empty")
    (tmp_path / "triton").mkdir()
    Path(shutil.copytree(whole, tmp_path / "triton" / "model.savedmodel"))
    assert opened(KIND, tmp_path / "triton").facts.interface.outputs[0].name == "y"


def test_a_savedmodel_of_tensorflow_1(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    v1 = tensorflow_zoo.tf.compat.v1
    folder = tmp_path / "one"
    with tensorflow_graph.quiet(), v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", [None, 4], "x")
        weights = v1.get_variable("w", initializer=np.arange(12, dtype=np.float32).reshape(4, 3), use_resource=False)
        y = v1.nn.softplus(x @ weights, name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
    assert_equal(opened(KIND, folder), tmp_path)


def test_a_frozen_graph_with_ends_guessed_or_named(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    images, labels = digits()
    source = opened(SourceKind.GRAPH_DEF, tensorflow_zoo.frozen)
    assert any("inputs are its placeholders: image" in note for note in source.facts.notes)
    path = assert_equal(source, tmp_path)
    answer = run_onnx(path, {"image": images[TRAINED_ON:]})[source.facts.interface.outputs[0].name]
    assert (answer.argmax(1) == labels[TRAINED_ON:]).mean() > 0.9
    inner = next(node.name for node in _nodes(tensorflow_zoo) if node.op == "Relu")
    named = opened(
        SourceKind.GRAPH_DEF,
        tensorflow_zoo.frozen,
        inputs=(DeclaredInput("image", "float32", ("batch", 8, 8, 1)),),
        outputs=(inner + ":0",),
    )
    assert [spec.name for spec in named.facts.interface.outputs] == [inner]
    assert_equal(named, tmp_path)
    with pytest.raises(BadSource, match=r"has no node 'nope' to be an output; its last nodes: "):
        opened(SourceKind.GRAPH_DEF, tensorflow_zoo.frozen, outputs=("nope",))


def test_a_graph_that_is_not_frozen_damaged_or_dangerous(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    v1 = tensorflow_zoo.tf.compat.v1
    path = tmp_path / "graph.pb"
    with v1.Graph().as_default() as graph:
        v1.get_variable("w", shape=[2], use_resource=False)
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(BadSource, match=r"is not frozen: node 'w' is a variable \(VariableV2\)"):
        opened(SourceKind.GRAPH_DEF, path)
    with v1.Graph().as_default() as graph:
        v1.py_func(lambda: np.float32(1), [], "float32", name="bad")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(BadSource, match=r"runs Python code: PyFunc, node 'bad'"):
        opened(SourceKind.GRAPH_DEF, path)
    path.write_bytes(tensorflow_zoo.frozen.read_bytes()[:-50])
    with pytest.raises(BadSource, match=r"'graph.pb' is no frozen graph, or damaged or cut off"):
        opened(SourceKind.GRAPH_DEF, path)
    path.write_bytes(b"")
    with pytest.raises(BadSource, match=r"'graph.pb' holds no nodes"):
        opened(SourceKind.GRAPH_DEF, path)


def _nodes(zoo: Zoo) -> Any:
    graph = zoo.tf.compat.v1.GraphDef()
    graph.ParseFromString(zoo.frozen.read_bytes())
    return graph.node
