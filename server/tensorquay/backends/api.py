"""The interface a model runtime implements.

A `Backend` reads and loads model files; a `Session` is one loaded model. Native work happens in worker threads, so
both are called off the event loop (only a session measured cheap runs on it), and a session may be called from
several threads at once: immutable arrays in, new arrays out, no shared state.

`tensorquay.testing.check_backend` is the conformance check every backend must pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from tensorquay.config.model import ExecutionConfig, InstanceKind
from tensorquay.core.datatypes import Array
from tensorquay.core.signature import TensorSpec


@dataclass(frozen=True, slots=True)
class GraphSignature:
    """Inputs and outputs as the model file declares them: full shapes, -1 for symbolic or unknown sizes.

    `TensorSpec.axis_names` holds the symbolic names where the file has them; an input with an initialiser of the same
    name is `optional`.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """The truth about what runs where.

    `providers` are those the session really has, in order of preference; `nodes` counts graph nodes per provider
    (empty when the runtime cannot say); `notes` are sentences for people ("cuda was asked for and did not attach …").
    `kind` is where it runs, CPU or GPU; None: where the request said. `file_bytes` is the size of the files the session
    was made from, weights included; 0 when the backend does not tell. `gpu` is the number of the GPU it runs on; None
    on the CPU, or when the backend does not tell.
    """

    providers: tuple[str, ...]
    intra_op_threads: int
    inter_op_threads: int
    nodes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kind: InstanceKind | None = None
    file_bytes: int = 0
    gpu: int | None = None


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load and how. `device_id` is the GPU for KIND_GPU, ignored otherwise.

    `thread_budget` is how many intra-op threads this session may have when the configuration does not say.
    """

    model_path: Path
    execution: ExecutionConfig
    kind: InstanceKind
    device_id: int
    thread_budget: int


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """What decides how a model computes here: the runtime's version, its providers by short name, the first GPU's
    name (empty without one)."""

    version: str
    providers: tuple[str, ...] = ("cpu",)
    gpu: str = ""


@runtime_checkable
class TellsFacts(Protocol):
    """What a `Backend` may have besides: then a model that was optimised for another runtime is noticed."""

    def facts(self) -> RuntimeFacts:
        """The same while the process lives."""
        ...


class Session(Protocol):
    """One loaded model; thread-safe."""

    @property
    def graph(self) -> GraphSignature:
        """What the file declares."""
        ...

    @property
    def placement(self) -> Placement:
        """What runs where."""
        ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the model once.

        Args:
            inputs: by name; arrays of the input's `DataType.numpy` (BF16 as uint16 bits, BYTES as `bytes` objects).
                Optional inputs may be absent.
            outputs: names, in the order wanted.
        Returns: new arrays in that order, in the same representation.
        Raises: InvalidArgument when the runtime says that the input values are at fault; ModelFailed otherwise.
        """
        ...

    def close(self) -> None:
        """Give memory back. Nobody calls `run` after or during it."""
        ...


class Backend(Protocol):
    """A runtime."""

    @property
    def name(self) -> str:
        """What configurations call it ("onnxruntime")."""
        ...

    @property
    def gpus(self) -> tuple[int, ...]:
        """Numbers of the GPUs this runtime can use here; empty when it runs on the CPU only."""
        ...

    @property
    def no_gpu_because(self) -> str:
        """Why `gpus` is empty and what to do about it, as a clause for people; empty when there are GPUs."""
        ...

    def inspect(self, model_path: Path) -> GraphSignature:
        """The file's signature, without making a session.

        Raises: ModelFailed saying what is wrong with the file (corrupt, external data outside its folder, …).
        """
        ...

    def load(self, request: LoadRequest) -> Session:
        """Make a session. Blocking; may take seconds.

        Raises: ModelFailed with cause and remedy; nothing stays allocated.
        """
        ...
