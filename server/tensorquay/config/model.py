"""The configuration of one model: one frozen value, whichever file it was written in.

`None` means "not said": the effective value then comes from the graph or from a default (`effective.py`). Model
settings come from files and load requests only, never from the environment: one variable must not change every model.
Source of the meanings: Triton's model configuration, which users already have (docs/configuration.md).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tensorquay.core.datatypes import DataType


@dataclass(frozen=True, slots=True)
class LatestVersions:
    """Serve the `count` highest versions."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class AllVersions:
    """Serve every version there is."""


@dataclass(frozen=True, slots=True)
class SpecificVersions:
    """Serve exactly these versions."""

    versions: tuple[int, ...]


VersionPolicy: TypeAlias = LatestVersions | AllVersions | SpecificVersions


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One declared input or output. `dims` excludes the batch axis when the model batches (Triton's rule).

    `datatype` and `dims` are None where a file leaves them to the graph; never in an `EffectiveConfig`.
    `reshape` is the model's own shape, likewise without the batch axis. `labels_file` is relative to the model's
    folder and may not leave it (outputs only).
    """

    name: str
    datatype: DataType | None = None
    dims: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    labels_file: str = ""
    format: str = "FORMAT_NONE"


class TimeoutAction(enum.Enum):
    """What happens to a request that waited too long."""

    REJECT = "REJECT"
    DELAY = "DELAY"
    """Run it after all that have not timed out."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Limits of one queue. `default_timeout_us` 0: no timeout. `max_queue_size` 0: only the server's own bound."""

    timeout_action: TimeoutAction = TimeoutAction.REJECT
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


class Oversize(enum.Enum):
    """What happens to a request with more rows than `max_batch_size`."""

    SPLIT = "split"
    REFUSE = "refuse"
    """Triton's behaviour."""


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How waiting requests become batches.

    `enabled` False: every request is a run of its own (Triton's meaning of a config without `dynamic_batching`).
    """

    enabled: bool = True
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    priority_queue_policies: Mapping[int, QueuePolicy] = field(default_factory=dict)
    oversize: Oversize = Oversize.SPLIT


class InstanceKind(enum.Enum):
    """Where instances run. AUTO: the GPU if the runtime has one, else the CPU."""

    AUTO = "KIND_AUTO"
    CPU = "KIND_CPU"
    GPU = "KIND_GPU"


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """`count` instances of the model, per GPU when on GPUs."""

    kind: InstanceKind = InstanceKind.AUTO
    count: int = 1
    gpus: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """An execution provider by short name (cpu, cuda, tensorrt, openvino) and its options, passed through."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


class InlineRun(enum.Enum):
    """Whether a model runs on the event loop instead of a worker thread."""

    AUTO = "auto"
    """Only when measured cheap at load."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """How the runtime executes the model. None or 0 leaves the choice to the server (thread budget) or the runtime.

    `allow_fallback` False: a provider that does not attach fails the load. `graph_optimization` is one of
    disabled, basic, extended, all. `insists` names those of `ADVISABLE` that the file sets to what they are anyway:
    then what an `optimization.json` advises does not replace them.
    """

    providers: tuple[ProviderConfig, ...] = ()
    allow_fallback: bool = False
    graph_optimization: str = "all"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    parallel: bool = False
    spinning: bool = False
    memory_arena: bool = True
    memory_pattern: bool = True
    arena_shrinkage: str = ""
    inline: InlineRun = InlineRun.AUTO
    session_options: Mapping[str, str] = field(default_factory=dict)
    insists: frozenset[str] = frozenset()


ADVISABLE = frozenset({"graph_optimization", "intra_op_threads", "inter_op_threads", "parallel", "spinning"})
"""Fields of `ExecutionConfig`, besides providers and session options, that an optimisation advises on."""


class BackgroundOptimization(enum.Enum):
    """Whether the server optimises a model by itself, beside serving it."""

    NEVER = "never"
    STALE = "stale"
    """Only a version that was optimised, on another machine than this one."""
    ALWAYS = "always"
    """Also one that was never optimised."""


@dataclass(frozen=True, slots=True)
class OptimizationConfig:
    """What a background optimisation may do and must keep; None or empty leaves it to `tensorquay optimize`.

    `max_drop` is a share. `data` and `labels` are relative to the model's folder and may not leave it.
    """

    background: BackgroundOptimization = BackgroundOptimization.NEVER
    objective: str = "balanced"
    max_drop: float | None = None
    min_cosine: float | None = None
    metric: str = ""
    data: str = ""
    labels: str = ""
    time_budget_s: float = 300.0
    batches: tuple[int, ...] = ()


class WarmupData(enum.Enum):
    """Where a warm-up input's values come from."""

    ZERO = "zero"
    RANDOM = "random"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input of a warm-up sample; `file` is relative to the model's `warmup/` folder. `dims` without batch axis."""

    datatype: DataType
    dims: tuple[int, ...]
    data: WarmupData
    file: str = ""


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """Runs made before a version is READY. `count` 0 means once (Triton)."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmupInput]
    count: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything a file or a load request says about one model; what it leaves out is None or empty.

    `source` names the file ("config.pbtxt", "config.toml", "load request") for error texts and `tensorquay check`.
    `parameters` are those that nothing of ours reads; `notes` say what was accepted without effect. `text` is what the
    file holds, for the line of what turns out to be wrong later; another text with the same meaning is no other value.
    """

    name: str = ""
    platform: str = ""
    backend: str = ""
    default_model_filename: str = ""
    max_batch_size: int | None = None
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    version_policy: VersionPolicy | None = None
    instance_groups: tuple[InstanceGroup, ...] = ()
    batching: BatchingConfig | None = None
    execution: ExecutionConfig = ExecutionConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    warmup: tuple[WarmupSample, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    metric_tags: Mapping[str, str] = field(default_factory=dict)
    source: str = "defaults"
    notes: tuple[str, ...] = ()
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """A `ModelConfig` with nothing left open, and where each value came from.

    `origins` maps dotted names ("max_batch_size", "input[0].dims") to "config.pbtxt", "config.toml", "graph",
    "default", "load request" or "optimization.json".
    """

    config: ModelConfig
    origins: Mapping[str, str]
    unbatched_because: str = ""

    @property
    def max_batch_size(self) -> int:
        """Never None here."""
        return self.config.max_batch_size or 0
