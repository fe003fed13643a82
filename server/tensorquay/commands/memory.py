"""Too little memory, said before the kernel ends the process without a word."""

from __future__ import annotations

from pathlib import Path

import click

from tensorquay.config.resources import memory_budget

LEAST_BYTES = 80 * 2**20
"""What the server takes with models of a few kilobytes, as measured in containers with limits of 40, 56, 72 … MiB
(docs/container.md): with 56 MiB it was killed while it loaded them, with 72 it served."""


def refuse_too_little_memory(root: Path = Path("/")) -> None:
    """Raises: ClickException when the memory limit of this process leaves no room for the server itself.

    Args: root: where `proc` and `sys` are found.
    """
    budget = memory_budget(root)
    if budget.limit_bytes is not None and budget.limit_bytes < LEAST_BYTES:
        raise click.ClickException(
            f"too little memory: {budget.reason}, and the server needs {LEAST_BYTES} ({LEAST_BYTES >> 20} MiB) "
            "before any model of weight; raise the limit (--memory, or resources.limits.memory in Kubernetes)"
        )
