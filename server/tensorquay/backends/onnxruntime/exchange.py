"""BF16 and BYTES across ONNX Runtime's Python binding, exactly.

numpy has no bfloat16, and the binding takes and gives strings as `str`: bytes that are not UTF-8 raise, and `bytes`
objects become the text "b'…'". So:

* BF16 travels as the raw 16 bits in an `OrtValue`, and is copied back from its memory.
* BYTES that are UTF-8 (NULs included) travel as `str`. Others are put into a constant of a tiny model, whose output
  is an `OrtValue` holding exactly those bytes; results that are not UTF-8 are read from the tensor's own
  `std::string` objects, after their layout was proven on known strings. Where it cannot be proven, such bytes are
  refused by name instead of damaged.

Thread-safe: no state but the proof, which is immutable.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from types import ModuleType
from typing import Any

import numpy as np

from tensorquay.backends.onnxruntime.graph import BFLOAT16
from tensorquay.backends.onnxruntime.runtime import import_onnx
from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument, ModelFailed

_STRING = 8
_CPU_NAME = "cpu"
_WORDS = 4
"""64-bit words of one std::string in libstdc++: pointer, length, and 16 bytes of short text or the capacity."""

_SHORT_TEXT_OFFSET = 16
_PROOF = (b"", b"x", b"a\x00\xff", b"fifteen-bytes!!", b"longer than the short string buffer \x00\xfe", b"\x80" * 4096)
_MAX_ELEMENT_BYTES = 2**31 - 1


class Exchange:
    """Converts between our arrays and `OrtValue`s for one runtime module."""

    def __init__(self, runtime: ModuleType) -> None:
        self._runtime = runtime
        self._raw_strings = self._prove_layout()

    @property
    def any_bytes(self) -> bool:
        """Whether BYTES that are not UTF-8 can pass."""
        return self._raw_strings

    def bf16_value(self, bits: Array) -> Any:
        """An `OrtValue` of bfloat16 over `bits` (uint16, C-contiguous, aligned); keeps them alive."""
        return self._runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BFLOAT16)

    def plain_value(self, array: Array) -> Any:
        """An `OrtValue` over a numeric array; keeps it alive."""
        return self._runtime.OrtValue.ortvalue_from_numpy(array)

    def text_or_value(self, name: str, array: Array) -> Any:
        """BYTES elements for the runtime: an object array of `str` when all are UTF-8, else an `OrtValue`.

        Raises: InvalidArgument naming the element when such bytes cannot pass here.
        """
        items = array.ravel().tolist()
        text = np.empty(len(items), np.object_)
        try:
            text[:] = [item.decode() for item in items]
        except UnicodeDecodeError as exc:
            if not self._raw_strings:
                index = next(index for index, item in enumerate(items) if not _is_utf8(item))
                raise InvalidArgument(
                    f"input '{name}': element {index} is not valid UTF-8, and this platform's ONNX Runtime takes no "
                    "other bytes",
                    facts={"input": name, "element": index},
                ) from exc
            return self.string_value(array)
        return text.reshape(array.shape)

    def string_value(self, array: Array) -> Any:
        """An `OrtValue` of strings holding exactly the `bytes` of `array`.

        Costs a session of its own, about 0.4 ms: only for bytes that are not UTF-8, and where no array is accepted.
        """
        items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
        return self._constant(items, array.shape)

    def to_array(self, name: str, datatype: DataType, value: Any) -> Array:
        """A new array from output `name`.

        Raises: ModelFailed when its bytes cannot be read here.
        """
        if datatype is DataType.BF16:
            return self._bf16_array(name, value)
        if datatype is not DataType.BYTES:
            return np.array(value.numpy())
        try:
            return bytes_array(value.numpy())
        except UnicodeDecodeError as exc:
            if not self._raw_strings:
                raise ModelFailed(
                    f"output '{name}' holds bytes that are not UTF-8, which this platform's ONNX Runtime cannot give"
                ) from exc
        return self._read_strings(name, value)

    def _bf16_array(self, name: str, value: Any) -> Array:
        _require_cpu(name, value)
        bits = np.empty(tuple(value.shape()), np.uint16)
        if bits.size:
            ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
        return bits

    def _read_strings(self, name: str, value: Any) -> Array:
        _require_cpu(name, value)
        shape = tuple(value.shape())
        items = np.empty(int(np.prod(shape, dtype=np.int64)), np.object_)
        for index, (pointer, length) in enumerate(_string_fields(value, items.size)):
            if length > _MAX_ELEMENT_BYTES:
                raise ModelFailed(f"output '{name}': element {index} has {length} bytes, more than can be answered")
            items[index] = ctypes.string_at(pointer, length)
        return items.reshape(shape)

    def _constant(self, items: list[bytes], shape: tuple[int, ...]) -> Any:
        """An `OrtValue` of strings, made by a model whose only output is a constant holding them."""
        onnx = import_onnx()
        tensor = onnx.TensorProto(name="bytes", data_type=_STRING, dims=shape, string_data=items)
        helper = onnx.helper
        graph = helper.make_graph(
            # Copied out by a node: an output that is the initialiser itself would share memory with the session.
            [helper.make_node("Identity", ["bytes"], ["out"])],
            "constant",
            [],
            [helper.make_tensor_value_info("out", _STRING, list(shape))],
            [tensor],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = self._runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        return session.run_with_ort_values(["out"], {})[0]

    def _prove_layout(self) -> bool:
        """Whether string tensors are arrays of libstdc++'s std::string that we can read.

        Safe on any layout: the short string's pointer is compared with where it must point before anything is
        followed.
        """
        if struct.calcsize("P") != 8 or sys.platform != "linux":
            return False
        try:
            value = self._constant(list(_PROOF), (len(_PROOF),))
            base = int(value.data_ptr())
            if value.tensor_size_in_bytes() != len(_PROOF) * _WORDS * 8:
                return False
            fields = _string_fields(value, len(_PROOF))
        except Exception:  # noqa: BLE001 - whatever a foreign runtime lacks or refuses, nothing was proven
            return False
        for index, ((pointer, length), text) in enumerate(zip(fields, _PROOF, strict=True)):
            own = base + index * _WORDS * 8 + _SHORT_TEXT_OFFSET
            if length != len(text) or (len(text) < 16) != (pointer == own):
                return False
        return all(ctypes.string_at(p, n) == text for (p, n), text in zip(fields, _PROOF, strict=True))


def bytes_array(text: Array) -> Array:
    """An object array of `bytes` from one of `str`, same shape."""
    items = np.empty(text.size, np.object_)
    items[:] = [item.encode() for item in text.ravel().tolist()]
    return items.reshape(text.shape)


def _string_fields(value: Any, count: int) -> list[tuple[int, int]]:
    """(pointer, length) of each of the tensor's `count` strings; follows none of them."""
    if count == 0:
        return []
    words = np.empty((count, _WORDS), np.uint64)
    ctypes.memmove(words.ctypes.data, value.data_ptr(), words.nbytes)
    return [(int(pointer), int(length)) for pointer, length in words[:, :2].tolist()]


def _require_cpu(name: str, value: Any) -> None:
    if value.device_name().lower() != _CPU_NAME:
        raise ModelFailed(f"output '{name}' was left on {value.device_name()} by ONNX Runtime, expected it on the CPU")


def _is_utf8(item: bytes) -> bool:
    try:
        item.decode()
    except UnicodeDecodeError:
        return False
    return True
