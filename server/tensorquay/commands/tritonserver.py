"""What to do with the command-line flags of tritonserver that this server does not have itself.

Decides per flag: translate it, accept it with a note because it changes no answer here, or refuse it with a sentence
saying what to do instead. Flags that mean the same here are aliases of fields (`config/server.py`) and not this
module's business. Source of the flags: tritonserver --help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

TRUE_WORDS = frozenset({"true", "1", "yes", "on", "t", "y"})
FALSE_WORDS = frozenset({"false", "0", "no", "off", "f", "n"})

_TUNING = "it tunes tritonserver's own threads and pools"
_GPU_POOL = "memory pools belong to ONNX Runtime here; set its provider's options in the model's configuration"

NO_EFFECT: Mapping[str, str] = {
    "http-thread-count": _TUNING,
    "grpc-infer-thread-count": _TUNING,
    "grpc-infer-allocation-pool-size": _TUNING,
    "grpc-max-response-pool-size": _TUNING,
    "buffer-manager-thread-count": _TUNING,
    "pinned-memory-pool-byte-size": _GPU_POOL,
    "cuda-memory-pool-byte-size": _GPU_POOL,
    "cuda-virtual-address-size": _GPU_POOL,
    "min-supported-compute-capability": "ONNX Runtime decides which GPUs it supports",
    "enable-peer-access": "ONNX Runtime manages its devices",
    "metrics-interval-ms": "metrics are read when they are scraped",
    "allow-gpu-metrics": "this server reports no nv_gpu_* metrics",
    "allow-cpu-metrics": "nv_cpu_* metrics cost nothing and are always there",
    "backend-directory": "backends are Python packages here",
    "repoagent-directory": "there are no repository agents here",
    "cache-directory": "there are no cache libraries here",
}
"""Accepted with a note: none of them changes what a client gets."""

_KEEPALIVE = "keepalive and connection age have fixed bounds here (docs/http2.md); remove the flag"
_CLOUD = (
    "this server speaks the V2 protocol on its HTTP port only; remove the flag and route the platform's paths to it"
)

REFUSED: Mapping[str, str] = {
    "grpc-keepalive-time": _KEEPALIVE,
    "grpc-keepalive-timeout": _KEEPALIVE,
    "grpc-http2-max-pings-without-data": _KEEPALIVE,
    "grpc-http2-min-recv-ping-interval-without-data": _KEEPALIVE,
    "grpc-http2-max-ping-strikes": _KEEPALIVE,
    "grpc-max-connection-age": _KEEPALIVE,
    "grpc-max-connection-age-grace": _KEEPALIVE,
    "sagemaker-port": _CLOUD,
    "sagemaker-safe-port-range": _CLOUD,
    "sagemaker-thread-count": _CLOUD,
    "vertex-ai-port": _CLOUD,
    "vertex-ai-thread-count": _CLOUD,
    "vertex-ai-default-model": _CLOUD,
    "cache-config": "this server has no response cache; remove the flag",
    "response-cache-byte-size": "this server has no response cache; remove the flag",
    "rate-limit-resource": "this server has no rate limiter; bound a model with max_queue_size and instance counts",
    "host-policy": "pin the whole process instead (taskset, numactl or the container's cpuset)",
    "model-load-gpu-limit": "set the provider's gpu_mem_limit in the model's configuration instead",
    "model-load-retry-count": "a failed load is tried again when its files change or on request; remove the flag",
    "model-config-name": "keep the wanted config.pbtxt in the model's folder instead",
    "disable-auto-complete-config": "this server always derives what a configuration leaves out; remove the flag",
}
"""Refused: without them the server would not do what was asked for."""

REFUSED_WHEN_ON: Mapping[str, str] = {
    "grpc-keepalive-permit-without-calls": _KEEPALIVE,
    "allow-sagemaker": _CLOUD,
    "allow-vertex-ai": _CLOUD,
    "strict-model-config": REFUSED["disable-auto-complete-config"],
    "model-namespacing": "give models of different repositories different names",
    "reuse-http-port": "start each server on its own port behind a load balancer",
    "reuse-grpc-port": "start each server on its own port behind a load balancer",
}
"""Booleans whose "false" is what this server does anyway."""

REFUSED_UNLESS: Mapping[str, tuple[str, str]] = {
    "rate-limit": ("off", "this server has no rate limiter; use --rate-limit=off or remove the flag"),
    "grpc-infer-response-compression-level": (
        "none",
        "a gRPC client chooses compression per call here; use none or remove the flag",
    ),
}
"""Flags with one value that asks for nothing."""


class Refused(Exception):
    """A flag that cannot be honoured; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Translated:
    """Arguments in our own spelling, and notes about those that have no effect."""

    arguments: list[str]
    notes: tuple[str, ...]


def translate(arguments: Sequence[str], booleans: frozenset[str]) -> Translated:
    """`arguments` with tritonserver's own flags replaced, and every boolean flag written with its value.

    Args: booleans: names of our own boolean flags; `--name`, `--name VALUE` and `--name=VALUE` are all understood.
    Raises: Refused naming the flag and what to do.
    """
    done: list[str] = []
    notes: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            done += [word, *rest]
            break
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            done.append(word)
        elif name in booleans:
            done.append(f"--{name}={value if equals else _boolean(rest)}")
        elif name in REFUSED:
            raise Refused(f"--{name}: {REFUSED[name]}")
        elif name in REFUSED_WHEN_ON:
            if (value if equals else _boolean(rest)).lower() not in FALSE_WORDS:
                raise Refused(f"--{name}: {REFUSED_WHEN_ON[name]}")
        elif name in NO_EFFECT:
            _value(name, equals, value, rest)
            notes.append(f"--{name} has no effect here: {NO_EFFECT[name]}")
        elif name in REFUSED_UNLESS:
            accepted, reason = REFUSED_UNLESS[name]
            if _value(name, equals, value, rest).lower() != accepted:
                raise Refused(f"--{name}: {reason}")
        elif name in _SETTINGS:
            _SETTINGS[name](_value(name, equals, value, rest), done, notes)
        else:
            done.append(word)
    return Translated(done, tuple(notes))


def _boolean(rest: list[str]) -> str:
    """The value of a boolean flag written without "=": the next word if it is one, else true."""
    if rest and rest[0].lower() in TRUE_WORDS | FALSE_WORDS:
        return rest.pop(0)
    return "true"


def _value(name: str, equals: str, value: str, rest: list[str]) -> str:
    if equals:
        return value
    if not rest:
        raise Refused(f"--{name} requires a value")
    return rest.pop(0)


def _backend_config(text: str, done: list[str], notes: list[str]) -> None:
    backend, comma, setting = text.partition(",")
    if not comma:
        backend, setting = "", text
    key, _, value = setting.partition("=")
    if backend not in {"", "onnxruntime"}:
        notes.append(f"--backend-config={backend},… has no effect here: there is no backend '{backend}'")
    elif key == "default-max-batch-size":
        done.append(f"--default-max-batch-size={value}")
    elif key == "intra_op_thread_count":
        done.append(f"--threads={value}")
    elif key == "enable-global-threadpool":
        notes.append("--backend-config enable-global-threadpool has no effect here: all models share one thread budget")
    elif key == "auto-complete-config" and value.lower() in TRUE_WORDS:
        notes.append("--backend-config auto-complete-config=true is what this server always does")
    else:
        raise Refused(
            f"--backend-config: '{key[:60]}' is not understood; default-max-batch-size, intra_op_thread_count and "
            "enable-global-threadpool are, everything else belongs in the model's configuration"
        )


_TRACE_KEYS = {"level": "trace-level", "rate": "trace-rate", "count": "trace-count", "mode": "trace-mode"}
_TRACE_MODE_KEYS = {
    "triton": {"file": "trace-file", "log-frequency": "trace-log-frequency"},
    "opentelemetry": {
        "url": "otlp-endpoint",
        "resource": "otel-resource",
        "bsp_max_queue_size": "otel-max-queue-size",
        "bsp_schedule_delay": "otel-schedule-delay-ms",
        "bsp_max_export_batch_size": "otel-max-export-batch-size",
    },
}


def _trace_config(text: str, done: list[str], _notes: list[str]) -> None:
    mode, comma, setting = text.partition(",")
    # A setting of all modes may stand without one; its value may hold a comma.
    if not comma or "=" in mode:
        mode, setting = "", text
    key, _, value = setting.partition("=")
    if mode not in {"", *_TRACE_MODE_KEYS}:
        raise Refused(f"--trace-config: '{mode[:60]}' is no trace mode, expected triton or opentelemetry")
    # Without a mode, also Triton's former spelling of the file settings.
    keys = _TRACE_KEYS | (_TRACE_MODE_KEYS[mode] if mode else _TRACE_MODE_KEYS["triton"])
    if key not in keys:
        raise Refused(f"--trace-config: '{key[:60]}' is not understood, expected one of {', '.join(keys)}")
    if key == "url" and "://" not in value:
        value = f"http://{value}"
    done.append(f"--{keys[key]}={value}")


def _metrics_config(text: str, _done: list[str], notes: list[str]) -> None:
    notes.append(
        f"--metrics-config {text[:80]} has no effect here: counters are always there, and latencies come as "
        "histograms tensorquay_*_seconds"
    )


_SETTINGS: Mapping[str, Callable[[str, list[str], list[str]], None]] = {
    "backend-config": _backend_config,
    "trace-config": _trace_config,
    "metrics-config": _metrics_config,
}
