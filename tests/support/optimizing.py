"""Samples and a workbench for tests of the optimizer, made without its `prepare` job."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tensorquay_convert.optimize import files
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.results import Point, Subject
from tensorquay_convert.optimize.samples import Group, Index, Samples, write_index
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.tensors import Array, Arrays

Rows = int | Sequence[int]


def samples_folder(
    tmp_path: Path,
    inputs: Arrays | Sequence[Arrays],
    labels: Array | None = None,
    *,
    calibration: Rows | None = None,
    judging: Rows | None = None,
    points: Sequence[Point] = (),
    batched: bool = True,
    real: bool = True,
    seed: int = 0,
) -> Path:
    """A finished folder `tmp_path/samples`.

    Args:
        inputs: input name → rows; or several of them, for groups of several shapes.
        labels: one per row of the first group.
        calibration, judging: of every group, row numbers or how many; calibration takes the first rows (default: half)
            and judging those after them (default: all that are left).
        points: default: one of batch 1 on the first group, or of batch 0 without a batch axis.
    """
    folder = tmp_path / "samples"
    folder.mkdir(parents=True)
    groups = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    listed = []
    for number, arrays in enumerate(groups):
        rows = len(next(iter(arrays.values())))
        names = {}
        for place, (name, array) in enumerate(arrays.items()):
            assert len(array) == rows, f"input '{name}' has {len(array)} rows, the first has {rows}"
            names[name] = f"g{number}-i{place}.npy"
            np.save(folder / names[name], array, allow_pickle=False)
        labelled = ""
        if labels is not None and number == 0:
            assert len(labels) == rows
            labelled = f"g{number}-labels.npy"
            np.save(folder / labelled, labels, allow_pickle=False)
        first = _rows(rows // 2 if calibration is None else calibration, 0)
        after = max(first, default=-1) + 1
        second = _rows(rows - after if judging is None else judging, after)
        assert not set(first) & set(second), "calibration and judging overlap"
        listed.append(Group(f"group {number}", rows, names, first, second, {}, labelled))
    default = Point("batch 1", 1, 0) if batched else Point("one request", 0, 0)
    write_index(folder, Index(tuple(listed), tuple(points) or (default,), batched, real, seed))
    return folder


def _rows(wanted: Rows, start: int) -> tuple[int, ...]:
    return tuple(range(start, start + wanted)) if isinstance(wanted, int) else tuple(wanted)


def subject(path: Path, *, batched: bool = True) -> Subject:
    """The plain facts of a file; `quantized` stays empty."""
    model = onnx.load(str(path), load_external_data=False)
    operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node)
    opset = next(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Subject(
        path.stem, digest, files.size(path), opset, len(model.graph.node), dict(operators), {}, batched,
        {each.name: "" for each in model.graph.input}, {each.name: "" for each in model.graph.output}, 0,
    )  # fmt: skip


def bench(tmp_path: Path, model: Path, samples: Path, **changes: Any) -> Workbench:
    """A workbench over `samples` with `model` as the baseline.

    Its scratch folder is `tmp_path/scratch`; what a pass says goes nowhere unless `say` is among `changes`, which
    replace any field.
    """
    scratch = tmp_path / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    read = Samples(samples)
    fields: dict[str, Any] = {
        "baseline": model,
        "subject": subject(model, batched=read.index.batched),
        "samples": read,
        "scratch": scratch,
        "rules": GateRules(),
        "settings": Settings(),
        "seed": 0,
        "say": lambda said: None,
    }
    return Workbench(**(fields | changes))
