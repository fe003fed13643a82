"""Axes found by running: names, fixed sizes and bounds, with models that are a few lines of numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_convert.sources.tensorflow_axes import Port, sample, settle
from tensorquay_convert.tensors import AxisRange, Meaning, TensorSpec, Values


def _settled(model: object, *inputs: Port, named: dict[tuple[str, int], str] | None = None) -> object:
    return settle(inputs, (Port("y", "float32", None),), named or {}, model)[0]


def test_a_batch_axis_is_called_batch_and_a_fixed_one_is_fixed() -> None:
    interface = _settled(lambda given: {"y": given["x"].sum(1)[:, None]}, Port("x", "float32", (None, 4)))
    assert interface.inputs[0].shape == ("batch", 4)
    assert interface.outputs[0].shape == ("batch", 1)
    assert interface.axes == {}


def test_unequal_axes_keep_names_of_their_own() -> None:
    def product(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": given["a"][:, :, None] * given["b"][:, None]}

    interface = _settled(product, Port("a", "float32", (None, None)), Port("b", "float32", (None, None)))
    assert interface.outputs[0].shape == ("batch", "a_1", "b_1")


def test_axes_that_must_be_equal_share_a_name_which_the_user_may_give() -> None:
    def add(given: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
        if given["a"].shape != given["b"].shape:
            return "shapes differ"
        return {"y": given["a"] + given["b"]}

    ports = Port("a", "float32", (None, None)), Port("b", "float32", (None, None))
    assert _settled(add, *ports).outputs[0].shape == ("batch", "axis1")
    named = {("a", 1): "seq", ("b", 1): "seq"}
    assert _settled(add, *ports, named=named).outputs[0].shape == ("batch", "seq")


def test_a_strided_output_is_not_taken_for_fixed() -> None:
    interface = _settled(lambda given: {"y": given["x"][:, ::32]}, Port("x", "float32", (None, None)))
    assert interface.outputs[0].shape == ("batch", "y_1")


def test_a_model_that_never_runs_says_why() -> None:
    interface, notes = settle(
        (Port("x", "float32", (None, None)),), (Port("y", "float32", (None,)),), {}, lambda given: "no such table"
    )
    assert interface.inputs[0].shape == ("batch", "x_1")
    assert "no such table" in notes[0]


@given(low=st.integers(1, 4), high=st.integers(16, 300))
def test_the_bounds_of_an_axis_are_those_the_model_keeps(low: int, high: int) -> None:
    def model(given: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
        return {"y": given["x"]} if low <= given["x"].shape[1] <= high else "out of range"

    interface = _settled(model, Port("x", "float32", (None, None)))
    assert interface.axes["x_1"] == AxisRange(low, high, 1)


@given(st.sampled_from([2, 4, 8, 16]))
def test_sizes_that_must_be_multiples_are_found(multiple: int) -> None:
    def model(given: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
        return {"y": given["x"]} if given["x"].shape[1] % multiple == 0 else "cannot halve"

    found = _settled(model, Port("x", "float32", (None, None, None, 3))).axes["x_1"]
    assert (found.low, found.multiple) == (multiple, multiple)


@given(
    st.sampled_from(["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", "bfloat16"]),
    st.sampled_from([Values(), Values(Meaning.MASK, 0, 1), Values(Meaning.TOKEN_IDS, 0, 9)]),
)
def test_samples_have_dtype_shape_and_range(dtype: str, values: Values) -> None:
    spec = TensorSpec("x", dtype, ("batch", 3), values)
    array = sample(spec, {"batch": 5}, np.random.default_rng(0))
    assert array.shape == (5, 3)
    assert array.dtype == np.dtype("uint16" if dtype == "bfloat16" else dtype)
    if values.high is not None and dtype not in {"bool", "bfloat16"}:
        assert array.min() >= 0
        assert array.max() <= values.high
