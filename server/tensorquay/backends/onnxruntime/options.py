"""`SessionOptions` and `RunOptions` from an `ExecutionConfig`: threads, optimisation level, memory, switches.

One thread budget for all models: every session gets its own intra-op pool of at most the budget's size, and its idle
threads sleep. ONNX Runtime's process-wide pool would be the natural owner of one budget, but from Python (1.31) it
cannot be told not to spin: measured, each run then burns 29 ms of CPU afterwards, session entries notwithstanding,
and once it exists no session may have a thread count of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tensorquay.backends.api import LoadRequest
from tensorquay.config.model import ExecutionConfig
from tensorquay.core.errors import ModelFailed

RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_MAX_THREADS = 1024
_FATAL = 4


@dataclass(frozen=True, slots=True)
class Threads:
    """Sizes of one session's pools; 1 means that the calling thread does the work alone."""

    intra_op: int
    inter_op: int


def plan_threads(execution: ExecutionConfig, budget: int) -> Threads:
    """The pools for one session: what the configuration says, else the budget.

    Nodes run in parallel only when the configuration asks for it, so the inter-op pool is otherwise the caller.
    """
    intra = execution.intra_op_threads or max(1, budget)
    inter = (execution.inter_op_threads or max(1, budget)) if execution.parallel else 1
    for field, value in (("intra_op_threads", intra), ("inter_op_threads", inter)):
        if not 1 <= value <= _MAX_THREADS:
            raise ModelFailed(f"{field} is {value}, expected 1 to {_MAX_THREADS}")
    return Threads(intra, inter)


def session_options(runtime: ModuleType, request: LoadRequest, threads: Threads) -> Any:
    """An `onnxruntime.SessionOptions`.

    Raises: ModelFailed naming the setting that is wrong.
    """
    execution = request.execution
    options = runtime.SessionOptions()
    options.logid = request.model_path.name[:64]
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads.intra_op
    options.inter_op_num_threads = threads.inter_op
    if execution.parallel:
        options.execution_mode = runtime.ExecutionMode.ORT_PARALLEL
    level = _LEVELS.get(execution.graph_optimization)
    if level is None:
        raise ModelFailed(f"graph_optimization is '{execution.graph_optimization[:64]}', expected {', '.join(_LEVELS)}")
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    options.enable_cpu_mem_arena = execution.memory_arena
    options.enable_mem_pattern = execution.memory_pattern
    # Off by default: idle pool threads that spin take the core of whoever reads the sockets. Measured on 2 cores,
    # server CPU per item: 54 us with spinning, 32 us without (docs/performance.md).
    spin = "1" if execution.spinning else "0"
    entries = {"session.intra_op.allow_spinning": spin, "session.inter_op.allow_spinning": spin}
    for key, value in {**entries, **execution.session_options, RECORD_PLACEMENT: "1"}.items():
        _refuse_files(key)
        try:
            options.add_session_config_entry(key, value)
        except (RuntimeError, TypeError) as exc:
            raise ModelFailed(f"session option '{key[:120]}' was refused: too long, or not text") from exc
    return options


def run_options(runtime: ModuleType, execution: ExecutionConfig) -> Any | None:
    """An `onnxruntime.RunOptions` shared by all runs of a session, None when nothing asks for one."""
    if not execution.arena_shrinkage:
        return None
    options = runtime.RunOptions()
    options.add_run_config_entry(_SHRINKAGE, execution.arena_shrinkage)
    return options


def _refuse_files(key: str) -> None:
    # A load request may carry a configuration: it must not make the runtime read or write files of its choosing.
    if any(word in key.lower() for word in ("path", "file", "folder", "directory")):
        raise ModelFailed(
            f"session option '{key[:120]}' names files; that is not accepted from a model's configuration"
        )
