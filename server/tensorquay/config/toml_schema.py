"""The shape of config.toml: every table and key, its type and default, and what people are told about it.

Types and unknown keys are decided here; bounds and contradictions are `rules.py`'s, for both formats alike. Defaults
are those of `model.py`, so that an empty file means the same as none. `docs/reference/model-config.md` is made of the
texts; what needs more than a text is in docs/configuration.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tensorquay.config.rules import (
    MAX_BATCH_SIZE,
    MAX_GPU,
    MAX_INSTANCES,
    MAX_METRIC_TAGS,
    MAX_QUEUE_DELAY_US,
    MAX_QUEUE_SIZE,
    MAX_UINT64,
    MAX_WARMUP_RUNS,
)
from tensorquay.config.toml_execution import ExecutionTable, OptimizationTable
from tensorquay.config.toml_key import Key
from tensorquay.config.toml_values import OptionText, Table, Text, as_list
from tensorquay.core.ids import MAX_VERSION
from tensorquay.core.tensors import MAX_ELEMENTS

_FROM_THE_GRAPH = "from the graph"
_DATATYPE = "The type of its elements, which must be the graph's: the wire's name, or Triton's `TYPE_FP32`."
_RESHAPE = "The model's own shape, when clients are to see `dims` instead; as many elements, and it needs `dims`."


class InputTable(Table):
    """`[[input]]`"""

    name: Annotated[Text, Key("An input of the graph, by its name there.", example='"image"', pbtxt="input.name")]
    datatype: Annotated[
        Text | None,
        Key(
            _DATATYPE,
            example='"FP32"',
            pbtxt="input.data_type",
            unsaid=_FROM_THE_GRAPH,
        ),
    ] = None
    dims: Annotated[
        list[int] | None,
        Key(
            "Its shape as clients see it, without the batch axis when `max_batch_size` is above 0. -1 is any size, "
            "where the graph allows any; a number may narrow such an axis. Otherwise each size is 1 or more.",
            example="[3, 224, 224]",
            pbtxt="input.dims",
            bounds=(-1, MAX_ELEMENTS),
            unsaid=_FROM_THE_GRAPH,
        ),
    ] = None
    reshape: Annotated[
        list[int] | None,
        Key(
            _RESHAPE,
            example="[150528]",
            pbtxt="input.reshape.shape",
            bounds=(-1, MAX_ELEMENTS),
            unsaid="as `dims`",
        ),
    ] = None
    optional: Annotated[
        bool,
        Key(
            "Whether requests may leave it out; only for an input that the graph has a default for.",
            example="true",
            pbtxt="input.optional",
        ),
    ] = False
    format: Annotated[
        Literal["none", "nhwc", "nchw"],
        Key(
            "How an image lies in it, as information for clients; it needs three `dims`.",
            example='"nchw"',
            pbtxt="input.format",
        ),
    ] = "none"


class OutputTable(Table):
    """`[[output]]`"""

    name: Annotated[Text, Key("An output of the graph, by its name there.", example='"scores"', pbtxt="output.name")]
    datatype: Annotated[
        Text | None,
        Key(
            _DATATYPE,
            example='"FP32"',
            pbtxt="output.data_type",
            unsaid=_FROM_THE_GRAPH,
        ),
    ] = None
    dims: Annotated[
        list[int] | None,
        Key(
            "Its shape as clients see it, without the batch axis when `max_batch_size` is above 0; -1 is any size.",
            example="[10]",
            pbtxt="output.dims",
            bounds=(-1, MAX_ELEMENTS),
            unsaid=_FROM_THE_GRAPH,
        ),
    ] = None
    reshape: Annotated[
        list[int] | None,
        Key(
            _RESHAPE,
            example="[10, 1, 1]",
            pbtxt="output.reshape.shape",
            bounds=(-1, MAX_ELEMENTS),
            unsaid="as `dims`",
        ),
    ] = None
    labels: Annotated[
        Text,
        Key(
            "A text file in the model's folder with one label per line, for the classification extension.",
            example='"labels.txt"',
            pbtxt="output.label_filename",
            unsaid="no labels",
        ),
    ] = ""


class VersionsTable(Table):
    """`[versions]`"""

    policy: Annotated[
        Literal["latest", "all", "specific"],
        Key("Which versions are served: the highest, all, or those that are listed.", '"specific"', "version_policy"),
    ] = "latest"
    count: Annotated[
        int | None,
        Key(
            "How many of the highest versions are served; only with `latest`.",
            example="2",
            pbtxt="version_policy.latest.num_versions",
            bounds=(1, MAX_QUEUE_SIZE),
            unsaid="`1`",
        ),
    ] = None
    versions: Annotated[
        list[int] | None,
        Key(
            "The versions that are served; required with `specific`, and only there.",
            example="[1, 3]",
            pbtxt="version_policy.specific.versions",
            bounds=(1, MAX_VERSION),
            unsaid="none",
        ),
    ] = None


class QueueTable(Table):
    """`[batching.queue]` and `[batching.priority.N]`"""

    timeout_action: Annotated[
        Literal["reject", "delay"],
        Key(
            "What happens to a request that waited too long: it is refused, or runs after the others of its level.",
            example='"delay"',
            pbtxt="timeout_action",
        ),
    ] = "reject"
    default_timeout_us: Annotated[
        int,
        Key(
            "Longest time in the queue, in microseconds. 0: no limit.",
            example="50_000",
            pbtxt="default_timeout_microseconds",
            bounds=(0, MAX_UINT64),
        ),
    ] = 0
    allow_timeout_override: Annotated[
        bool,
        Key(
            "Whether a request's own `timeout` may shorten `default_timeout_us`.",
            example="true",
            pbtxt="allow_timeout_override",
        ),
    ] = False
    max_queue_size: Annotated[
        int,
        Key(
            "Most requests that wait; one more is refused. 0: only the server's own bound, `max_queue_requests`.",
            example="256",
            pbtxt="max_queue_size",
            bounds=(0, MAX_QUEUE_SIZE),
        ),
    ] = 0


class BatchingTable(Table):
    """`[batching]`"""

    enabled: Annotated[
        bool,
        Key("Whether waiting requests are merged. false: a run for each.", example="false", pbtxt="dynamic_batching"),
    ] = True
    preferred_batch_sizes: Annotated[
        list[int],
        Key(
            "Sizes, in rows, that are worth leaving with: the largest leaves at once, a smaller one when the next "
            "request does not fit. Each at most `max_batch_size`.",
            example="[8, 16]",
            pbtxt="dynamic_batching.preferred_batch_size",
            bounds=(1, MAX_BATCH_SIZE),
            unsaid="none",
        ),
    ] = Field(default_factory=list)
    max_queue_delay_us: Annotated[
        int,
        Key(
            "Longest wait for a fuller batch, in microseconds. 0: what waits runs at once.",
            example="500",
            pbtxt="dynamic_batching.max_queue_delay_microseconds",
            bounds=(0, MAX_QUEUE_DELAY_US),
        ),
    ] = 0
    preserve_ordering: Annotated[
        bool,
        Key(
            "Whether answers leave in the order of their requests; not with several priority levels.",
            example="true",
            pbtxt="dynamic_batching.preserve_ordering",
        ),
    ] = False
    oversize: Annotated[
        Literal["split", "refuse"],
        Key(
            "What happens to a request with more rows than `max_batch_size`: its rows run in several batches, or it is "
            "refused, as Triton does.",
            example='"refuse"',
            pbtxt="parameters[oversize_requests]",
        ),
    ] = "split"
    priority_levels: Annotated[
        int,
        Key(
            "How many priorities a request may name; 1 is the highest. 0: none. A request that names a level beyond "
            "them gets the default one.",
            example="3",
            pbtxt="dynamic_batching.priority_levels",
            bounds=(0, MAX_UINT64),
        ),
    ] = 0
    default_priority_level: Annotated[
        int,
        Key(
            "The level of requests that name none: 1 to `priority_levels`, required with them.",
            example="2",
            pbtxt="dynamic_batching.default_priority_level",
            bounds=(0, MAX_UINT64),
        ),
    ] = 0
    queue: Annotated[QueueTable, Key("Limits of the queue.", pbtxt="dynamic_batching.default_queue_policy")] = (
        QueueTable()
    )
    priority: Annotated[
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,20}$")], QueueTable],
        Key(
            "Limits of one priority level, the name being its number: `[batching.priority.1]` is the highest. A level "
            "without a table has those of `[batching.queue]`.",
            pbtxt="dynamic_batching.priority_queue_policy",
        ),
    ] = Field(default_factory=dict)


class InstancesTable(Table):
    """`[instances]` or `[[instances]]`"""

    name: Annotated[
        Text,
        Key("A name of the group.", example='"small"', pbtxt="instance_group.name", unsaid="the model's and a number"),
    ] = ""
    kind: Annotated[
        Literal["auto", "cpu", "gpu"],
        Key(
            "Where the instances run; `auto`: as the providers say, and without any on a GPU if there is one.",
            example='"cpu"',
            pbtxt="instance_group.kind",
        ),
    ] = "auto"
    count: Annotated[
        int,
        Key(
            f"How many copies of the model, on each GPU when on GPUs; {MAX_INSTANCES} in all.",
            example="2",
            pbtxt="instance_group.count",
            bounds=(1, MAX_INSTANCES),
        ),
    ] = 1
    gpus: Annotated[
        list[int],
        Key(
            "GPUs by number; not with kind `cpu`.",
            example="[0, 1]",
            pbtxt="instance_group.gpus",
            bounds=(0, MAX_GPU),
            unsaid="all there are",
        ),
    ] = Field(default_factory=list)


class WarmupInputTable(Table):
    """`[warmup.inputs.NAME]`"""

    datatype: Annotated[Text, Key("The type of its elements.", example='"FP32"', pbtxt="model_warmup.inputs.data_type")]
    dims: Annotated[
        list[int],
        Key(
            "Its shape without the batch axis, every size known.",
            example="[3, 224, 224]",
            pbtxt="model_warmup.inputs.dims",
            bounds=(0, MAX_ELEMENTS),
        ),
    ]
    data: Annotated[
        Literal["zero", "random", "file"],
        Key(
            "Where the values come from; `zero_data`, `random_data` and `input_data_file` in `config.pbtxt`.",
            example='"random"',
            pbtxt="model_warmup.inputs",
        ),
    ] = "zero"
    file: Annotated[
        Text,
        Key(
            "A file in the folder `warmup/` of the model's folder, with the raw bytes of one row; only with "
            '`data = "file"`.',
            example='"image.bin"',
            pbtxt="model_warmup.inputs.input_data_file",
            unsaid="none",
        ),
    ] = ""


class WarmupTable(Table):
    """`[[warmup]]`"""

    name: Annotated[Text, Key("A name for the log.", example='"full"', pbtxt="model_warmup.name", unsaid="none")] = ""
    batch_size: Annotated[
        int,
        Key("Rows of one run, at most `max_batch_size`.", "8", "model_warmup.batch_size", (0, MAX_BATCH_SIZE)),
    ] = 1
    count: Annotated[
        int,
        Key("How many runs. 0 is 1.", example="3", pbtxt="model_warmup.count", bounds=(0, MAX_WARMUP_RUNS)),
    ] = 1
    inputs: Annotated[
        dict[Text, WarmupInputTable],
        Key("What one input of the model gets, under the input's name.", pbtxt="model_warmup.inputs"),
    ]


class ConfigTable(Table):
    """The whole file."""

    name: Annotated[
        Text,
        Key("The model's name, which must be its folder's.", '"digits"', "name", unsaid="the folder's"),
    ] = ""
    max_batch_size: Annotated[
        int | None,
        Key(
            "Most rows in one run of the model. 0: axis 0 is not a batch.",
            example="32",
            pbtxt="max_batch_size",
            bounds=(0, MAX_BATCH_SIZE),
            unsaid="by the graph: 0, or the server's `default_max_batch_size`",
        ),
    ] = None
    model_file: Annotated[
        Text,
        Key(
            "The model's file in a version's folder, as a relative path that stays in it.",
            example='"net.onnx"',
            pbtxt="default_model_filename",
            unsaid="`model.onnx`",
        ),
    ] = ""
    input: Annotated[
        list[InputTable],
        BeforeValidator(as_list),
        Key("An input: none are declared, or all that requests must bring.", pbtxt="input"),
    ] = Field(default_factory=list)
    output: Annotated[
        list[OutputTable],
        BeforeValidator(as_list),
        Key("An output. Those that are declared are the only ones served.", pbtxt="output"),
    ] = Field(default_factory=list)
    versions: Annotated[VersionsTable | None, Key("Which versions are served.", pbtxt="version_policy")] = None
    batching: Annotated[BatchingTable | None, Key("How waiting requests become batches.", pbtxt="dynamic_batching")] = (
        None
    )
    execution: Annotated[ExecutionTable, Key("How the runtime executes the model.", pbtxt="optimization")] = (
        ExecutionTable()
    )
    optimization: Annotated[
        OptimizationTable,
        Key("What a background optimisation may do and must keep; Triton's `optimization` is something else."),
    ] = OptimizationTable()
    instances: Annotated[
        list[InstancesTable],
        BeforeValidator(as_list),
        Key(
            "Copies of the model, and where they run; `[instances]` if one table is enough.",
            pbtxt="instance_group",
        ),
    ] = Field(default_factory=list)
    warmup: Annotated[
        list[WarmupTable],
        BeforeValidator(as_list),
        Key("A run that is made before a version is ready.", pbtxt="model_warmup"),
    ] = Field(default_factory=list)
    parameters: Annotated[
        dict[Text, OptionText],
        Key(
            "Free texts, shown by the `config` endpoints; nothing here reads them.",
            example='{ owner = "vision" }',
            pbtxt="parameters",
            unsaid="none",
        ),
    ] = Field(default_factory=dict)
    metric_tags: Annotated[
        dict[Text, OptionText],
        Key(
            f"Labels of this model's metrics, at most {MAX_METRIC_TAGS}, each written with `_` before its name. Names "
            "that the server's own metrics use are refused.",
            example='{ team = "vision" }',
            pbtxt="metric_tags",
            unsaid="none",
        ),
    ] = Field(default_factory=dict)
