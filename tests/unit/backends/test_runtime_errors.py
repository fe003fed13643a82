"""ONNX Runtime's texts, cleaned: what helps stays, paths and C++ go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.backends.onnxruntime.errors import clean, translate_run
from tensorquay.core.errors import InvalidArgument, ModelFailed

CODE_2 = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : "
CODE_1 = "[ONNXRuntimeError] : 1 : FAIL : "
NODE = "Non-zero status code returned while running {} node. Name:'{}' Status Message: "


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            CODE_2 + "Got invalid dimensions for input: x for the following indices\n index: 1 Got: 4 Expected: 3\n"
            " Please fix either the inputs/outputs or the model.",
            "Got invalid dimensions for input: x for the following indices index: 1 Got: 4 Expected: 3",
        ),
        (
            CODE_2 + NODE.format("Gather", "/enc/lookup") + "indices element out of data bounds, idx=9",
            "Gather node '/enc/lookup': indices element out of data bounds, idx=9",
        ),
        (
            CODE_1 + NODE.format("Expand", "ex") + "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* "
            "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory "
            "for requested buffer of size 109\n",
            "Expand node 'ex': Failed to allocate memory for requested buffer of size 109",
        ),
        (
            CODE_1 + NODE.format("Reshape", "rs") + "/a/reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper("
            "const onnxruntime::TensorShape&, bool) input_shape_size == requested was false. Cannot be reshaped",
            "Reshape node 'rs': Cannot be reshaped",
        ),
        (
            CODE_1 + NODE.format("Cs", "cs") + "/a/op_kernel.cc:87 virtual OrtValue* onnxruntime::K::Output(int, const "
            "onnxruntime::TensorShape&) [ONNXRuntimeError] : 1 : FAIL : tensor.cc:57 Calc Tensor shape.Size() must be",
            "Cs node 'cs': Calc Tensor shape.Size() must be",
        ),
        (
            "/x/state.cc:2995 onnxruntime::python::addObjectMethods(pybind11::module&)::<lambda(const "
            "onnxruntime::python::O&, bool)> use_per_session_threads must be false",
            "use_per_session_threads must be false",
        ),
        (CODE_1 + "Load model from /srv/repo/m/1/model.onnx failed:Invalid model.", "Invalid model."),
        ("cannot open /usr/lib/x/libcudnn.so.9: no such file", "cannot open libcudnn.so.9: no such file"),
        ("", "the runtime gave no reason"),
    ],
)
def test_the_useful_part_stays(raw, expected):
    assert clean(raw, ("/srv/repo/m/1/",)) == expected


def test_long_texts_are_cut():
    assert len(clean("word " * 10_000)) == 600


@given(st.text(alphabet="(){}[]<>:/.ch1 \nconst was false. [with ONNXRuntimeError", max_size=400))
def test_any_text_ends_in_one_short_line(raw):
    text = clean(raw)
    assert text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["a.cc:1 " * 1100, "x.h:1 a::b(" * 800, "(" * 8000, "/a" * 4000, "::" * 4000 + "("])
def test_hostile_texts_do_not_take_long(text):
    assert len(clean(text)) <= 600


def test_code_2_is_the_callers_fault_and_all_else_the_models():
    assert isinstance(translate_run(RuntimeError(CODE_2 + "bad")), InvalidArgument)
    assert isinstance(
        translate_run(ValueError("Required inputs (['x']) are missing from input feed ([]).")), InvalidArgument
    )
    for other in (RuntimeError(CODE_1 + "bad"), ValueError("other"), MemoryError(), RuntimeError("x " + CODE_2)):
        assert isinstance(translate_run(other), ModelFailed)
    assert "memory" in str(translate_run(MemoryError()))
