"""Whether a version's optimisation still fits where it is served, and what to make of its advice. Pure but for reading
the version's `optimization.json`.

An optimisation holds for what it was measured on: another processor, runtime or GPU may make the winner a loser, so its
settings are then not applied and a note says what to do. A file that cannot be used is a note too, never a failed load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tensorquay.backends.api import RuntimeFacts
from tensorquay.config.advice import OPTIMIZATION_FILE, says_where
from tensorquay.config.machine import CPU_FEATURES, CpuFacts
from tensorquay.config.model import ExecutionConfig, InstanceKind, ModelConfig, ProviderConfig
from tensorquay.config.rules import GPU_PROVIDERS, wants_gpu
from tensorquay.lifecycle.recipe import Recipe
from tensorquay.repository.files import UnusableFile
from tensorquay.repository.optimization import Optimization, OptimizedOn, read_optimization

_MOST_NAME = 80
_TO_THE_GPU = 'config.toml: [instances] kind = "gpu" decides otherwise'


@dataclass(frozen=True, slots=True)
class Here:
    """What a model computes on in this process.

    Args:
        cpu: None: not known, and then not compared. runtime: likewise.
        threads: the server's budget.
        gpus: numbers of the GPUs that the runtime can use.
    """

    cpu: CpuFacts | None = None
    runtime: RuntimeFacts | None = None
    threads: int = 1
    gpus: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Advised:
    """What the optimisation of one version means here.

    Args:
        record: the file; None without one that can be read.
        execution: what to apply where the configuration does not say; None: nothing.
        stale: in what this differs from where it was optimised, as a clause; empty when it does not.
        notes: sentences for people.
        shown: the result in a few words, for the version's properties; empty when it was not optimised.
    """

    record: Optimization | None = None
    execution: ExecutionConfig | None = None
    stale: str = ""
    notes: tuple[str, ...] = ()
    shown: str = ""


def advise(recipe: Recipe, here: Here) -> Advised:
    """What `optimization.json` beside the model of `recipe` means on this machine. Reads that file only."""
    try:
        record = read_optimization(recipe.model_path.parent)
    except UnusableFile as exc:
        return Advised(notes=(f"{exc}: what it may say about this version is not known",))
    if record is None:
        return Advised()
    declared = recipe.declared if recipe.declared is not None else ModelConfig()
    stale = "; ".join(differences(record, declared, here))
    shown = _shown(record)
    if not record.winner:
        return Advised(record, stale=stale, shown=shown)
    if stale:
        there = _short(record.machine.gpu if record.provider in GPU_PROVIDERS else record.machine.cpu)
        note = (
            f"this version was optimised on {there or 'another machine'} and may not be the fastest here: {stale}; its "
            f"settings are not applied; to optimise it for this machine: {_remedy(recipe.id.name, declared, here)}"
        )
        return Advised(record, stale=stale, notes=(note,), shown=shown)
    if record.execution is None:
        return Advised(record, notes=(f"{record.problem}; none of its settings is applied",), shown=shown)
    execution, notes = _within_budget(record.execution, here.threads)
    if not here.gpus:
        if execution.providers == (ProviderConfig("cpu"),):
            execution = replace(execution, providers=())  # nothing else is here, so nothing has to be chosen
    elif record.provider not in GPU_PROVIDERS and not says_where(declared.execution, declared.instance_groups):
        notes += (f"runs on the CPU, for which it was optimised, although a GPU is here; {_TO_THE_GPU}",)
    return Advised(record, execution, notes=notes, shown=shown)


def differences(record: Optimization, declared: ModelConfig, here: Here) -> Iterator[str]:
    """In what this process differs from where `record` was made, as far as that decides how fast the model is."""
    there, on_gpu = record.machine, record.provider in GPU_PROVIDERS
    gpu_name = here.runtime.gpu if here.runtime is not None else ""
    placed = says_where(declared.execution, declared.instance_groups)
    asks_gpu = _asks_for_gpu(declared)
    if placed and asks_gpu != on_gpu:
        where = "a GPU" if asks_gpu else "the CPU"
        yield f"it was optimised for {record.provider}, and its configuration runs it on {where}"
    elif on_gpu and not here.gpus:
        yield f"it was optimised for {record.provider}, and there is no GPU that could be used here"
    elif here.runtime is not None and record.provider not in here.runtime.providers:
        has = ", ".join(here.runtime.providers)
        yield f"it was optimised for {record.provider}, which the runtime here has not (it has {has})"
    elif on_gpu and there.gpu and gpu_name and there.gpu.casefold() != gpu_name.casefold():
        yield f"the GPU here is {_short(gpu_name)}"
    if here.cpu is not None and not on_gpu:
        yield from _features(there, here.cpu)
    if here.runtime is not None and there.onnxruntime and there.onnxruntime != here.runtime.version:
        yield f"ONNX Runtime is {here.runtime.version[:40]} here and was {there.onnxruntime[:40]} there"


def _asks_for_gpu(declared: ModelConfig) -> bool:
    groups = declared.instance_groups
    return wants_gpu(declared.execution) or any(group.kind is InstanceKind.GPU or group.gpus for group in groups)


def _remedy(name: str, declared: ModelConfig, here: Here) -> str:
    placed = says_where(declared.execution, declared.instance_groups)
    on_gpu = bool(here.gpus) and (_asks_for_gpu(declared) or not placed)
    return f"tensorquay optimize {name} --provider cuda" if on_gpu else f"tensorquay optimize {name}"


def _features(there: OptimizedOn, here: CpuFacts) -> Iterator[str]:
    if not there.cpu and not there.features:
        return  # the file does not tell
    lacks = [each for each in CPU_FEATURES if each in there.features and each not in here.features]
    gains = [each for each in CPU_FEATURES if each in here.features and each not in there.features]
    name = f"the processor here, {_short(here.name)}," if here.name else "the processor here"
    if lacks:
        yield f"{name} has no {', '.join(lacks)}"
    if gains:
        yield f"{name} has {', '.join(gains)}, which that one had not"


def _within_budget(advice: ExecutionConfig, budget: int) -> tuple[ExecutionConfig, tuple[str, ...]]:
    """More threads than the server has would only take turns."""
    most = max(advice.intra_op_threads, advice.inter_op_threads)
    if most <= budget:
        return advice, ()
    note = f"{OPTIMIZATION_FILE} advises {most} threads; the server's budget is {budget}, and these are used"
    fitting = replace(
        advice,
        intra_op_threads=advice.intra_op_threads if advice.intra_op_threads <= budget else 0,
        inter_op_threads=advice.inter_op_threads if advice.inter_op_threads <= budget else 0,
    )
    return fitting, (note,)


def _shown(record: Optimization) -> str:
    where = _short(record.machine.gpu if record.provider in GPU_PROVIDERS else record.machine.cpu)
    on = f" on {where}" if where else ""
    if not record.winner:
        return f"nothing faster was found{on}"
    return f"{record.winner}; {record.score:.2g} ×{on}" if record.score is not None else f"{record.winner}{on}"


def _short(name: str) -> str:
    return name if len(name) <= _MOST_NAME else name[: _MOST_NAME - 1] + "…"
