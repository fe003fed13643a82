"""One import as a value: everything the user asked for, sent to the worker as JSON and kept in the provenance.

Settings of the process that runs it (interpreter, limits, output) are not here: they do not change the result.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


class SourceKind(enum.Enum):
    """What a source can be. The value is what `--kind` takes and what is shown."""

    TORCH_EXPORT = "pt2"
    TORCHSCRIPT = "torchscript"
    TORCH_FACTORY = "torch-factory"
    HUGGING_FACE = "huggingface"
    SAVED_MODEL = "savedmodel"
    KERAS = "keras"
    GRAPH_DEF = "graphdef"
    TFLITE = "tflite"
    JAX_FACTORY = "jax-factory"
    SKOPS = "skops"
    PICKLE = "pickle"
    """A pickled or joblib-dumped estimator: code that runs when it is read; only with trust."""
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class DynamicAxis:
    """`--dynamic 'input_ids:1=seq'`: axis 1 of input `input_ids` is dynamic and called `seq`."""

    tensor: str
    axis: int
    name: str


@dataclass(frozen=True, slots=True)
class DeclaredInput:
    """`--input 'image:float32[batch,3,224,224]'`, for sources that do not tell. Axes as in `tensors.Axis`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an output may be off: |got - expected| <= atol + rtol * |expected|, and what else has to hold.

    None: the default of the output's dtype (`proof.tolerances`).
    """

    atol: float | None = None
    rtol: float | None = None
    min_cosine: float | None = None
    min_top1: float | None = None


@dataclass(frozen=True, slots=True)
class ImportJob:
    """What to import and how.

    Args:
        source: a path, or `file.py:factory` / `package.module:factory`.
        kind: None: find out.
        weights: for factories: safetensors, or a state dict that `weights_only` can read.
        examples: files with inputs the proof runs as well (npz, npy, json, images).
        outputs: names to keep, in order; empty: all.
        signature: of a SavedModel; empty: "serving_default", or the only one.
        opset: None: the exporter's own.
        max_batch: the largest batch the proof runs.
        static: keep every axis as it is, the batch too.
        trust_pickle: may run the code inside a pickle.
    """

    source: str
    kind: SourceKind | None = None
    weights: str | None = None
    inputs: tuple[DeclaredInput, ...] = ()
    outputs: tuple[str, ...] = ()
    dynamic: tuple[DynamicAxis, ...] = ()
    static: bool = False
    examples: tuple[str, ...] = ()
    signature: str = ""
    opset: int | None = None
    max_batch: int = 32
    tolerance: Tolerance = Tolerance()
    seed: int = 0
    trust_pickle: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = asdict(self)
        plain["kind"] = None if self.kind is None else self.kind.value
        return plain

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> ImportJob:
        """The job `to_json` wrote. Raises: TypeError, KeyError or ValueError for anything else: that is our bug."""
        unknown = plain.keys() - {field.name for field in fields(ImportJob)}
        if unknown:
            raise ValueError(f"unknown settings of an import: {', '.join(sorted(unknown))}")
        given = dict(plain)
        given["kind"] = None if plain.get("kind") is None else SourceKind(plain["kind"])
        given["inputs"] = tuple(
            DeclaredInput(each["name"], each["dtype"], tuple(each["shape"])) for each in plain.get("inputs", ())
        )
        given["dynamic"] = tuple(DynamicAxis(**each) for each in plain.get("dynamic", ()))
        given["tolerance"] = Tolerance(**plain.get("tolerance", {}))
        for name in ("outputs", "examples"):
            given[name] = tuple(plain.get(name, ()))
        return ImportJob(**given)
