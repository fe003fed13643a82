"""How far an output may be from its source's, by what its numbers are made of.

An entry is right when |got - expected| <= atol + rtol * |expected|. The default `atol` is a share of the output's
largest entry: a logit among thousands carries the rounding of sums over thousands, while a probability of 1e-3 has to
be right to parts of 1e-3. So both are judged by what their arithmetic can do, at every scale.

The shares come from measurements of good conversions (TensorFlow, PyTorch, JAX and scikit-learn against ONNX Runtime,
docs/import.md): float32 outputs were off by 2e-8 to 2.5e-5, the most a ResNet-50. Faults that matter change
some entry by far more than 1e-4 of it. Half precision rounds at 2**-11 and bfloat16 at 2**-8, once per operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tensorquay_convert.job import SourceKind, Tolerance
from tensorquay_convert.tensors import Array

MOST_SENSITIVE = 100.0
"""The defaults are widened by at most this factor where the source itself is that sensitive (`sensitivity.py`)."""


@dataclass(frozen=True, slots=True)
class Default:
    """`share`: atol as a share of the output's largest entry. `floor`: the least atol. `why`: for people."""

    share: float
    rtol: float
    floor: float
    why: str


EXACT = Default(0.0, 0.0, 0.0, "compared exactly")
DEFAULTS: Mapping[str, Default] = {
    "float64": Default(1e-7, 1e-7, 1e-12, "one constant kept in single precision is 6e-8 off"),
    "float32": Default(1e-4, 1e-4, 1e-9, "sums in another order; good conversions stay below 3e-5"),
    "float16": Default(5e-3, 5e-3, 1e-6, "ten roundings of 2**-11"),
    "bfloat16": Default(4e-2, 4e-2, 1e-6, "ten roundings of 2**-8"),
}
QUANTIZED = Default(2e-3, 2e-3, 1e-9, "the source rounds to 8 bits inside, which the ONNX model need not")
"""TFLite: an integer model's steps are 1/256 of each tensor's range; a float one is far better."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one output is judged by."""

    atol: float
    rtol: float
    min_cosine: float | None = None
    min_top1: float | None = None

    def bound(self, expected: Array) -> Array:
        """The largest error allowed at each entry, float64; `expected` is finite."""
        return self.atol + self.rtol * np.abs(expected)


def allowed(
    dtype: str,
    expected: Array,
    wanted: Tolerance = Tolerance(),  # noqa: B008 - a frozen value
    *,
    kind: SourceKind | None = None,
    widened: float = 1.0,
) -> Allowed:
    """The tolerance for one output of one case.

    Args:
        expected: the source's values as float64; what is not finite does not count towards the scale.
        wanted: the user's; each number that is given replaces the default, for exact dtypes too.
        widened: how often the default, for a source that is sensitive at this place. The user's numbers stay.
    """
    default = DEFAULTS.get(dtype, EXACT)
    if kind is SourceKind.TFLITE and dtype == "float32":
        default = QUANTIZED
    finite = np.abs(expected[np.isfinite(expected)]) if expected.size else expected
    scale = float(finite.max()) if finite.size else 0.0
    factor = min(max(1.0, widened), MOST_SENSITIVE)
    atol = max(default.floor, default.share * scale) * factor
    return Allowed(
        atol=atol if wanted.atol is None else wanted.atol,
        rtol=default.rtol * factor if wanted.rtol is None else wanted.rtol,
        min_cosine=wanted.min_cosine,
        min_top1=wanted.min_top1,
    )
