"""Run an ONNX model the way a server does: ONNX Runtime on the CPU, its default optimizations; or without them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from onnx import TensorProto

from tensorquay_convert.proof.values import BFLOAT16, bits, is_tensor, texts_in, texts_out, value
from tensorquay_convert.tensors import Array, Arrays

_FAILING_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")
_NOISE = re.compile(r"/\S+?/([\w.]+\.(?:cc|h|cpp)):\d+\s*")
_MAX_TEXT = 400


class RuntimeFailed(Exception):
    """ONNX Runtime did not load or run the model. `node` and `operator`: where, as far as it says; else empty."""

    def __init__(self, sentence: str, *, node: str = "", operator: str = "") -> None:
        self.sentence, self.node, self.operator = sentence, node, operator
        super().__init__(sentence)


class Runtime:
    """One loaded model. Not for several threads."""

    def __init__(self, model: Path | Any, *, folder: Path | None = None, optimized: bool = True) -> None:
        """Load a file, or a `ModelProto` whose external data is in `folder`. Raises: RuntimeFailed."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as exc:
            raise _failed("does not load the model", exc) from exc
        self._types = {each.name: each.type for each in self._session.get_outputs()}
        self._inputs = {each.name: each.type for each in self._session.get_inputs()}
        self._inputs |= {each.name: each.type for each in self._session.get_overridable_initializers()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, in the graph's order."""
        return tuple(self._types)

    def is_bfloat16(self, output: str) -> bool:
        """Whether an output's array holds bfloat16 bits."""
        return bool(self._types[output] == BFLOAT16)

    def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> Arrays:
        """The named outputs (default: all) for those of `inputs` that the model has. Raises: RuntimeFailed.

        Texts are `bytes` in arrays of object, bfloat16 is uint16 bits; values that are no tensors are left out.
        """
        wanted = list(self._types if outputs is None else outputs)
        fed = {name: each for name, each in inputs.items() if name in self._inputs}
        try:
            if BFLOAT16 in {self._types[name] for name in wanted} | {self._inputs[name] for name in fed}:
                given = {name: value(each, self._inputs[name]) for name, each in fed.items()}
                found = [bits(each) for each in self._session.run_with_ort_values(wanted, given)]
            else:
                found = self._session.run(wanted, {name: texts_in(each) for name, each in fed.items()})
        except Exception as exc:
            raise _failed("does not run the model", exc) from exc
        return {name: texts_out(each) for name, each in zip(wanted, found, strict=True) if is_tensor(each)}


def runtime_name() -> str:
    """For the record."""
    return f"onnxruntime {onnxruntime.__version__}, CPU"


def element_type(value: Array, *, bfloat16: bool) -> int:
    """ONNX's number for an array's elements."""
    if bfloat16:
        return int(TensorProto.BFLOAT16)
    kinds = {
        "bool": TensorProto.BOOL, "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
        "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16,
        "uint32": TensorProto.UINT32, "uint64": TensorProto.UINT64, "float16": TensorProto.FLOAT16,
        "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "object": TensorProto.STRING,
    }  # fmt: skip
    return int(kinds[value.dtype.name])


def _failed(what: str, exc: Exception) -> RuntimeFailed:
    text = _NOISE.sub("", " ".join(str(exc).split()))[:_MAX_TEXT]
    found = _FAILING_NODE.search(text)
    return RuntimeFailed(
        f"ONNX Runtime {what}: {text}",
        node="" if found is None else found[2],
        operator="" if found is None else found[1],
    )
