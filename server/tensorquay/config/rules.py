"""What one configuration must keep to by itself, whichever file it was written in.

Pure. Contradictions with the model's graph are `effective.py`'s; limits exist so that a number in a file can never
make the server allocate or wait without bound.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from tensorquay.config.model import (
    BatchingConfig,
    ExecutionConfig,
    InstanceGroup,
    InstanceKind,
    LatestVersions,
    ModelConfig,
    OptimizationConfig,
    QueuePolicy,
    SpecificVersions,
    TensorConfig,
    WarmupData,
    WarmupSample,
)
from tensorquay.config.refusal import LOAD_REQUEST, ConfigRefused, did_you_mean, spelled
from tensorquay.core.ids import MAX_VERSION, is_model_name
from tensorquay.core.tensors import MAX_ELEMENTS, MAX_RANK

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"

IMPORTED_PLATFORMS = frozenset({"pytorch_libtorch", "tensorflow_savedmodel", "tensorflow_graphdef"})
IMPORTED_BACKENDS = frozenset({"pytorch", "tensorflow"})
"""What Triton's repositories call models that arrive in these formats here; they are served as ONNX all the same."""

_ENGINE = "serve the ONNX file that it was built from, with the accelerator tensorrt"
INSTEAD: Mapping[str, str] = {
    "dali": "move what it does to the client, or into the model",
    "ensemble": "call the models one after another",
    "fil": "leave this file out: XGBoost and LightGBM models (xgboost.json, model.ubj, model.txt) are imported",
    "openvino": "serve the model as ONNX, with the accelerator openvino",
    "python": "import the model that its code loads ('tensorquay import'); the code moves to the client or the model",
    "tensorrt": _ENGINE,
    "tensorrt_plan": _ENGINE,
    "tensorrtllm": "text generation is not served here; keep it where it is",
    "vllm": "text generation is not served here; keep it where it is",
}
"""What to do with the other platforms and backends of Triton's."""

GPU_PROVIDERS = ("tensorrt", "cuda")
CPU_PROVIDERS = ("openvino", "cpu")
GRAPH_LEVELS = ("disabled", "basic", "extended", "all")
SESSION_OPTION_PREFIXES = ("session.", "optimization.", "ep.", "mlas.")

MAX_BATCH_SIZE = 2**31 - 1
MAX_TENSORS = 1024
MAX_INSTANCES = 256
MAX_GPU = 1023
MAX_THREADS = 1024
MAX_QUEUE_DELAY_US = 3_600_000_000
MAX_QUEUE_SIZE = 2**32 - 1
MAX_UINT64 = 2**64 - 1
MAX_PREFERRED = 256
MAX_QUEUE_POLICIES = 1024
MAX_WARMUP_SAMPLES = 256
MAX_WARMUP_RUNS = 10_000
MAX_WARMUP_BYTES = 2**30
MAX_METRIC_TAGS = 32
MAX_OPTIMIZATION_S = 86_400
MAX_OPTIMIZATION_BATCHES = 16
MAX_OPTIMIZATION_ROWS = 1 << 20

_TAKEN_TAGS = frozenset({"model", "version", "namespace", "reason", "gpu_uuid", "le", "quantile", "provider", "state"})
_TAG = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")
_SHRINKAGE = re.compile(r"(cpu|gpu):\d{1,4}(;(cpu|gpu):\d{1,4})*")
_SPINNING = "session.intra_op.allow_spinning"
_ADDRESSES = frozenset(
    {
        "user_compute_stream",
        "has_user_compute_stream",
        "gpu_external_alloc",
        "gpu_external_free",
        "gpu_external_empty_cache",
    }
)
_FILE_WORDS = frozenset({"path", "paths", "file", "filename", "folder", "dir", "lib", "libs", "library"})


def check(config: ModelConfig) -> None:
    """Refuse what cannot be meant.

    Raises: ConfigRefused for the first contradiction or value out of bounds, its key spelled as `config.source` does.
    """
    rules = _Rules(config.source)
    rules.header(config)
    for kind, tensors in (("input", config.inputs), ("output", config.outputs)):
        rules.tensors(kind, tensors, batches=bool(config.max_batch_size))
    rules.versions(config)
    rules.instances(config.instance_groups)
    rules.execution(config.execution, config.instance_groups)
    rules.optimization(config.optimization)
    if config.batching is not None:
        rules.batching(config.batching, config.max_batch_size)
    for index, sample in enumerate(config.warmup):
        rules.warmup(f"warmup[{index}]", sample)
    rules.need(len(config.warmup) <= MAX_WARMUP_SAMPLES, "warmup", len(config.warmup), _at_most(MAX_WARMUP_SAMPLES))
    rules.metric_tags(config.metric_tags)


def wants_gpu(execution: ExecutionConfig) -> bool:
    """Whether a provider that needs a GPU is asked for by name; that others follow it is no leave to do without."""
    return any(provider.name in GPU_PROVIDERS for provider in execution.providers)


def without_gpu(execution: ExecutionConfig) -> ExecutionConfig:
    """`execution` with those providers only that need no GPU; with none at all, if none is left."""
    left = tuple(provider for provider in execution.providers if provider.name not in GPU_PROVIDERS)
    return replace(execution, providers=left)


def check_batching(batching: BatchingConfig, max_batch_size: int, file: str) -> None:
    """The batching rules again, once `max_batch_size` is known from the graph.

    Raises: ConfigRefused.
    """
    _Rules(file).batching(batching, max_batch_size)


def check_name(config: ModelConfig, folder: str) -> None:
    """Refuse a configuration that names another model than the folder it lies in.

    Raises: ConfigRefused.
    """
    if config.name not in {"", folder}:
        raise ConfigRefused(
            file=config.source,
            key="name",
            value=config.name,
            rule=f"it must equal the model's folder, '{folder}'",
            hint="leave it out, or rename one of the two",
        )


class _Rules:
    """The rules, with the file they blame."""

    def __init__(self, file: str) -> None:
        self.file = file

    def need(self, holds: bool, key: str, value: object, rule: str, hint: str = "") -> None:
        if not holds:
            raise ConfigRefused(file=self.file, key=spelled(key, self.file), value=value, rule=rule, hint=hint)

    def between(self, key: str, value: int, low: int, high: int) -> None:
        self.need(low <= value <= high, key, value, f"it must be from {low} to {high}")

    def inside(self, key: str, value: str) -> None:
        """`value` is a relative path that cannot leave the folder it is relative to."""
        parts = PurePosixPath(value).parts
        safe = (
            len(value) <= 1024
            and not value.startswith("/")
            and ".." not in parts
            and bool(parts)
            and not any(ord(letter) < 32 or letter in "\\\x7f" for letter in value)
        )
        self.need(safe, key, value, "it must be a relative path that stays inside its folder (no '..', no leading '/')")

    def header(self, config: ModelConfig) -> None:
        self.need(config.name == "" or is_model_name(config.name), "name", config.name, "it cannot name a folder")
        self._one_of("platform", config.platform, PLATFORM, IMPORTED_PLATFORMS)
        self._one_of("backend", config.backend, BACKEND, IMPORTED_BACKENDS)
        if config.default_model_filename:
            self.inside("model_file", config.default_model_filename)
        if config.max_batch_size is not None:
            self.need(
                0 <= config.max_batch_size <= MAX_BATCH_SIZE,
                "max_batch_size",
                config.max_batch_size,
                f"it must be 0 (axis 0 is not a batch) or from 1 to {MAX_BATCH_SIZE}",
            )

    def _one_of(self, key: str, given: str, ours: str, imported: frozenset[str]) -> None:
        rule = f"only '{ours}' is served here, and what is imported to it ({', '.join(sorted(imported))})"
        self.need(given in {"", ours, *imported}, key, given, rule, INSTEAD.get(given, ""))

    def tensors(self, kind: str, tensors: Sequence[TensorConfig], *, batches: bool) -> None:
        self.need(len(tensors) <= MAX_TENSORS, kind, len(tensors), _at_most(MAX_TENSORS))
        names: set[str] = set()
        for index, tensor in enumerate(tensors):
            key = f"{kind}[{index}]"
            self.need(0 < len(tensor.name) <= 1024, f"{key}.name", tensor.name, "it must name a tensor of the graph")
            self.need(tensor.name not in names, f"{key}.name", tensor.name, f"an earlier {kind} has the same name")
            names.add(tensor.name)
            if tensor.dims is not None:
                self.shape(f"{key}.dims", tensor.dims, batches=batches)
            if tensor.reshape is not None:
                self.reshape(key, tensor, batches=batches)
            if tensor.format != "FORMAT_NONE":
                # Triton's rule: image layouts are three axes without the batch.
                rank = 3 if tensor.dims is None else len(tensor.dims)
                self.need(rank == 3, f"{key}.format", tensor.format, f"it needs 3 dims, '{tensor.name}' has {rank}")
            if tensor.labels_file:
                self.inside(f"{key}.labels", tensor.labels_file)

    def shape(self, key: str, shape: Sequence[int], *, batches: bool) -> None:
        rank = len(shape) + batches
        self.need(rank <= MAX_RANK, key, f"{rank} axes", f"at most {MAX_RANK} axes, the batch included")
        for size in shape:
            self.need(
                size == -1 or 1 <= size <= MAX_ELEMENTS, key, tuple(shape), "each size must be -1 (any) or at least 1"
            )
        self.need(_fixed(shape) <= MAX_ELEMENTS, key, tuple(shape), f"more than {MAX_ELEMENTS} elements")

    def reshape(self, key: str, tensor: TensorConfig, *, batches: bool) -> None:
        reshape, dims = tensor.reshape, tensor.dims
        assert reshape is not None
        self.need(dims is not None, f"{key}.reshape", reshape, "it needs dims, the shape clients see")
        assert dims is not None
        self.shape(f"{key}.reshape", reshape, batches=batches)
        same = _fixed(reshape) == _fixed(dims) and reshape.count(-1) == dims.count(-1)
        self.need(same, f"{key}.reshape", reshape, f"it must hold as many elements as dims {list(dims)}")

    def versions(self, config: ModelConfig) -> None:
        policy = config.version_policy
        if isinstance(policy, LatestVersions):
            self.between("versions.count", policy.count, 1, MAX_QUEUE_SIZE)
        elif isinstance(policy, SpecificVersions):
            listed = policy.versions
            self.need(len(listed) > 0, "versions.versions", listed, "it must list at least one version")
            self.need(len(set(listed)) == len(listed), "versions.versions", listed, "a version is listed twice")
            for version in listed:
                self.between("versions.versions", version, 1, MAX_VERSION)

    def instances(self, groups: Sequence[InstanceGroup]) -> None:
        for index, group in enumerate(groups):
            key = f"instances[{index}]"
            self.between(f"{key}.count", group.count, 1, MAX_INSTANCES)
            self.need(
                group.kind is not InstanceKind.CPU or not group.gpus,
                f"{key}.gpus",
                group.gpus,
                "a group that runs on the CPU cannot list GPUs",
            )
            self.need(len(set(group.gpus)) == len(group.gpus), f"{key}.gpus", group.gpus, "a GPU is listed twice")
            for gpu in group.gpus:
                self.between(f"{key}.gpus", gpu, 0, MAX_GPU)
        total = sum(group.count * max(1, len(group.gpus)) for group in groups)
        self.need(total <= MAX_INSTANCES, "instances", f"{total} instances", _at_most(MAX_INSTANCES))
        twice = [name for name, count in Counter(group.name for group in groups if group.name).items() if count > 1]
        self.need(not twice, "instances", twice, "two groups have the same name")

    def batching(self, batching: BatchingConfig, max_batch_size: int | None) -> None:
        if batching.enabled and max_batch_size == 0:
            self.need(False, "batching.enabled", True, "a model with max_batch_size 0 has no batch axis to merge along")
        preferred = batching.preferred_batch_sizes
        self.need(len(preferred) <= MAX_PREFERRED, "batching.preferred_batch_sizes", preferred, _at_most(MAX_PREFERRED))
        for rows in preferred:
            self.need(rows >= 1, "batching.preferred_batch_sizes", rows, "each must be at least 1")
            limit = max_batch_size or MAX_BATCH_SIZE
            rule = f"each must be at most max_batch_size, {limit}"
            self.need(rows <= limit, "batching.preferred_batch_sizes", rows, rule)
        self.need(len(set(preferred)) == len(preferred), "batching.preferred_batch_sizes", preferred, "a size is twice")
        self.between("batching.max_queue_delay_us", batching.max_queue_delay_us, 0, MAX_QUEUE_DELAY_US)
        self.priorities(batching)
        self.queue("batching.queue", batching.default_queue_policy)

    def priorities(self, batching: BatchingConfig) -> None:
        levels, default = batching.priority_levels, batching.default_priority_level
        self.between("batching.priority_levels", levels, 0, MAX_UINT64)
        if levels == 0:
            self.need(default == 0, "batching.default_priority_level", default, "there are no priority_levels")
        else:
            self.between("batching.default_priority_level", default, 1, levels)
        ordered = batching.preserve_ordering and levels > 1
        rule = "replies in order of arrival allow one priority level only"
        self.need(not ordered, "batching.preserve_ordering", batching.preserve_ordering, rule)
        policies = batching.priority_queue_policies
        self.need(len(policies) <= MAX_QUEUE_POLICIES, "batching.priority", len(policies), _at_most(MAX_QUEUE_POLICIES))
        for level, policy in policies.items():
            rule = f"levels are from 1 to {levels}" if levels else "there are no priority_levels"
            self.need(1 <= level <= levels, f"batching.priority.{level}", level, rule)
            self.queue(f"batching.priority.{level}", policy)

    def queue(self, key: str, policy: QueuePolicy) -> None:
        self.between(f"{key}.default_timeout_us", policy.default_timeout_us, 0, MAX_UINT64)
        self.between(f"{key}.max_queue_size", policy.max_queue_size, 0, MAX_QUEUE_SIZE)

    def execution(self, execution: ExecutionConfig, groups: Sequence[InstanceGroup]) -> None:
        known = (*GPU_PROVIDERS, *CPU_PROVIDERS)
        names = [provider.name for provider in execution.providers]
        for name in names:
            self.need(name in known, "execution.providers", name, "unknown provider", did_you_mean(name, known))
        self.need(len(set(names)) == len(names), "execution.providers", names, "a provider is listed twice")
        first_cpu = names.index("cpu") if "cpu" in names else len(names)
        rule = "'cpu' runs every node, so nothing after it would ever be used; put it last"
        self.need(first_cpu >= len(names) - 1, "execution.providers", names, rule)
        kinds = {group.kind for group in groups}
        on_gpu = any(name in GPU_PROVIDERS for name in names)
        if names and InstanceKind.CPU in kinds:
            self.need(not on_gpu, "execution.providers", names, "an instance group asks for the CPU, these for a GPU")
        if names and InstanceKind.GPU in kinds:
            self.need(on_gpu, "execution.providers", names, "an instance group asks for a GPU, none of these uses one")
        for provider in execution.providers:
            for option in provider.options:
                self.provider_option(provider.name, option)
        self.need(
            execution.graph_optimization in GRAPH_LEVELS,
            "execution.graph_optimization",
            execution.graph_optimization,
            f"it must be one of {', '.join(GRAPH_LEVELS)}",
        )
        self.between("execution.intra_op_threads", execution.intra_op_threads, 0, MAX_THREADS)
        self.between("execution.inter_op_threads", execution.inter_op_threads, 0, MAX_THREADS)
        self.need(
            execution.arena_shrinkage == "" or _SHRINKAGE.fullmatch(execution.arena_shrinkage) is not None,
            "execution.arena_shrinkage",
            execution.arena_shrinkage,
            "it must look like 'cpu:0' or 'cpu:0;gpu:0'",
        )
        for option, value in execution.session_options.items():
            key = f"execution.session_options.{option}"
            rule = f"session options begin with {', '.join(SESSION_OPTION_PREFIXES)}"
            self.need(option.startswith(SESSION_OPTION_PREFIXES), key, value, rule)
            self.need(option != _SPINNING, key, value, "this one has its own key, spinning")
            self.need(not names_a_file(option), key, value, "options that name files or folders are not passed through")

    def provider_option(self, provider: str, option: str) -> None:
        key, shown = "execution.providers", f"{provider}.{option}"
        self.need(option != "device_id", key, shown, "instances choose the device, with their gpus")
        self.need(option not in _ADDRESSES, key, shown, "it is an address inside a process; no file can know it")
        trt = provider != "tensorrt" or option.startswith("trt_")
        self.need(trt, key, shown, "options of tensorrt begin with trt_")
        # A configuration from the network must not pick files or libraries of this machine.
        rule = "options that name files are taken from the model's folder only, not from a load request"
        self.need(self.file != LOAD_REQUEST or not names_a_file(option), key, shown, rule)

    def optimization(self, wanted: OptimizationConfig) -> None:
        drop, cosine, budget = wanted.max_drop, wanted.min_cosine, wanted.time_budget_s
        share = "it must be a share from 0 to 1 (0.005 is half a percent)"
        self.need(drop is None or 0 <= drop <= 1, "optimization.max_drop", drop, share)
        self.need(cosine is None or -1 <= cosine <= 1, "optimization.min_cosine", cosine, "it must be from -1 to 1")
        in_time = f"it must be from 1 to {MAX_OPTIMIZATION_S} seconds"
        self.need(1 <= budget <= MAX_OPTIMIZATION_S, "optimization.time_budget_s", budget, in_time)
        for key in ("data", "labels"):
            if getattr(wanted, key):
                self.inside(f"optimization.{key}", getattr(wanted, key))
        alone = "labels say what is right for data, and there is no data"
        self.need(not wanted.labels or bool(wanted.data), "optimization.labels", wanted.labels, alone)
        alone = "a metric is judged against labels, and there are none"
        self.need(not wanted.metric or bool(wanted.labels), "optimization.metric", wanted.metric, alone)
        batches, key = wanted.batches, "optimization.batches"
        self.need(len(batches) <= MAX_OPTIMIZATION_BATCHES, key, batches, _at_most(MAX_OPTIMIZATION_BATCHES))
        for rows in batches:
            self.between(key, rows, 1, MAX_OPTIMIZATION_ROWS)
        self.need(len(set(batches)) == len(batches), key, batches, "a size is twice")

    def warmup(self, key: str, sample: WarmupSample) -> None:
        self.between(f"{key}.batch_size", sample.batch_size, 0, MAX_BATCH_SIZE)
        self.between(f"{key}.count", sample.count, 0, MAX_WARMUP_RUNS)
        self.need(len(sample.inputs) <= MAX_TENSORS, f"{key}.inputs", len(sample.inputs), _at_most(MAX_TENSORS))
        total = 0
        for name, given in sample.inputs.items():
            at = f"{key}.inputs.{name}"
            self.need(len(given.dims) <= MAX_RANK, f"{at}.dims", f"{len(given.dims)} axes", _at_most(MAX_RANK))
            sizes_known = all(0 <= size <= MAX_ELEMENTS for size in given.dims)
            self.need(sizes_known, f"{at}.dims", given.dims, "each size must be known: 0 or more, never -1")
            total += max(1, sample.batch_size) * math.prod(given.dims) * max(4, given.datatype.item_bytes)
            if given.data is WarmupData.FILE:
                self.inside(f"{at}.file", given.file)
            else:
                self.need(given.file == "", f"{at}.file", given.file, 'only data = "file" reads one')
        rule = f"one sample may hold at most {MAX_WARMUP_BYTES} bytes"
        self.need(total <= MAX_WARMUP_BYTES, f"{key}.inputs", total, rule)

    def metric_tags(self, tags: Mapping[str, str]) -> None:
        self.need(len(tags) <= MAX_METRIC_TAGS, "metric_tags", len(tags), _at_most(MAX_METRIC_TAGS))
        for tag, value in tags.items():
            named = _TAG.fullmatch(tag) is not None and not tag.startswith("__")
            self.need(named, f"metric_tags.{tag}", value, "it must be a Prometheus label name (letters, digits, '_')")
            self.need(tag not in _TAKEN_TAGS, f"metric_tags.{tag}", value, "the server's own metrics use this label")


def names_a_file(option: str) -> bool:
    """Whether a runtime option is about a file or folder, by the words of its name."""
    return not _FILE_WORDS.isdisjoint(re.split(r"[._\s-]+", option.lower()))


def _fixed(shape: Sequence[int]) -> int:
    return math.prod(size for size in shape if size != -1)


def _at_most(limit: int) -> str:
    return f"at most {limit} are accepted"
