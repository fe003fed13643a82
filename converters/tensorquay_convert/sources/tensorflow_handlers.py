"""ONNX for operators that TensorFlow 2.21 and Keras 3.15 emit and tf2onnx 1.17 does not know, or says wrongly.

Each handler is given to tf2onnx (`custom_op_handlers`); without them tf2onnx leaves the operator in the graph, writes
an invalid model and reports success. Formulas are chosen for small errors near 0, not for few nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

Handler = Callable[[Any, Any, str, Any], Any]

_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}
_SIGN_BITS = {TensorProto.INT32: -(2**31), TensorProto.INT64: -(2**63), TensorProto.INT16: -(2**15)}


def handlers() -> Mapping[str, tuple[Handler, list[Any]]]:
    """All of them, as tf2onnx wants them."""
    return {
        "Erfc": (_erfc, []),
        "Expm1": (_expm1, []),
        "Log1p": (_log1p, []),
        "TFL_GELU": (_gelu, []),
        "Bucketize": (_bucketize, []),
        "BitwiseAnd": (_sign_bit, []),
        "ResizeBilinear": (_resize, []),
        "ResizeBicubic": (_resize, []),
        "ResizeNearestNeighbor": (_resize, []),
    }


def _constant(ctx: Any, node: Any, value: float, like: int = 0) -> str:
    """A scalar of the dtype of the node's input `like`."""
    from tf2onnx import utils  # noqa: PLC0415

    dtype = _FLOATS[ctx.get_dtype(node.input[like])]
    made: str = ctx.make_const(utils.make_name("const"), np.array(value, dtype)).output[0]
    return made


def _finish(ctx: Any, node: Any, operator: str, inputs: list[str], attributes: dict[str, Any] | None = None) -> None:
    """Replace `node` by one of `operator` under its name."""
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    ctx.remove_node(node.name)
    ctx.make_node(operator, inputs, attributes, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """Erfc(x) = 1 - erf(x)."""
    error_function = ctx.make_node("Erf", [node.input[0]]).output[0]
    _finish(ctx, node, "Sub", [_constant(ctx, node, 1), error_function])


def _expm1(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """Expm1(x) = tanh(x/2) (e^x + 1): no digits are lost near 0, unlike in e^x - 1."""
    half = ctx.make_node("Mul", [node.input[0], _constant(ctx, node, 0.5)]).output[0]
    slope = ctx.make_node("Tanh", [half]).output[0]
    power = ctx.make_node("Exp", [node.input[0]]).output[0]
    raised = ctx.make_node("Add", [power, _constant(ctx, node, 1)]).output[0]
    _finish(ctx, node, "Mul", [slope, raised])


def _log1p(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """Log1p(x) = log(u) x / (u - 1) with u = 1 + x, and x itself where u rounds to 1; plain log(u) above 1."""
    x, one = node.input[0], _constant(ctx, node, 1)
    u = ctx.make_node("Add", [x, one]).output[0]
    plain = ctx.make_node("Log", [u]).output[0]
    rounded = ctx.make_node("Sub", [u, one]).output[0]
    scaled = ctx.make_node("Div", [ctx.make_node("Mul", [plain, x]).output[0], rounded]).output[0]
    above = ctx.make_node("Greater", [x, one]).output[0]
    outside = ctx.make_node("Where", [above, plain, scaled]).output[0]
    tiny = ctx.make_node("Equal", [u, one]).output[0]
    _finish(ctx, node, "Where", [tiny, x, outside])


def _gelu(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """TFLite's own Gelu: x/2 (1 + erf(x/√2)), or the approximation by tanh when it says so."""
    x, one = node.input[0], _constant(ctx, node, 1)
    if node.get_attr_value("approximate"):
        cube = ctx.make_node("Mul", [ctx.make_node("Mul", [x, x]).output[0], x]).output[0]
        bent = ctx.make_node("Add", [x, ctx.make_node("Mul", [cube, _constant(ctx, node, 0.044715)]).output[0]])
        inner = ctx.make_node("Mul", [bent.output[0], _constant(ctx, node, np.sqrt(2 / np.pi))]).output[0]
        curve = ctx.make_node("Tanh", [inner]).output[0]
    else:
        curve = ctx.make_node("Erf", [ctx.make_node("Mul", [x, _constant(ctx, node, np.sqrt(0.5))]).output[0]]).output[
            0
        ]
    half = ctx.make_node("Mul", [x, _constant(ctx, node, 0.5)]).output[0]
    _finish(ctx, node, "Mul", [half, ctx.make_node("Add", [curve, one]).output[0]])


def _bucketize(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """Bucketize(x): how many boundaries are not above x."""
    from tf2onnx import utils  # noqa: PLC0415

    boundaries = np.array(node.get_attr_value("boundaries"), np.float32)
    x = ctx.make_node("Cast", [node.input[0]], {"to": TensorProto.FLOAT}).output[0]
    limits = ctx.make_const(utils.make_name("boundaries"), boundaries).output[0]
    last = ctx.make_const(utils.make_name("axis"), np.array([-1], np.int64)).output[0]
    column = ctx.make_node("Unsqueeze", [x, last]).output[0]
    passed = ctx.make_node("GreaterOrEqual", [column, limits]).output[0]
    ones = ctx.make_node("Cast", [passed], {"to": TensorProto.INT32}).output[0]
    _finish(ctx, node, "ReduceSum", [ones, last], {"keepdims": 0})


def _sign_bit(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """BitwiseAnd(Bitcast(x), sign bit), as in Keras' argmax: the bit is set where x < 0 or 1/x < 0 (that is -0).

    Any other BitwiseAnd is ONNX's own of that name (opset 18) and stays.
    """
    from tf2onnx import utils  # noqa: PLC0415

    cast, mask = node.inputs
    bit = _SIGN_BITS.get(ctx.get_dtype(node.input[0]))
    if cast.type != "Bitcast" or bit is None or not mask.is_const() or int(np.ravel(mask.get_tensor_value())[0]) != bit:
        return
    x = cast.input[0]
    if ctx.get_dtype(x) not in _FLOATS:
        return
    zero = _constant(ctx, cast, 0)
    below = ctx.make_node("Less", [x, zero]).output[0]
    minus_zero = ctx.make_node("Less", [ctx.make_node("Reciprocal", [x]).output[0], zero]).output[0]
    negative = ctx.make_node("Or", [below, minus_zero]).output[0]
    dtype = np.dtype(f"int{abs(bit).bit_length()}")
    set_bit = ctx.make_const(utils.make_name("sign"), np.array(bit, dtype)).output[0]
    none = ctx.make_const(utils.make_name("none"), np.array(0, dtype)).output[0]
    _finish(ctx, node, "Where", [negative, set_bit, none])


def _resize(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001
    """Resize by sizes. tf2onnx writes scales, from which 12 -> 7 rounds to a declared 6, and cubic fails to load."""
    from tf2onnx import utils  # noqa: PLC0415

    kind = node.type
    aligned, half_pixel = bool(node.get_attr_value("align_corners")), bool(node.get_attr_value("half_pixel_centers"))
    how: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric"}
    if aligned:
        how["coordinate_transformation_mode"] = "align_corners"
    elif half_pixel:
        how["coordinate_transformation_mode"] = "half_pixel"
    if kind == "ResizeBilinear":
        how |= {"mode": "linear"}
    elif kind == "ResizeBicubic":
        how |= {"mode": "cubic", "cubic_coeff_a": -0.5 if half_pixel else -0.75, "exclude_outside": int(half_pixel)}
    else:
        # TensorFlow takes floor of (i + 0.5) * scale, which ONNX calls by TensorFlow's name.
        how |= {"mode": "nearest", "nearest_mode": "round_prefer_ceil" if aligned else "floor"}
        if half_pixel and not aligned:
            how["coordinate_transformation_mode"] = "tf_half_pixel_for_nn"

    def integers(*values: int) -> str:
        made: str = ctx.make_const(utils.make_name("sizes"), np.array(values, np.int64)).output[0]
        return made

    image = ctx.make_node("Transpose", [node.input[0]], {"perm": [0, 3, 1, 2]}).output[0]
    if kind != "ResizeNearestNeighbor":
        # Both give float whatever they take; ONNX gives what it takes.
        image = ctx.make_node("Cast", [image], {"to": TensorProto.FLOAT}).output[0]
    kept = ctx.make_node("Slice", [ctx.make_node("Shape", [image]).output[0], integers(0), integers(2)]).output[0]
    wanted = ctx.make_node("Cast", [node.input[1]], {"to": TensorProto.INT64}).output[0]
    sizes = ctx.make_node("Concat", [kept, wanted], {"axis": 0}).output[0]
    if kind == "ResizeBicubic":
        # onnxruntime has cubic for the two last axes only; past a Reshape, tf2onnx does not move the transpose away.
        image = ctx.make_node("Reshape", [image, integers(0, 0, 0, -1)]).output[0]
    resized = ctx.make_node("Resize", [image, "", "", sizes], how).output[0]
    if kind == "ResizeBicubic":
        resized = ctx.make_node("Reshape", [resized, integers(0, 0, 0, -1)]).output[0]
    _finish(ctx, node, "Transpose", [resized], {"perm": [0, 2, 3, 1]})
