"""Shapes inside a graph, as quantization and the half-precision passes need them: told by the file, and right."""

from __future__ import annotations

from pathlib import Path

from tensorquay_convert.optimize.passes.api import Workbench


def prepared(source: Path, target: Path, bench: Workbench) -> tuple[str, ...]:
    """Write `source` to `target` with the shapes of its inner values inferred afresh; notes for the user.

    Raises: OSError; BadSource for weights that are missing.
    """
    raise NotImplementedError
