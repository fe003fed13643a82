"""Open exported programs (`torch.export.save`, .pt2): graphs and tensors, without the model's class."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_unflatten

from tensorquay_convert.api import Say
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import torch_onnx
from tensorquay_convert.sources.torch_arguments import Arguments, FlatModule
from tensorquay_convert.sources.torch_module import ModuleSource, Opened, assemble
from tensorquay_convert.sources.torch_tensors import dtype_name, seeded, to_tensor
from tensorquay_convert.sources.torch_trust import check_exported_program, weights_only
from tensorquay_convert.tensors import BATCH, Axis, AxisRange, Values

_UNBOUNDED = 1 << 30
"""torch.export's "no upper bound" is a huge number, or infinity."""
_ASSUMED = 2
"""The lower bound older versions write for every size, whether the model needs it or not."""


class TorchExportConverter:
    """Opens .pt2 files."""

    kinds: tuple[SourceKind, ...] = (SourceKind.TORCH_EXPORT,)
    extra = "torch"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> ModuleSource:
        path = Path(job.source)
        types = check_exported_program(path, path.name)
        if any(each.startswith("transformers.") for each in types):
            # Their containers are known to PyTorch once they are imported.
            importlib.import_module("transformers.modeling_outputs")
        say("loading the exported program")
        program = _load(path)
        return open_program(program, job, Opened(kind, "a PyTorch exported program", (path,)))


def open_program(program: Any, job: ImportJob, opened: Opened) -> ModuleSource:
    """An `ExportedProgram` as a source. Raises: BadSource, for one without dynamic sizes unless `job.static`."""
    given = _user_inputs(program)
    sizes = {name: tuple(value.shape) for name, value in given.items() if isinstance(value, torch.Tensor)}
    if not job.static and all(isinstance(size, int) for shape in sizes.values() for size in shape):
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in sizes.items())
        raise BadSource(
            f"the exported program is fixed to its example's sizes ({shown}), the batch too",
            remedy="export it with dynamic_shapes={'NAME': {0: torch.export.Dim('batch')}}, or import it with --static",
        )
    axes = _axis_names(sizes, job)
    shapes: dict[str, tuple[Axis, ...]] = {
        name: tuple(size if isinstance(size, int) else axes[str(size)] for size in shape)
        for name, shape in sizes.items()
    }
    ranges = {
        axes[str(symbol)]: _bounds(each) for symbol, each in program.range_constraints.items() if str(symbol) in axes
    }
    call = _call(program, given, shapes, ranges, job)
    known = {axis: each for axis, each in ranges.items() if each.high is not None or each.low > _ASSUMED}
    opened = dataclasses.replace(opened, known_axes=known)

    def attempts(kept: Any) -> Sequence[torch_onnx.Attempt]:
        # The program itself has every output; one that keeps only some has to be captured again.
        first = torch_onnx.dynamo(kept) if job.outputs else torch_onnx.program(program)
        return (first, torch_onnx.tracing(kept))

    return assemble(FlatModule(program.module(check_guards=False), call), [call], shapes, job, opened, attempts)


def _load(path: Path) -> Any:
    logger = logging.getLogger("torch")
    level = logger.level
    # It logs the whole stack of what it raises a moment later.
    logger.setLevel(logging.CRITICAL)
    try:
        with weights_only():
            program = torch.export.load(path)
    except Exception as exc:
        raise BadSource(
            f"'{path.name}' cannot be loaded as an exported program: {type(exc).__name__}: {_first_line(exc)}",
            remedy=f"save it with PyTorch {torch.__version__}, or import with the PyTorch that saved it (--python)",
        ) from exc
    finally:
        logger.setLevel(level)
    # Strings that torch would run as code to check the inputs' sizes; the interface says them already.
    program._guards_code = []
    return program


def _user_inputs(program: Any) -> dict[str, Any]:
    """Inputs by name in order: symbolic tensors, and values that are fixed in the program.

    Raises: BadSource for sizes as inputs.
    """
    symbolic = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    given: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind.name != "USER_INPUT":
            continue
        value = symbolic.get(spec.arg.name)
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise BadSource(
                f"the exported program takes a plain number that may change as '{spec.arg.name}'",
                remedy="export a module that takes it as a tensor",
            )
        given[spec.arg.name] = value if isinstance(value, torch.Tensor) else getattr(spec.arg, "value", None)
    return given


def _axis_names(sizes: Mapping[str, tuple[Any, ...]], job: ImportJob) -> dict[str, str]:
    """Names by symbol ("s77"): the user's, "batch" for axis 0, else the input's name and the place.

    Raises: BadSource when --dynamic names an axis that is fixed in the program.
    """
    axes: dict[str, str] = {}
    for each in job.dynamic:
        shape = sizes.get(each.tensor)
        if shape is None or not -len(shape) <= each.axis < len(shape) or isinstance(shape[each.axis], int):
            found = ", ".join(f"{name} {[str(size) for size in shape]}" for name, shape in sizes.items())
            raise BadSource(
                f"--dynamic names axis {each.axis} of '{each.tensor}', which is not dynamic in the program ({found})",
                remedy="export it with dynamic_shapes that name this axis: a saved program cannot be widened",
            )
        axes[str(shape[each.axis])] = each.name
    for name, shape in sizes.items():
        for place, size in enumerate(shape):
            if not isinstance(size, int):
                free = BATCH if place == 0 and BATCH not in axes.values() else f"{name}_{place}"
                axes.setdefault(str(size), free)
    return axes


def _bounds(constraint: Any) -> AxisRange:
    upper = constraint.upper
    high = int(upper) if upper.is_Integer and int(upper) < _UNBOUNDED else None
    return AxisRange(low=max(1, int(constraint.lower)), high=high)


def _call(
    program: Any,
    given: Mapping[str, Any],
    shapes: Mapping[str, tuple[Axis, ...]],
    ranges: Mapping[str, AxisRange],
    job: ImportJob,
) -> Arguments:
    """The program's own example inputs where it has them, else seeded ones."""
    leaves = tree_leaves(program.example_inputs) if program.example_inputs is not None else []
    if len(leaves) != len(given) or not all(
        isinstance(leaf, torch.Tensor) for leaf, value in zip(leaves, given.values(), strict=True) if _tensor(value)
    ):
        size = {axis: max(2 + place, ranges.get(axis, AxisRange()).low) for place, axis in enumerate(_dynamic(shapes))}
        leaves = [
            to_tensor(
                seeded(
                    dtype, [size[axis] if isinstance(axis, str) else axis for axis in shapes[name]], Values(), job.seed
                ),
                dtype,
            )
            if _tensor(value) and (dtype := dtype_name(value.dtype, f"input '{name}'"))
            else value
            for name, value in given.items()
        ]
    args, kwargs = tree_unflatten(leaves, program.call_spec.in_spec)
    tensors = {name: leaf for name, leaf in zip(given, leaves, strict=True) if isinstance(leaf, torch.Tensor)}
    fixed = tuple(
        f"{name} = {value!r}"[:80] for name, value in given.items() if not _tensor(value) and value is not None
    )
    return Arguments(args, kwargs, tuple(tensors), tuple(tensors.values()), fixed)


def _dynamic(shapes: Mapping[str, tuple[Axis, ...]]) -> list[str]:
    return list(dict.fromkeys(axis for shape in shapes.values() for axis in shape if isinstance(axis, str)))


def _tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _first_line(exc: BaseException) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), "no message")[:200]
