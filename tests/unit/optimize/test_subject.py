"""What is read of a model before it is optimised, what is refused, and whether its requests can be stacked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.support import graphs

from tensorquay_convert.errors import BadSource, CommandFailed, Unsupported
from tensorquay_convert.optimize.subject import open_model, read_subject, stacking
from tensorquay_convert.tensors import Meaning

DIGITS = Path(__file__).parents[3] / "model_repo" / "digits" / "2" / "model.onnx"
FLOAT4 = graphs.value("x", "FP32", ("batch", 4))


def of(proto: onnx.ModelProto, tmp_path: Path) -> Any:
    return read_subject(graphs.write(proto, tmp_path / "model.onnx"), "m")


def one_node(operator: str, shape: Any = ("batch", 4), out: Any = ("batch", 4), **attributes: Any) -> onnx.ModelProto:
    """x FP32 → y through one operator."""
    return graphs.model(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        [graphs.value("x", "FP32", shape)],
        [graphs.value("y", "FP32", out)],
    )


# -- the facts


def test_the_facts_of_a_real_model() -> None:
    subject = read_subject(DIGITS, "digits")
    assert subject.name == "digits"
    assert subject.sha256 == hashlib.sha256(DIGITS.read_bytes()).hexdigest()
    assert subject.bytes == DIGITS.stat().st_size
    assert (subject.opset, subject.nodes, subject.operators["Conv"]) == (20, 13, 3)
    assert subject.nodes == sum(subject.operators.values())
    assert subject.inputs == {"image": "float32[batch,1,8,8]"}
    assert subject.outputs == {"probabilities": "float32[batch,10]", "digit": "int64[batch]"}
    weights = [each for each in onnx.load(DIGITS).graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    assert subject.fp32_weight_bytes == sum(numpy_helper.to_array(each).nbytes for each in weights)
    assert subject.batched
    assert not subject.quantized
    assert not subject.external_data
    assert subject.notes == ()


def test_weights_beside_the_model_count(tmp_path: Path) -> None:
    proto, weights = graphs.dense()
    (tmp_path / "weights.bin").write_bytes(graphs.make_external(proto.graph.initializer[0], "weights.bin"))
    subject = of(proto, tmp_path)
    assert subject.external_data
    assert subject.fp32_weight_bytes == weights.nbytes
    assert subject.bytes == weights.nbytes + (tmp_path / "model.onnx").stat().st_size


def test_a_quantized_model_says_so(tmp_path: Path) -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(7), "z")
    proto = graphs.model(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        [FLOAT4],
        [graphs.value("y", "FP32", ("batch", 4))],
        [scale, zero],
    )
    subject = of(proto, tmp_path)
    assert subject.quantized == {"DequantizeLinear": 1, "QuantizeLinear": 1}
    assert subject.batched
    assert (
        "already quantized (1 DequantizeLinear, 1 QuantizeLinear): quantizing passes are left out" in subject.notes[0]
    )


def test_operators_of_other_domains_carry_them(tmp_path: Path) -> None:
    proto = one_node("FastGelu", domain="com.microsoft")
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert of(proto, tmp_path).operators == {"com.microsoft.FastGelu": 1}


def test_the_interface_has_what_only_trying_tells(tmp_path: Path) -> None:
    opened = open_model(graphs.write(one_node("Relu", (None, None), (None, None)), tmp_path / "model.onnx"))
    assert opened.interface.inputs[0].shape == ("batch", "x_1")
    assert opened.interface.outputs[0].shape == ("batch", "x_1")


def test_the_vocabulary_is_known(tmp_path: Path) -> None:
    opened = open_model(graphs.write(graphs.lookup(), tmp_path / "model.onnx"))
    assert opened.vocabulary == {"index": 3}
    assert opened.interface.inputs[0].values.meaning is Meaning.TOKEN_IDS


# -- stacking


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (one_node("Softmax", axis=0), "the model mixes rows: in a batch of 2 row 0 of output 'y' has other values"),
        (one_node("Relu", (2, 4), (2, 4)), "the first axis of input 'x' is fixed at 2"),
        (one_node("ReduceSum", out=("k", 1), keepdims=1), "for 2 rows output 'y' has shape [1, 1]"),
        (one_node("ReduceSum", out=(), keepdims=0), "output 'y' is a single number"),
        (one_node("Transpose", out=("a", "b"), perm=[1, 0]), "for one row output 'y' has shape [4, 1]"),
        (one_node("Relu", (1, 4), (1, 4)), "the first axis of input 'x' is fixed at 1"),
        (graphs.add_sub(("n", "n")), "the first axes of the inputs differ"),
        (one_node("RandomNormalLike", mean=1.0), "output 'y' differs from run to run"),
    ],
)
def test_a_model_that_cannot_be_stacked_says_why(proto: onnx.ModelProto, reason: str, tmp_path: Path) -> None:
    subject = of(proto, tmp_path)
    assert not subject.batched
    assert subject.notes[-1].startswith("requests are not stacked: ")
    assert reason in subject.notes[-1]


def test_a_batch_that_was_frozen_inside_is_noticed(tmp_path: Path) -> None:
    frozen = graphs.model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [FLOAT4],
        [graphs.value("y", "FP32", ("batch", "n"))],
        [numpy_helper.from_array(np.array([1, 4]), "shape")],
    )
    opened = open_model(graphs.write(frozen, tmp_path / "model.onnx"))
    found = stacking(opened, ())
    assert not found.batched
    assert found.batch == 1
    assert "it runs with 1 row and not with 2" in found.reason


@pytest.mark.parametrize("wire", ["BYTES", "BF16", "BOOL", "INT64", "FP16"])
def test_every_kind_of_value_can_be_stacked(wire: str, tmp_path: Path) -> None:
    assert of(graphs.identity(wire), tmp_path).batched


def test_sizes_that_nothing_says_are_found_by_trying(tmp_path: Path) -> None:
    """Only 64 numbers a row fit the weights, and the file does not say so."""
    proto, _ = graphs.dense()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    assert of(proto, tmp_path).batched


def test_the_users_rows_are_tried_when_drawn_ones_do_not_run(tmp_path: Path) -> None:
    proto, _ = graphs.dense(inputs=77)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    opened = open_model(graphs.write(proto, tmp_path / "model.onnx"))
    with pytest.raises(Unsupported, match=r"runs with no inputs that were tried; at last: .*give inputs .* --data"):
        stacking(opened, ())
    assert stacking(opened, ({"n": 77},)).batched
    assert stacking(opened, (), {"x": np.random.default_rng(0).random((3, 77), np.float32)}).batched


# -- what is refused


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return write


def _proto(proto: onnx.ModelProto) -> Callable[[Path], Path]:
    return lambda folder: graphs.write(proto, folder / "model.onnx")


def _external(location: str) -> onnx.ModelProto:
    proto, _ = graphs.dense()
    graphs.make_external(proto.graph.initializer[0], location)
    return proto


def _old() -> onnx.ModelProto:
    return graphs.model(
        [helper.make_node("Sigmoid", ["x"], ["y"])], [FLOAT4], [graphs.value("y", "FP32", ("batch", 4))], opset=6
    )


def _constant() -> onnx.ModelProto:
    return graphs.model(
        [helper.make_node("Identity", ["w"], ["y"])],
        [],
        [graphs.value("y", "FP32", (2,))],
        [numpy_helper.from_array(np.ones(2, np.float32), "w")],
    )


def _custom() -> onnx.ModelProto:
    proto = one_node("Fancy", domain="shop.example")
    proto.opset_import.append(helper.make_opsetid("shop.example", 1))
    return proto


def _sequence() -> onnx.ModelProto:
    proto = one_node("SequenceConstruct")
    proto.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None))
    return proto


@pytest.mark.parametrize(
    ("make", "error", "says", "remedy"),
    [
        (lambda folder: folder / "absent.onnx", BadSource, "absent.onnx' is no file", "give an ONNX file"),
        (lambda folder: folder, BadSource, "is no file", "give an ONNX file"),
        (_bytes(b"PK\x03\x04 a zip"), BadSource, "'model.onnx' is no ONNX model", "imported first"),
        (_bytes(b""), BadSource, "'model.onnx' is no ONNX model: its graph is empty", "imported first"),
        (_bytes(DIGITS.read_bytes()[:9000]), BadSource, "is it cut short?", "imported first"),
        (_proto(_custom()), Unsupported, "shop.example::Fancy (node 'y')", "without custom operators"),
        (_proto(_external("gone.bin")), BadSource, "there is no file 'gone.bin'", "copy the model with all files"),
        (_proto(_external("../gone.bin")), BadSource, "kept at '../gone.bin', expected a file inside", "beside it"),
        (_proto(_old()), Unsupported, "uses operator set 6, expected 7 or newer", "tensorquay import"),
        (_proto(_constant()), Unsupported, "takes no inputs", ""),
        (_proto(_sequence()), Unsupported, "output 'y' is a sequence, expected a tensor", "--output-name"),
        (_proto(one_node("Relu", None, None)), Unsupported, "does not say what shape input 'x' has", "--input 'x:"),
        (_proto(one_node("NoSuchOperator")), BadSource, "does not load 'model.onnx'", "onnx.checker"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_optimised_is_refused_in_a_sentence(
    make: Callable[[Path], Path], error: type[CommandFailed], says: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as refused:
        read_subject(make(tmp_path), "m")
    assert says in refused.value.sentence
    assert "\n" not in refused.value.sentence
    assert remedy in refused.value.remedy
    assert "onnxruntime_src" not in refused.value.sentence
