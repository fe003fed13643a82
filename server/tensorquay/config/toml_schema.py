"""The shape of config.toml: every table and key, its type and default.

Types and unknown keys are decided here; bounds and contradictions are `rules.py`'s, for both formats alike. Defaults
are those of `model.py`, so that an empty file means the same as none.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_list(value: object) -> object:
    """One `[table]` where several `[[table]]` may stand."""
    return [value] if isinstance(value, dict) else value


def _as_text(value: object) -> object:
    """Runtime options are text; numbers and switches are what people write."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value) if isinstance(value, int) and value.bit_length() <= 64 else value


def _as_share(value: object) -> object:
    """ "0.5%" is 0.005; what is no percentage is left to the type's own check."""
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%", value)):
        return float(found[1]) / 100
    return value


Text: TypeAlias = Annotated[str, Field(max_length=65_536)]
OptionText: TypeAlias = Annotated[str, BeforeValidator(_as_text), Field(max_length=65_536)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class InputTable(_Table):
    """`[[input]]`"""

    name: Text
    datatype: Text | None = None
    dims: list[int] | None = None
    reshape: list[int] | None = None
    optional: bool = False
    format: Literal["none", "nhwc", "nchw"] = "none"


class OutputTable(_Table):
    """`[[output]]`"""

    name: Text
    datatype: Text | None = None
    dims: list[int] | None = None
    reshape: list[int] | None = None
    labels: Text = ""


class VersionsTable(_Table):
    """`[versions]`"""

    policy: Literal["latest", "all", "specific"] = "latest"
    count: int | None = None
    versions: list[int] | None = None


class QueueTable(_Table):
    """`[batching.queue]` and `[batching.priority.N]`"""

    timeout_action: Literal["reject", "delay"] = "reject"
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


class BatchingTable(_Table):
    """`[batching]`"""

    enabled: bool = True
    preferred_batch_sizes: list[int] = []
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    oversize: Literal["split", "refuse"] = "split"
    priority_levels: int = 0
    default_priority_level: int = 0
    queue: QueueTable = QueueTable()
    priority: dict[Annotated[str, Field(pattern=r"^[0-9]{1,20}$")], QueueTable] = {}


class ProviderTable(_Table):
    """`[[execution.provider]]`"""

    name: Text
    options: dict[Text, OptionText] = {}


class ExecutionTable(_Table):
    """`[execution]`"""

    providers: list[Text] | None = None
    provider: Annotated[list[ProviderTable] | None, BeforeValidator(_as_list)] = None
    allow_fallback: bool = False
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    parallel: bool = False
    spinning: bool = False
    memory_arena: bool = True
    memory_pattern: bool = True
    arena_shrinkage: Text = ""
    inline: Literal["auto", "always", "never"] = "auto"
    session_options: dict[Text, OptionText] = {}


class OptimizationTable(_Table):
    """`[optimization]`"""

    background: Literal["never", "stale", "always"] = "never"
    objective: Literal["balanced", "latency", "throughput", "size"] = "balanced"
    max_drop: Annotated[float | None, BeforeValidator(_as_share)] = None
    min_cosine: float | None = None
    metric: Literal["top1", "top5", "f1", "mae", "rmse", "r2"] | None = None
    data: Text = ""
    labels: Text = ""
    time_budget_s: float = 300.0
    batches: list[int] | None = None


class InstancesTable(_Table):
    """`[instances]` or `[[instances]]`"""

    name: Text = ""
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    count: int = 1
    gpus: list[int] = []


class WarmupInputTable(_Table):
    """`[warmup.inputs.NAME]`"""

    datatype: Text
    dims: list[int]
    data: Literal["zero", "random", "file"] = "zero"
    file: Text = ""


class WarmupTable(_Table):
    """`[[warmup]]`"""

    name: Text = ""
    batch_size: int = 1
    count: int = 1
    inputs: dict[Text, WarmupInputTable]


class ConfigTable(_Table):
    """The whole file."""

    name: Text = ""
    max_batch_size: int | None = None
    model_file: Text = ""
    input: Annotated[list[InputTable], BeforeValidator(_as_list)] = []
    output: Annotated[list[OutputTable], BeforeValidator(_as_list)] = []
    versions: VersionsTable | None = None
    batching: BatchingTable | None = None
    execution: ExecutionTable = ExecutionTable()
    optimization: OptimizationTable = OptimizationTable()
    instances: Annotated[list[InstancesTable], BeforeValidator(_as_list)] = []
    warmup: Annotated[list[WarmupTable], BeforeValidator(_as_list)] = []
    parameters: dict[Text, OptionText] = {}
    metric_tags: dict[Text, OptionText] = {}
