"""Reading an ONNX file's signature, and refusing files that must not be believed."""

from __future__ import annotations

import os
import socket

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import graphs
from tensorquay.backends.onnxruntime import external_data, model_file
from tensorquay.backends.onnxruntime.graph import inspect_bytes, inspect_file
from tensorquay.backends.onnxruntime.model_file import find_model
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ModelFailed


def inspect(proto):
    return inspect_bytes(proto.SerializeToString(), "model.onnx").signature


def refused(proto) -> str:
    with pytest.raises(ModelFailed) as caught:
        inspect(proto)
    return str(caught.value)


@pytest.mark.parametrize("datatype", list(DataType), ids=lambda d: d.wire)
def test_every_data_type_of_the_protocol_is_understood(datatype):
    signature = inspect(graphs.identity(datatype.wire))
    assert signature.inputs[0].datatype is signature.outputs[0].datatype is datatype


def test_axes_keep_their_symbolic_names():
    spec = inspect(graphs.identity("FP32", ["batch", 3, None, "width"])).inputs[0]
    assert (spec.shape, spec.axis_names) == ((-1, 3, -1, -1), ("batch", None, None, "width"))


def test_scalars_have_no_axes_and_zero_sizes_stay():
    assert inspect(graphs.identity("FP32", [])).inputs[0].shape == ()
    assert inspect(graphs.identity("FP32", [0, 2])).inputs[0].shape == (0, 2)


def test_a_negative_declared_size_is_variable():
    assert inspect(graphs.identity("FP32", [-1, 2])).inputs[0].shape == (-1, 2)


def test_an_initialiser_makes_its_input_optional_since_ir_4():
    specs = inspect(graphs.optional_input()).inputs
    assert [(spec.name, spec.optional) for spec in specs] == [("x", False), ("w", True)]


def test_before_ir_4_weights_listed_as_inputs_are_no_inputs():
    assert [spec.name for spec in inspect(graphs.optional_input(ir_version=3, opset=8)).inputs] == ["x"]


def test_the_shape_of_an_output_that_the_file_leaves_out_is_inferred():
    proto = graphs.scale(axes=["batch", 4])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert inspect(proto).outputs[0].shape == (-1, 4)


def test_an_output_of_unknowable_rank_is_one_variable_axis():
    assert inspect(graphs.expand()).outputs[0].shape == (-1,)


def test_an_input_without_rank_is_refused():
    assert "input 'x' has no shape" in refused(graphs.identity("FP32", None))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])), "is a sequence"),
        (helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, [1])), "is a map"),
        (helper.make_sparse_tensor_type_proto(1, [1]), "is a sparse tensor"),
        (helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1])), "is an optional value"),
        (onnx.TypeProto(), "of no declared type"),
    ],
)
@pytest.mark.parametrize("role", ["input", "output"])
def test_what_the_protocol_cannot_carry_is_refused_by_name(kind, words, role):
    proto = graphs.identity("FP32")
    getattr(proto.graph, role)[0].type.CopyFrom(kind)
    text = refused(proto)
    assert words in text
    assert f"{role} '{'x' if role == 'input' else 'y'}'" in text


def test_an_exotic_element_type_is_refused_by_name():
    proto = graphs.identity("FP32")
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN
    assert "FLOAT8E4M3FN" in refused(proto)
    proto.graph.input[0].type.tensor_type.elem_type = 9999
    assert "9999" in refused(proto)


def test_repeated_and_empty_names_are_refused():
    proto = graphs.identity("FP32")
    proto.graph.input.append(proto.graph.input[0])
    assert "two inputs named 'x'" in refused(proto)
    proto = graphs.identity("FP32")
    proto.graph.output[0].name = ""
    assert "without a name" in refused(proto)


def test_a_hostile_name_is_cut_and_made_printable():
    proto = graphs.identity("FP32", None)
    proto.graph.input[0].name = "\x1b[31m\n" + "n" * 5000
    text = refused(proto)
    assert "\x1b" not in text
    assert "\n" not in text
    assert len(text) < 300


def test_a_model_without_graph_or_outputs_is_refused():
    assert "no graph" in refused(onnx.ModelProto(ir_version=8))
    proto = graphs.identity("FP32")
    del proto.graph.output[:]
    assert "no outputs" in refused(proto)


@given(data=st.binary(max_size=200))
@settings(max_examples=200)
def test_random_bytes_are_refused_and_never_crash(data):
    with pytest.raises(ModelFailed):
        inspect_bytes(data, "model.onnx")


@given(cut=st.integers(0, 10_000))
def test_every_truncation_is_refused_or_still_a_signature(cut):
    data = graphs.add_sub().SerializeToString()
    try:
        signature = inspect_bytes(data[: cut % len(data)], "model.onnx").signature
    except ModelFailed:
        return
    assert signature.outputs


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "a folder without a file 'model.onnx'"),
        (os.mkfifo, "is a FIFO"),
        (lambda p: p.symlink_to("/dev/zero"), "is a device"),
        (lambda p: p.symlink_to(p), "cannot read 'model.onnx'"),
        (lambda p: p.touch(), "is empty"),
        (lambda p: p.write_bytes(b"\x00garbage" * 9), "no ONNX model"),
        (lambda p: p.write_text("PK\x03\x04"), "no ONNX model"),
        (lambda p: None, "cannot read 'model.onnx': No such file"),
    ],
    ids=["folder", "fifo", "device", "loop", "empty", "garbage", "zip", "missing"],
)
def test_what_is_no_model_file_is_refused_without_hanging(tmp_path, make, words):
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelFailed) as caught:
        inspect_file(find_model(path))
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("model.onnx")
        with pytest.raises(ModelFailed, match=r"cannot read .model\.onnx."):
            inspect_file(tmp_path / "model.onnx")


def test_a_file_beyond_protobufs_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(model_file.MAX_MODEL_BYTES + 1)  # sparse: takes no space
    with pytest.raises(ModelFailed, match="external data"):
        inspect_file(path)


def test_tritons_folder_layout_holds_the_model_and_its_weights(tmp_path):
    path, _ = graphs.write_external(tmp_path / "model.onnx")
    assert find_model(tmp_path / "model.onnx") == path
    assert inspect_file(path).external == (external_data.ExternalData("weights", "weights.bin", 0, 2048),)


def _external(tmp_path, location, *, offset="0", length=None, content=b"\0" * 2048):
    folder = tmp_path / "repo" / "m" / "1"
    proto, _ = graphs.dense()
    graphs.make_external(proto.graph.initializer[0], location, offset=offset, length=length)
    path = graphs.write(proto, folder / "model.onnx")
    (folder / "weights.bin").write_bytes(content)
    (tmp_path / "repo" / "secret").write_bytes(b"\0" * 4096)
    return folder, path


def _why(path) -> str:
    with pytest.raises(ModelFailed) as caught:
        inspect_file(path)
    assert str(path.parent) not in str(caught.value)
    assert "'weights'" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../../secret", "points outside the model's folder"),
        ("sub/../../../secret", "points outside the model's folder"),
        ("/etc/passwd", "absolute location"),
        ("C:\\weights", "absolute location"),
        ("\\\\host\\share", "absolute location"),
        ("", "names no file"),
        ("weights\0.bin", "names no file"),
        ("absent.bin", "No such file"),
        (".", "is a folder"),
        ("x" * 5000, "cannot read"),
        ("*/_ORT_MEM_ADDR_/*", "No such file"),
    ],
)
def test_external_data_stays_in_the_models_folder(tmp_path, location, words):
    _, path = _external(tmp_path, location)
    assert words in _why(path)


def test_a_symlink_out_of_the_folder_is_refused_and_one_inside_is_fine(tmp_path):
    folder, path = _external(tmp_path, "link")
    (folder / "link").symlink_to("../../secret")
    assert "points outside" in _why(path)
    (folder / "link").unlink()
    (folder / "link").symlink_to("weights.bin")
    inspect_file(path)


def test_a_fifo_as_external_data_is_refused_without_hanging(tmp_path):
    folder, path = _external(tmp_path, "pipe")
    os.mkfifo(folder / "pipe")
    assert "is a FIFO" in _why(path)


@pytest.mark.parametrize(
    ("offset", "length", "words"),
    [
        ("1", None, "ends at byte 2049 of its file, which has 2048"),
        ("0", "99999", "ends at byte 99999"),
        ("-1", None, "offset is '-1'"),
        ("0", "1e3", "length is '1e3'"),
        ("9" * 40, None, "offset is"),
        ("٣", None, "offset is"),
    ],
)
def test_external_data_must_fit_its_file(tmp_path, offset, length, words):
    _, path = _external(tmp_path, "weights.bin", offset=offset, length=length)
    assert words in _why(path)


def _hidden(place: str):
    """A model with an external tensor at `place`, where a check of the initialisers alone would miss it."""
    tensor = TensorProto(name="weights", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    proto = graphs.identity("FP32", ["n"])
    inner = helper.make_graph([], "inner", [], [graphs.value("z", "FP32", [1])], [tensor])
    match place:
        case "constant":
            proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
        case "tensors":
            attribute = onnx.AttributeProto(name="many", type=onnx.AttributeProto.TENSORS, tensors=[tensor])
            proto.graph.node[0].attribute.append(attribute)
        case "subgraph":
            proto.graph.node.append(helper.make_node("If", ["k"], ["c"], then_branch=inner, else_branch=inner))
        case "graphs":
            attribute = onnx.AttributeProto(name="many", type=onnx.AttributeProto.GRAPHS, graphs=[inner])
            proto.graph.node[0].attribute.append(attribute)
        case "nested":
            outer = helper.make_graph(
                [helper.make_node("If", ["k"], ["c"], then_branch=inner, else_branch=inner)],
                "outer",
                [],
                [graphs.value("z", "FP32", [1])],
            )
            proto.graph.node.append(helper.make_node("Loop", ["a", "b"], ["c"], body=outer))
        case "function":
            node = helper.make_node("Constant", [], ["c"], value=tensor)
            proto.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))
        case "sparse":
            proto.graph.sparse_initializer.add().values.CopyFrom(tensor)
        case "training":
            proto.training_info.add().algorithm.CopyFrom(inner)
    return proto


@pytest.mark.parametrize(
    "place", ["constant", "tensors", "subgraph", "graphs", "nested", "function", "sparse", "training"]
)
def test_external_data_is_found_wherever_a_tensor_can_hide(tmp_path, place):
    path = graphs.write(_hidden(place), tmp_path / "repo" / "m" / "1" / "model.onnx")
    (tmp_path / "repo" / "secret").write_bytes(b"\0" * 4)
    assert "points outside the model's folder" in _why(path)
