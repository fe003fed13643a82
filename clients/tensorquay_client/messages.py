"""What goes into a prediction and what comes out, and the other answers of the server, as values.

Knows neither HTTP nor gRPC; the two codecs turn these into bytes and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tensorquay_client.errors import InvalidArgument
from tensorquay_client.tensors import Array, Tensor, TensorLike, as_tensor

Parameter: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One prediction as it will be sent.

    `outputs` None: all of them. `classification` maps an output's name to how many classes to return for it.
    """

    model: str
    inputs: Mapping[str, Tensor]
    version: str = ""
    outputs: tuple[str, ...] | None = None
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    classification: Mapping[str, int] = field(default_factory=dict)


def infer_request(
    model: str,
    inputs: Mapping[str, TensorLike],
    *,
    version: int | str | None = None,
    outputs: Sequence[str] | None = None,
    id: str | None = None,  # noqa: A002 - the protocol's own word
    parameters: Mapping[str, Parameter] | None = None,
    priority: int = 0,
    classification: Mapping[str, int] | None = None,
) -> InferRequest:
    """Check and collect the arguments of `infer` (`api.Client.infer` describes them).

    Classified outputs are requested too; without `outputs` they are then the only ones.
    Raises: InvalidArgument naming the argument that cannot be sent.
    """
    classified = dict(classification or {})
    for name, count in classified.items():
        if type(count) is not int or count < 1:
            raise InvalidArgument(f"classification of output '{name}': expected a number of classes ≥ 1, got {count!r}")
    named = None if outputs is None and not classified else tuple(dict.fromkeys([*(outputs or ()), *classified]))
    sent = dict(parameters or {})
    for key, value in sent.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidArgument(f"parameter '{key}': expected bool, int, float or str, got {type(value).__name__}")
    if type(priority) is not int or not 0 <= priority < 2**64:
        raise InvalidArgument(f"priority: expected an integer from 0 to 2^64 - 1, got {priority!r}")
    if priority:
        sent["priority"] = priority
    tensors = {}
    for name, given in inputs.items():
        try:
            tensors[name] = as_tensor(given)
        except InvalidArgument as exc:
            raise InvalidArgument(f"input '{name}': {exc.message}") from exc
    return InferRequest(model, tensors, version_text(version), named, id or "", sent, classified)


def version_text(version: int | str | None) -> str:
    """A version as the wire has it; "" leaves the choice to the server's version policy."""
    return "" if version is None else str(version)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One line of a classification: the value, the index of its class, and the class's label ("" without labels)."""

    value: float
    index: int
    label: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class InferResult:
    """A prediction's answer. Arrays are read-only (`.copy()` one to write into it); BYTES are object arrays of bytes.

    Attributes:
        outputs: name → array, batch axis included.
        datatypes: name → wire type ("FP32").
        id: as sent, or "".
    """

    model_name: str
    model_version: str
    outputs: Mapping[str, Array]
    datatypes: Mapping[str, str]
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"no output '{name}' in the answer, which has {', '.join(self.outputs) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __contains__(self, name: object) -> bool:
        return name in self.outputs

    def __len__(self) -> int:
        return len(self.outputs)

    def classes(self, name: str) -> list[list[ClassScore]]:
        """The classification asked for output `name`: one list per row, best first.

        Raises: KeyError without such an output; InvalidArgument if it was not asked for as a classification.
        """
        array = self[name]
        rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
        return [[_class_score(name, item) for item in row] for row in rows]

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {self.datatypes[name]} {list(a.shape)}" for name, a in self.outputs.items())
        return f"InferResult({self.model_name} version {self.model_version}; {outputs})"


def _class_score(name: str, item: object) -> ClassScore:
    try:
        assert isinstance(item, bytes)
        value, index, *label = item.decode().split(":", 2)
        return ClassScore(float(value), int(index), label[0] if label else "")
    except (AssertionError, ValueError) as exc:
        raise InvalidArgument(
            f"output '{name}' is no classification: ask for one with classification={{'{name}': 3}}"
        ) from exc


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """What the server calls itself and which protocol extensions it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """An input or output of a model; -1 in `shape` is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's versions being served, and its inputs and outputs with the batch axis."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """A version in the server's repository index; without version and state it was never loaded."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""
