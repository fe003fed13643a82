"""What to try, by what went wrong. Pure: a table."""

from __future__ import annotations

from collections.abc import Sequence

from tensorquay_convert.proof.verification import AxisProof, Case, Culprit

_BY_OPERATOR = {
    "graph input": "export again with that axis dynamic (--dynamic 'INPUT:AXIS=NAME'), and with example inputs of "
    "batch 2 or more; or import with --static to keep the fixed shape",
    "Reshape": "the shape was written into the graph: in the model's code use sizes taken from the input's shape "
    "(x.shape[0], or -1) where a number stands, then export again",
    "Expand": "the size was written into the graph: expand by the input's own shape in the model's code",
    "Pad": "check the padding's mode and amounts; write the padding as a layer of its own in the model's code",
    "Conv": "check padding and dilation; write asymmetric padding as a Pad of its own, and check the weight's layout",
    "ConvTranspose": "check output_padding and the weight's layout (it is input channels first)",
    "MatMul": "check that the weight is not transposed: a square one fits either way round",
    "Gemm": "check transB and the weight: a square one fits either way round",
    "Gather": "check where the indices count from, and the vocabulary's offset",
    "Softmax": "name the axis of the softmax explicitly in the model's code",
    "Transpose": "check the layout (channels first or last) at this place",
    "Cast": "check the conversion between types: casts to integers cut off, they do not round",
    "Resize": "name coordinate transformation and rounding mode explicitly, or resize before the model",
}
_EPSILON = "check that the layer's epsilon is exported; set it explicitly in the model's code"
_GENERAL = (
    "export with another operator set (--opset), the newest exporter, or with the model's eager implementation; look "
    "at the report's plot: a few entries far off point to one operation, all of them slightly off to precision, which "
    "--atol and --rtol allow when you accept it"
)


def advise(
    culprit: Culprit | None,
    axes: Sequence[AxisProof],
    cases: Sequence[Case],
    *,
    optimizer: bool,
    hint: str = "",
) -> str:
    """One or two sentences.

    Args: optimizer: the model is right with the runtime's optimizations off. hint: see `hints.transposed`.
    """
    if optimizer:
        return (
            "the conversion is right and ONNX Runtime's optimizer breaks it: try another version of onnxruntime, or "
            "serve an optimized model of your own; please report it to onnxruntime"
        )
    if hint:
        return f"{hint}; check the layout the exporter was told (channels first or last)"
    if culprit is not None and "swapped" in culprit.sentence:
        return "check the order in which the model returns its outputs and the names given to them (--output-name)"
    if culprit is not None and culprit.operator in _BY_OPERATOR:
        return _BY_OPERATOR[culprit.operator]
    if culprit is not None and "Normalization" in culprit.operator:
        return _EPSILON
    if any(axis.problem for axis in axes):
        return _BY_OPERATOR["graph input"]
    compared = [each for case in cases for each in case.comparisons]
    if any("NaN" in each.problem for each in compared):
        return "one side gives NaN: look for a division or a logarithm of 0 and a dropped epsilon; " + _GENERAL
    return _GENERAL
