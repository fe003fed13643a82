"""The optimize command for one version: what the server calls it with, and what came of it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay.config.model import OptimizationConfig
from tensorquay.config.refusal import printable
from tensorquay.running.command import Allowance, TooLong, run_command

_GRACE_S = 1800.0
"""How much longer than its budget the command may take: what it has begun, it ends, and others have the processors."""

_MAX_TEXT = 1000
_LASTING = frozenset({3, 5, 6})
"""Exit codes that the same model will meet again: bad source, unsupported, not equal (docs/import.md)."""


@dataclass(frozen=True, slots=True)
class OptimizeTask:
    """Optimise `version` of `name` in `repository`; `data` and `labels` are checked files; `report`: where it goes."""

    name: str
    repository: Path
    version: int
    goals: OptimizationConfig
    data: Path | None = None
    labels: Path | None = None
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class OptimizeLimits:
    """What an optimisation may take. `processors` 0: all. `memory_bytes` 0: the command's own default."""

    processors: int = 0
    memory_bytes: int = 0


class Result(enum.Enum):
    """What became of an optimisation; the value is what the command says, where it says it."""

    OPTIMIZED = "optimized"
    KEPT = "kept"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one run.

    Args:
        sentence: for the log; may name files of this machine.
        version: that was published; 0: none.
        lasting: trying the same again would end in the same way.
    """

    result: Result
    sentence: str
    version: int = 0
    lasting: bool = True


async def run_optimize(task: OptimizeTask, limits: OptimizeLimits, say: Callable[[str], None]) -> Outcome:
    """Carry out `task`. Cancelling it kills the command and everything it started.

    Raises: Unavailable when it cannot be started.
    """
    budget_s = task.goals.time_budget_s
    allowance = Allowance(budget_s + _GRACE_S, background=True, processors=limits.processors)
    try:
        ended = await run_command(list(arguments(task, limits)), allowance, say)
    except TooLong:
        return Outcome(Result.FAILED, f"it took longer than {budget_s + _GRACE_S:g} s", lasting=False)
    return outcome(ended.status, ended.result)


def arguments(task: OptimizeTask, limits: OptimizeLimits) -> Iterator[str]:
    """Of the command line."""
    goals = task.goals
    yield from ("optimize", f"--repository={task.repository}", f"--version={task.version}")
    yield from ("--json", "--progress=json")
    yield from (f"--time-budget={goals.time_budget_s:g}", f"--objective={goals.objective}")
    if task.data is not None:
        yield f"--data={task.data}"
    if task.labels is not None:
        yield f"--labels={task.labels}"
    if goals.max_drop is not None:
        yield f"--max-drop={_digits(goals.max_drop * 100)}%"
    if goals.min_cosine is not None:
        yield f"--min-cosine={_digits(goals.min_cosine)}"
    if goals.metric:
        yield f"--metric={goals.metric}"
    if goals.batches:
        yield f"--batch={','.join(map(str, sorted(goals.batches)))}"
    if task.report is not None:
        yield f"--report={task.report}"
    if limits.memory_bytes:
        yield f"--memory-limit={limits.memory_bytes}"
    yield from ("--", task.name)


def outcome(status: int, said: dict[str, Any]) -> Outcome:
    """What the command's exit status and last words mean."""
    sentence = _text(said, "sentence")
    if status == 0:
        if said.get("result") == Result.KEPT.value:
            return Outcome(Result.KEPT, sentence)
        if said.get("result") == Result.OPTIMIZED.value:
            version = said.get("version")
            if isinstance(version, int) and not isinstance(version, bool) and version > 0:
                return Outcome(Result.OPTIMIZED, sentence, version)
            return Outcome(Result.FAILED, f"it names no version that it has published ({sentence})", lasting=False)
    if not sentence:
        return Outcome(Result.FAILED, f"it ended without saying why (exit status {status})", lasting=False)
    remedy = _text(said, "remedy")
    return Outcome(Result.FAILED, f"{sentence}; {remedy}" if remedy else sentence, lasting=status in _LASTING)


def _digits(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    return printable(value[:_MAX_TEXT]) if isinstance(value, str) else ""
