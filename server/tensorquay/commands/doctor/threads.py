"""How many threads the server would use, and whether that is a good number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tensorquay.commands.doctor.findings import Finding, note, ok, warning
from tensorquay.config.resources import CpuBudget
from tensorquay.config.server import ServerConfig

_OPENMP = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY")


def examine(config: ServerConfig, budget: CpuBudget, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about threads. `budget`: what the container and the affinity allow."""
    if not config.threads:
        yield ok("threads.models", f"models would use {budget.reason}")
    elif config.threads > budget.threads:
        yield warning(
            "threads.models",
            f"models would use {config.threads} threads, as configured ({config.origin('threads')}), and there are "
            f"CPUs for {budget.reason}: the others only wait for each other",
            "leave out --threads",
        )
    else:
        yield ok(
            "threads.models", f"models would use {config.threads} threads, as configured ({config.origin('threads')})"
        )
    if config.frontends >= max(budget.threads, 2):
        yield warning(
            "threads.frontends",
            f"{config.frontends} front-end processes leave the models no CPU of {budget.threads}",
            'docs/performance.md, "More than one loop", says when they pay',
        )
    given = [name for name in _OPENMP if environment.get(name)]
    if given:
        yield note(
            "threads.openmp",
            f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set: ONNX Runtime does not use OpenMP, so "
            "that changes nothing for ONNX models",
        )
