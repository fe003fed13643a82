"""Write a PyTorch model as ONNX: several exporters in turn, the first whose file really runs at other sizes is taken.

`torch.onnx.export(dynamo=True)` itself tries `torch.export` with strict=False, then strict=True. What it cannot say is
tried with the old tracing exporter, which PyTorch will remove one day (docs/import.md, "PyTorch").
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from tensorquay_convert.api import Exported, Say
from tensorquay_convert.errors import Unsupported
from tensorquay_convert.sources.torch_failures import Failure, explain, user_line
from tensorquay_convert.sources.torch_names import UNWANTED, finish, placeholder_names
from tensorquay_convert.tensors import Array, Arrays, Interface

EXTERNAL_ABOVE_BYTES = 1_500_000_000
"""Weights beyond this go into a file beside the model: protobuf ends at 2 GB."""

_FARTHEST = 1e-2
"""Relative error above which an attempt counts as wrong. Only a choice between exporters: the proof decides."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What is known of the model as it was exported: the program whose node names the graph's values have."""

    program: Any
    given_way: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an exporter is to write.

    Args: interface: names and axes. inputs: to trace with. others: inputs at other sizes with the model's own answers.
    """

    interface: Interface
    inputs: tuple[torch.Tensor, ...]
    others: Sequence[tuple[Arrays, Mapping[str, Array]]]
    opset: int | None
    weight_bytes: int


Attempt = tuple[str, Callable[[Wanted, Path], Any]]
"""Its name, and what writes the file under `placeholder_names`; gives the exported program, or None."""


def dynamo(module: Any) -> Attempt:
    """`torch.export`, then translation operator by operator. `module`: an nn.Module of flat tensors."""

    def write(wanted: Wanted, path: Path) -> Any:
        shapes = tuple(
            {place: axis for place, axis in enumerate(each.shape or ()) if isinstance(axis, str)}
            for each in wanted.interface.inputs
        )
        given = {"dynamic_shapes": {"tensors": shapes}} if any(shapes) else {}
        return _program(module, wanted, path, args=wanted.inputs, **given)

    return "torch.onnx.export(dynamo=True)", write


def program(exported: Any) -> Attempt:
    """Translation of a program that was exported before."""
    return "torch.onnx.export of the exported program", lambda wanted, path: _program(exported, wanted, path)


def tracing(module: Any, found: Sequence[str] = ()) -> Attempt:
    """The old exporter: runs the module once and writes down what happened; scripted modules it reads.

    Args: found: names of all the module's outputs, when the interface may have fewer.
    """

    def write(wanted: Wanted, path: Path) -> Any:
        inputs, outputs = placeholder_names(wanted.interface)
        by_name = dict(zip((each.name for each in wanted.interface.outputs), outputs, strict=True))
        axes = {
            name: {place: axis for place, axis in enumerate(each.shape or ()) if isinstance(axis, str)}
            for name, each in [
                *zip(inputs, wanted.interface.inputs, strict=True),
                *zip(outputs, wanted.interface.outputs, strict=True),
            ]
        }
        torch.onnx.export(
            module,
            wanted.inputs,
            path,
            dynamo=False,
            input_names=inputs,
            output_names=[by_name.get(name, f"{UNWANTED}{name}") for name in found] or outputs,
            dynamic_axes={name: each for name, each in axes.items() if each},
            opset_version=wanted.opset,
        )

    return "torch.onnx.export(dynamo=False)", write


def _program(model: Any, wanted: Wanted, path: Path, **given: Any) -> Any:
    inputs, outputs = placeholder_names(wanted.interface)
    written = torch.onnx.export(
        model,
        dynamo=True,
        input_names=inputs,
        output_names=outputs,
        opset_version=wanted.opset,
        verbose=False,
        optimize=True,
        **given,
    )
    written.save(path, external_data=wanted.weight_bytes > EXTERNAL_ABOVE_BYTES)
    return written.exported_program


def export(attempts: Sequence[Attempt], wanted: Wanted, target: Path, say: Say) -> tuple[Exported, Traced]:
    """Write `target` with the first exporter whose file runs at other sizes and is not far off.

    When none is, but some file could be written, the first of those stays: the proof refuses it and says where.
    Raises: Unsupported when nothing could be written.
    """
    tried: list[str] = []
    failures: list[Failure] = []
    flawed: list[tuple[Attempt, str]] = []
    for attempt in attempts:
        name = attempt[0]
        say(f"exporting with {name}")
        try:
            traced, notes = _write(attempt, wanted, target)
        except Exception as exc:  # noqa: BLE001  exporters raise anything; it is told with the attempt
            _remove(target)
            failures.append(explain(exc))
            tried.append(f"{name}: {failures[-1].sentence}")
            continue
        problem = _problem(target, wanted)
        if not problem:
            return _exported(name, target, wanted, tried, notes), traced
        tried.append(f"{name}: {problem}")
        flawed.append((attempt, problem))
        _remove(target)
    if flawed:
        attempt, problem = flawed[0]
        traced, notes = _write(attempt, wanted, target)
        return _exported(attempt[0], target, wanted, tried, (*notes, f"the exported model {problem}")), traced
    raise _unsupported(failures, tried)


def _write(attempt: Attempt, wanted: Wanted, target: Path) -> tuple[Traced, tuple[str, ...]]:
    with quiet() as notes:
        traced = attempt[1](wanted, target)
    return Traced(traced, finish(target, wanted.interface)), tuple(notes)


def _exported(name: str, target: Path, wanted: Wanted, tried: Sequence[str], notes: tuple[str, ...]) -> Exported:
    imports = onnx.load(target, load_external_data=False).opset_import
    opset = next((each.version for each in imports if each.domain in {"", "ai.onnx"}), 0)
    if wanted.opset is not None and opset != wanted.opset:
        notes = (*notes, f"opset {wanted.opset} was asked for, the exporter wrote {opset}")
    return Exported(name, opset, tuple(tried), notes)


def _unsupported(failures: Sequence[Failure], tried: Sequence[str]) -> Unsupported:
    worst = next((each for each in failures if each.missing), failures[0])
    remedy = "replace the operator in the model, or ask for a newer --opset"
    if not worst.missing:
        remedy = "change that line of the model so that torch.export can follow it" if worst.line else ""
    return Unsupported(
        f"the model cannot be written as ONNX: {worst.sentence}",
        remedy=remedy,
        facts={"operator": worst.operator, "node": worst.node, "line": worst.line, "attempts": "; ".join(tried)},
    )


def _problem(target: Path, wanted: Wanted) -> str:
    """Why the file is not what is wanted, "" when it is: it must load, and answer at other sizes as the model does."""
    try:
        session = onnxruntime.InferenceSession(target, _options(), providers=["CPUExecutionProvider"])
    except Exception as exc:  # noqa: BLE001  ONNX Runtime's exceptions share no base; it is told
        return f"does not load in ONNX Runtime: {str(exc).splitlines()[0][:200]}"
    if any(each.dtype == "bfloat16" for each in (*wanted.interface.inputs, *wanted.interface.outputs)):
        # Its values do not pass through numpy; the proof knows how to run these.
        return ""
    outputs = [each.name for each in wanted.interface.outputs]
    for inputs, expected in wanted.others:
        shown = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        try:
            got = dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))
        except Exception as exc:  # noqa: BLE001  idem
            return f"does not run at {shown}: {str(exc).splitlines()[0][:200]}"
        for name in outputs:
            if got[name].shape != expected[name].shape:
                return f"gives '{name}' {list(got[name].shape)} at {shown}, expected {list(expected[name].shape)}"
            if _far(got[name], expected[name]):
                return f"gives other values as '{name}' at {shown} than the model"
    return ""


def _far(got: Array, expected: Array) -> bool:
    if expected.dtype.kind != "f" or not expected.size:
        return False
    scale = max(float(np.nanmax(np.abs(expected), initial=0)), 1e-3)
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    return bool(np.nanmax(difference, initial=0) > _FARTHEST * scale)


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def _remove(target: Path) -> None:
    for each in (target, target.with_name(f"{target.name}.data")):
        each.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Exporters in silence: their own warnings, log lines and prints. Yields the tracer's warnings worth telling."""
    notes: list[str] = []
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    plain_show = warnings.showwarning
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # The exporters' own; what the model warns of, it said when it was run.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=torch.jit.TracerWarning)

            def show(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
                if issubclass(category, torch.jit.TracerWarning):
                    place = user_line(f'File "{filename}", line {lineno}, in forward')
                    note = f"tracing fixed a choice at {place}: {str(message).split('.')[0]}"
                    if place and note not in notes:
                        notes.append(note)
                else:
                    plain_show(message, category, filename, lineno, *rest)

            warnings.showwarning = show  # type: ignore[assignment]  # ours takes what it passes on as it comes
            yield notes
    finally:
        logger.setLevel(level)
