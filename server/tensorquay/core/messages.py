"""What the front ends ask of the engine and what it answers: plain values, no protocol, no runtime.

Every front end decodes to these and encodes from these, so an answer cannot depend on the door it came through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.packed import Ride
from tensorquay.core.signature import TensorSpec
from tensorquay.core.tensors import Tensor

Layout: TypeAlias = tuple[tuple[str, DataType, tuple[int, ...]], ...]
"""Name, type and shape of every input of a request, as one object that is the same for all requests like it."""

Parameter: TypeAlias = bool | int | float | str
"""A value a client may attach to a request, an input or an output."""

NO_PARAMETERS: Mapping[str, Parameter] = MappingProxyType({})
"""What most requests and answers carry."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output the client asks for.

    `classification` > 0 replaces the tensor by its k best entries as "<value>:<index>[:<label>]" (V2 extension).
    """

    name: str
    classification: int = 0


@dataclass(slots=True)
class InferRequest:
    """One prediction call, decoded.

    Mutable only so that a decoder may build it piece by piece; nobody writes after it was handed to the engine.
    `outputs` None means all. `deadline_ns` is absolute, on the server's monotonic clock; `timeout_us` is the longest
    time in the queue the client allows (V2 schedule policy), 0 for none.
    """

    model_name: str
    model_version: str
    id: str
    inputs: Sequence[Tensor]
    outputs: list[RequestedOutput] | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    timeout_us: int = 0
    arrival_ns: int = 0
    deadline_ns: int | None = None
    layout: Layout | None = None
    """Set by a decoder that knows it: what was found out about one request then holds for the next."""


# NOTE(frozen): values made for every request are not frozen: a frozen dataclass takes three times as long to make.
@dataclass(slots=True)
class Timings:
    """Where the time of one answer went, in nanoseconds; the batch it rode in, and how many of its rows are its own."""

    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    batch_rows: int
    rows: int = 0


@dataclass(slots=True)
class InferResponse:
    """One answer. `outputs` are in the order asked for, or the model's own."""

    model_name: str
    model_version: str
    id: str
    outputs: Sequence[Tensor]
    timings: Timings | Ride
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


Reply: TypeAlias = Callable[[InferResponse | ServingError], None]
"""Called exactly once per accepted request, on the event loop; must not raise."""


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """`GET /v2`."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """`GET /v2/models/{m}`; shapes include the batch axis as -1."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: Mapping[str, str] = field(default_factory=dict)
    """Ours: provider, threads, why it does not batch … (the OIP's `properties`)."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; `version` and `state` are empty for a model that was never loaded."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Duration:
    """A cumulative count and time."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Cumulative cost of the runs that had one particular number of rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory a version holds. `type` is CPU, CPU_PINNED or GPU; `id` the device's number."""

    type: str
    id: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """The statistics extension's answer for one version (exact field names: docs/protocol.md)."""

    name: str
    version: str
    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()
    batch_stats: tuple[BatchStatistics, ...] = ()
    memory_usage: tuple[MemoryUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedMemoryRegion:
    """A registered system shared-memory region, in bytes."""

    name: str
    key: str
    offset: int
    byte_size: int
