"""How a model is executed and optimised, as config.toml spells it: `[execution]`, `[optimization]` and their texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tensorquay.config.rules import MAX_OPTIMIZATION_BATCHES, MAX_OPTIMIZATION_ROWS, MAX_OPTIMIZATION_S, MAX_THREADS
from tensorquay.config.toml_key import Key
from tensorquay.config.toml_values import OptionText, Table, Text, as_list, as_share


class ProviderTable(Table):
    """`[[execution.provider]]`"""

    name: Annotated[
        Text,
        Key(
            "An execution provider: `tensorrt`, `cuda`, `openvino`, `cpu`, or the runtime's own name.",
            example='"cuda"',
            pbtxt="optimization.execution_accelerators",
        ),
    ]
    options: Annotated[
        dict[Text, OptionText],
        Key(
            "Options of the provider, passed through; numbers and switches may be written as such. Refused are "
            "addresses of a process and `device_id` (`gpus` of `[instances]`).",
            example="{ cudnn_conv_use_max_workspace = 1 }",
            pbtxt="optimization.execution_accelerators",
            unsaid="the provider's own defaults",
        ),
    ] = Field(default_factory=dict)


class ExecutionTable(Table):
    """`[execution]`"""

    providers: Annotated[
        list[Text] | None,
        Key(
            "Execution providers in order of preference: `tensorrt`, `cuda`, `openvino`, `cpu`. One that cannot be had "
            "fails the load, see `allow_fallback`.",
            example='["cuda", "cpu"]',
            pbtxt="optimization.execution_accelerators",
            unsaid="by the instances' kind",
        ),
    ] = None
    provider: Annotated[
        list[ProviderTable] | None,
        BeforeValidator(as_list),
        Key("The same list with options; instead of `providers`.", pbtxt="optimization.execution_accelerators"),
    ] = None
    allow_fallback: Annotated[
        bool,
        Key(
            "What happens when a GPU or provider that is asked for cannot be had: false fails the load, true runs on "
            "the CPU with a warning.",
            example="true",
            pbtxt="parameters[allow_provider_fallback]",
        ),
    ] = False
    graph_optimization: Annotated[
        Literal["disabled", "basic", "extended", "all"],
        Key(
            "How far the runtime rewrites the graph when it loads it; 2, -1, 1 and 0 in `config.pbtxt`.",
            example='"extended"',
            pbtxt="optimization.graph.level",
        ),
    ] = "all"
    intra_op_threads: Annotated[
        int,
        Key(
            "Threads of one run, within an operator. 0: by the server's thread budget.",
            example="2",
            pbtxt="parameters[intra_op_thread_count]",
            bounds=(0, MAX_THREADS),
        ),
    ] = 0
    inter_op_threads: Annotated[
        int,
        Key(
            "Threads of one run, between operators; only with `parallel`. 0: by the server.",
            example="2",
            pbtxt="parameters[inter_op_thread_count]",
            bounds=(0, MAX_THREADS),
        ),
    ] = 0
    parallel: Annotated[
        bool,
        Key(
            "Whether independent branches of the graph run at the same time.",
            example="true",
            pbtxt="parameters[execution_mode]",
        ),
    ] = False
    spinning: Annotated[
        bool,
        Key(
            "Whether threads that wait for work burn CPU time, for a little latency.",
            example="true",
            pbtxt="parameters[session.intra_op.allow_spinning]",
        ),
    ] = False
    memory_arena: Annotated[
        bool,
        Key(
            "Whether the runtime keeps an arena of CPU memory between runs; false uses less memory and more time.",
            example="false",
            pbtxt="parameters[enable_mem_arena]",
        ),
    ] = True
    memory_pattern: Annotated[
        bool,
        Key(
            "Whether the runtime plans memory by what earlier runs of the same shapes used.",
            example="false",
            pbtxt="parameters[enable_mem_pattern]",
        ),
    ] = True
    arena_shrinkage: Annotated[
        Text,
        Key(
            "Devices whose arena gives unused memory back after every run, separated by `;`.",
            example='"cpu:0;gpu:0"',
            pbtxt="parameters[memory.enable_memory_arena_shrinkage]",
            unsaid="none",
        ),
    ] = ""
    inline: Annotated[
        Literal["auto", "always", "never"],
        Key(
            "Whether the model runs on the event loop instead of a worker thread; `auto`: where it was measured cheap "
            "at load.",
            example='"never"',
            pbtxt="parameters[execution_inline]",
        ),
    ] = "auto"
    session_options: Annotated[
        dict[Text, OptionText],
        Key(
            "Options of the runtime's session, passed through: `session.…`, `optimization.…`, `ep.…`, `mlas.…`. Those "
            "that name files are refused. In `config.pbtxt` they stand among the `parameters`.",
            example='{ "session.set_denormal_as_zero" = 1 }',
            pbtxt="parameters",
            unsaid="the runtime's own defaults",
        ),
    ] = Field(default_factory=dict)


class OptimizationTable(Table):
    """`[optimization]`"""

    background: Annotated[
        Literal["never", "stale", "always"],
        Key(
            "Whether the server optimises the model by itself, beside serving it; `stale`: only a version that was "
            "optimised on another machine than this.",
            example='"stale"',
        ),
    ] = "never"
    objective: Annotated[
        Literal["balanced", "latency", "throughput", "size"],
        Key("What is to get better, as `tensorquay optimize --objective`.", example='"latency"'),
    ] = "balanced"
    max_drop: Annotated[
        float | None,
        BeforeValidator(as_share),
        Key(
            'Most that the metric may lose, as a share (0.005) or a percentage (`"0.5%"`).',
            example='"0.5%"',
            bounds=(0, 1),
            unsaid="0.5 %",
        ),
    ] = None
    min_cosine: Annotated[
        float | None,
        Key("Least mean cosine of an output with the original's.", example="0.99", bounds=(-1, 1), unsaid="0.99"),
    ] = None
    metric: Annotated[
        Literal["top1", "top5", "f1", "mae", "rmse", "r2"] | None,
        Key(
            "What `labels` judge by; it needs them.", example='"top1"', unsaid="`top1` for classes, `rmse` for numbers"
        ),
    ] = None
    data: Annotated[
        Text,
        Key(
            "A file of samples in the model's folder, as `--data`.",
            example='"samples.npz"',
            unsaid="accuracy is not judged on real data",
        ),
    ] = ""
    labels: Annotated[
        Text,
        Key(
            "A file in the model's folder with what is right for `data`, as `--labels`; it needs `data`.",
            example='"labels.npy"',
            unsaid="none",
        ),
    ] = ""
    time_budget_s: Annotated[
        float,
        Key(
            "Seconds after which no new variant is begun.",
            example="60.0",
            bounds=(1, MAX_OPTIMIZATION_S),
        ),
    ] = 300.0
    batches: Annotated[
        list[int] | None,
        Key(
            f"Batch sizes that count, in rows; at most {MAX_OPTIMIZATION_BATCHES} of them.",
            example="[1, 16]",
            bounds=(1, MAX_OPTIMIZATION_ROWS),
            unsaid="1, 8 and 32",
        ),
    ] = None
