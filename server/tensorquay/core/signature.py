"""What a version takes and gives, and whether a request fits it.

Pure. The checks are Triton's, in Triton's words where its users search for them (docs/protocol.md, "Errors"); what
differs is that every text also names expected and got.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.core.packed import PackedTensors, Part
from tensorquay.core.tensors import Tensor

ShapeKey: TypeAlias = tuple[tuple[int, ...] | None, ...]
"""Per input, the shape without its batch axis (None when an optional input is absent). Equal keys may share a batch."""

_MAX_LAYOUTS = 256

_BATCH_NOTE = (
    " NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape; send [batch, ...], or set max_batch_size to 0 to give full shapes."
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    `shape` is the wire shape: -1 for any size, batch axis included when the signature batches. `reshape`, when set,
    is the shape the model itself takes, without the batch axis (config `reshape`).
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    optional: bool = False
    reshape: tuple[int, ...] | None = None
    axis_names: tuple[str | None, ...] = ()
    labels: tuple[str, ...] = ()


Checked: TypeAlias = tuple[Sequence[Part | None], int, ShapeKey, int]
"""A request that fits: its tensors in the signature's input order (None: optional, not sent), its rows, the key of
those who may share a batch with it, and the bytes of its tensors."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of one version.

    `max_batch_size` 0: axis 0 is not a batch, requests run one by one; `unbatched_because` then says why.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    unbatched_because: str = ""
    _input_index: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _output_index: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _known: dict[int, tuple[object, tuple[int, ...] | None, int, ShapeKey, int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    output_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    reshapes_outputs: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_input_index", {spec.name: i for i, spec in enumerate(self.inputs)})
        object.__setattr__(self, "_output_index", {spec.name: i for i, spec in enumerate(self.outputs)})
        object.__setattr__(self, "output_names", tuple(spec.name for spec in self.outputs))
        object.__setattr__(self, "reshapes_outputs", any(spec.reshape is not None for spec in self.outputs))

    @property
    def batches(self) -> bool:
        """Whether axis 0 of every input and output is a batch."""
        return self.max_batch_size > 0

    def output_index(self, name: str) -> int:
        """Position of output `name`.

        Raises: InvalidArgument naming the outputs there are.
        """
        found = self._output_index.get(name)
        if found is None:
            raise InvalidArgument(
                f"unexpected inference output '{name}' for model '{self.model}', it has {_names(self.outputs)}",
                facts={"output": name, "expected": [spec.name for spec in self.outputs]},
            )
        return found

    def check(self, inputs: Sequence[Tensor], layout: object = None) -> Checked:
        """`inputs` matched to the signature.

        Args: layout: an object that stands for the names, types and shapes of `inputs`; when it comes again, what was
            found out about it is used again.
        Raises: InvalidArgument for an unknown, repeated or missing input, a wrong data type, rank or size, or inputs
        that disagree on the batch. The row limit is not checked here: the batcher may split (docs/batching.md).
        """
        if layout is not None:
            known = self._known.get(id(layout))
            # The object itself is kept beside its id, so that no other can have that id meanwhile.
            if known is not None and known[0] is layout:
                _, order, rows, shape_key, byte_size = known
                parts: Sequence[Part | None]
                parts = inputs.parts if type(inputs) is PackedTensors else [tensor.array for tensor in inputs]
                if order is not None:
                    parts = [None if number < 0 else parts[number] for number in order]
                return parts, rows, shape_key, byte_size
        checked = self._check(inputs)
        if layout is not None and not any(spec.reshape is not None for spec in self.inputs):
            self._remember(layout, inputs, checked)
        return checked

    def _remember(self, layout: object, inputs: Sequence[Tensor], checked: Checked) -> None:
        if any(tensor.datatype is DataType.BYTES for tensor in inputs):
            return  # their size is another in every request
        if len(self._known) >= _MAX_LAYOUTS:
            self._known.clear()
        order = [-1] * len(self.inputs)
        for number, tensor in enumerate(inputs):
            order[self._input_index[tensor.name]] = number
        in_order = order == list(range(len(order)))
        self._known[id(layout)] = layout, None if in_order else tuple(order), *checked[1:]

    def _check(self, inputs: Sequence[Tensor]) -> Checked:
        arrays: list[Array | None] = [None] * len(self.inputs)
        key: list[tuple[int, ...] | None] = [None] * len(self.inputs)
        rows = -1
        byte_size = 0
        for tensor in inputs:
            position = self._input_index.get(tensor.name)
            if position is None:
                raise InvalidArgument(
                    f"unexpected inference input '{tensor.name}' for model '{self.model}', "
                    f"it has {_names(self.inputs)}",
                    facts={"input": tensor.name, "expected": [spec.name for spec in self.inputs]},
                )
            if arrays[position] is not None:
                raise InvalidArgument(f"input '{tensor.name}' already exists in request for model '{self.model}'")
            spec = self.inputs[position]
            if tensor.datatype is not spec.datatype:
                raise InvalidArgument(
                    f"inference input '{spec.name}' data-type is '{tensor.datatype.wire}', "
                    f"but model '{self.model}' expects '{spec.datatype.wire}'",
                    facts={"input": spec.name, "expected": spec.datatype.wire, "got": tensor.datatype.wire},
                )
            array = tensor.array
            shape = array.shape
            if not _fits(shape, spec.shape):
                raise self._wrong_shape(spec, shape)
            if self.max_batch_size > 0:
                if rows < 0:
                    rows = shape[0]
                elif rows != shape[0]:
                    raise InvalidArgument(
                        f"input '{spec.name}' batch size does not match other inputs for '{self.model}': "
                        f"expected {rows}, got {shape[0]}",
                        facts={"input": spec.name, "expected": rows, "got": shape[0]},
                    )
                shape = shape[1:]
            if spec.reshape is not None:
                shape = _reshaped(spec, shape)
                array = array.reshape((rows, *shape) if self.max_batch_size > 0 else shape)
            arrays[position] = array
            key[position] = shape
            byte_size += tensor.byte_size
        if len(inputs) != len(self.inputs):
            self._refuse_missing(arrays, len(inputs))
        return tuple(arrays), max(rows, 0) if self.max_batch_size > 0 else 1, tuple(key), byte_size

    def output_to_wire(self, position: int, array: Array) -> Array:
        """Output `position` as the model gave it (batch axis included), in the shape the wire promises.

        Raises: ModelFailed when a configured `reshape` does not fit what the model returned.
        """
        spec = self.outputs[position]
        if spec.reshape is None:
            return array
        lead = array.shape[:1] if self.max_batch_size > 0 else ()
        own = array.shape[len(lead) :]
        if not _fits(own, spec.reshape):
            raise ModelFailed(
                f"output '{spec.name}' of model '{self.model}' has shape {_text(own)}, "
                f"its configured reshape is {_text(spec.reshape)}"
            )
        variable = iter([got for got, want in zip(own, spec.reshape, strict=True) if want == -1])
        wire = spec.shape[len(lead) :]
        return array.reshape(lead + tuple(next(variable) if size == -1 else size for size in wire))

    def _refuse_missing(self, arrays: Sequence[Array | None], sent: int) -> None:
        missing = [
            spec.name for spec, array in zip(self.inputs, arrays, strict=True) if array is None and not spec.optional
        ]
        if missing:
            given = [spec.name for spec, array in zip(self.inputs, arrays, strict=True) if array is not None]
            raise InvalidArgument(
                f"expected {len(self.inputs)} inputs but got {sent} inputs for model '{self.model}'. "
                f"Got input(s) {given}, but missing required input(s) {missing}.",
                facts={"expected": [spec.name for spec in self.inputs], "got": given},
            )
        if sent == 0 and self.max_batch_size > 0:
            # All inputs optional and none sent: nothing tells the batch.
            raise InvalidArgument(f"a request to model '{self.model}' must carry at least one input to tell its batch")

    def _wrong_shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> InvalidArgument:
        note = _BATCH_NOTE if self.max_batch_size > 0 and len(shape) != len(spec.shape) else ""
        return InvalidArgument(
            f"unexpected shape for input '{spec.name}' for model '{self.model}'. "
            f"Expected {_text(spec.shape)}, got {_text(shape)}.{note}",
            facts={"input": spec.name, "expected": list(spec.shape), "got": list(shape)},
        )


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    return all(want in (got, -1) for got, want in zip(shape, expected, strict=True))


def _reshaped(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The model's own shape for a wire shape: the variable sizes of `dims` fill those of `reshape`, in order."""
    assert spec.reshape is not None
    wire = spec.shape[len(spec.shape) - len(shape) :]
    variable = iter([got for got, want in zip(shape, wire, strict=True) if want == -1])
    return tuple(next(variable) if size == -1 else size for size in spec.reshape)


def _text(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs[:12]) + (", …" if len(specs) > 12 else "")
