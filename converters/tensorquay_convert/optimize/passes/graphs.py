"""The two ends of a graph pass: a model opened so that no library can spoil its interface, and one written and tried.

Libraries drop optional inputs, rename axes, refine the types of outputs. What callers see is taken from the source.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.optimize import files, session
from tensorquay_convert.optimize.passes import counts
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.sources import onnx_graph, onnx_rules

_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\(\d+\) node with name '([^']*)'")
_SINCE_IR = 4
"""From this file format on an initialiser is an input only when it is listed as one."""


@dataclass(slots=True)
class Opened:
    """A model in memory. Owner: the pass that opened it.

    Args:
        model: to be rewritten; its optional inputs are plain ones here, or they would be folded as constants.
        inputs, outputs: of the source, which `write` puts back.
        optional: default values of optional inputs.
        before: operators of the source. began: seconds of the monotonic clock.
    """

    model: Any
    inputs: list[Any]
    outputs: list[Any]
    optional: list[Any]
    before: dict[str, int]
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it was opened."""
        return time.monotonic() - self.began


def opened(source: Path) -> Opened:
    """The model at `source` with its weights. Raises: OSError; BadSource for weights that are missing."""
    began = time.monotonic()
    model = onnx.load(str(source), load_external_data=False)
    if onnx_graph.external_files(model, source.parent):
        onnx.load_external_data_for_model(model, str(source.parent))
    plain_inputs(model)
    inputs, outputs = list(map(_copy, model.graph.input)), list(map(_copy, model.graph.output))
    before = dict(counts.operators(model))
    return Opened(model, inputs, outputs, hold_optional(model), before, began)


def plain_inputs(model: Any) -> None:
    """Before IR 4 every initialiser was listed as an input; nobody meant callers to give them."""
    if model.ir_version < _SINCE_IR:
        kept = [_copy(each) for each in onnx_graph.graph_inputs(model)]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = 8


def hold_optional(model: Any) -> list[Any]:
    """Take the default values of optional inputs out of `model`, so that nobody takes them for constants."""
    declared = {value.name for value in model.graph.input}
    numbers = [number for number, each in enumerate(model.graph.initializer) if each.name in declared]
    held = [_copy(model.graph.initializer[number]) for number in numbers]
    for number in reversed(numbers):
        del model.graph.initializer[number]
    return held


def write(model: Any, source: Opened, target: Path, settings: Settings) -> None:
    """Write a rewritten `model` with the interface of its source, and try it.

    Raises: Unsupported when an output is lost or the runtime does not load it; OSError.
    """
    restore(model, source)
    files.save(model, target)
    try_out(target, settings)


def restore(model: Any, source: Opened) -> None:
    """Give `model` the inputs and outputs of `source`: names, order, types, axes, default values.

    Raises: Unsupported when an output's value is not there any more.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output} | {each.name for each in graph.initializer}
    made |= {value.name for value in source.inputs}
    given = [value.name for value in graph.output]
    for number, value in enumerate(source.outputs):
        if value.name in made:
            continue
        # Of two outputs that are always equal, a library computes one and gives it out twice.
        if len(given) != len(source.outputs) or given[number] not in made:
            raise Unsupported(f"the rewritten graph has lost its output {onnx_graph.short(value.name)}")
        graph.node.append(onnx.helper.make_node("Identity", [given[number]], [value.name]))
    for values, originals in ((graph.input, source.inputs), (graph.output, source.outputs)):
        del values[:]
        values.extend(originals)
    graph.initializer.extend(source.optional)


def unchanged(source: Path, target: Path) -> None:
    """Write `source` to `target` as it is. Raises: OSError; BadSource for weights that are missing."""
    model = onnx.load(str(source), load_external_data=False)
    if onnx_graph.external_files(model, source.parent):
        files.save(files.load(source), target)
    else:
        shutil.copyfile(source, target)


def as_it_was(
    name: str, source: Path, target: Path, why: str, *, seconds: float = 0.0, notes: tuple[str, ...] = ()
) -> PassReport:
    """Write `source` to `target` as it is, and report that. `why`: the report's sentence."""
    unchanged(source, target)
    return PassReport(name, changed=False, summary=why, seconds=seconds, notes=notes)


def try_out(path: Path, settings: Settings) -> None:
    """Load a model as a server would. Raises: Unsupported with the runtime's reason."""
    try:
        session.open_session(path, settings).close()
    except session.DoesNotRun as exc:
        lacking = _NO_KERNEL.search(exc.sentence)
        if lacking is None:
            raise Unsupported(f"the rewritten model is refused: {exc.sentence}") from exc
        where = f" (node {onnx_graph.short(lacking[2])})" if lacking[2] else ""
        raise Unsupported(
            f"ONNX Runtime has no code for {lacking[1]} with these types on provider {settings.provider}{where}"
        ) from exc


def said(exc: BaseException, folder: Path | None = None) -> str:
    """The first line of a library's error, without `folder` in it."""
    return session.clean(onnx_rules.first_line(exc), folder or Path())


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what a library prints and logs off the user's terminal. Yields the warnings it logged."""
    heard: list[str] = []

    class _Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    root, ear = logging.getLogger(), _Ear(logging.WARNING)
    kept, root.handlers = root.handlers, [ear]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield heard
    finally:
        root.handlers = kept


def _copy(message: Any) -> Any:
    found = type(message)()
    found.CopyFrom(message)
    return found
