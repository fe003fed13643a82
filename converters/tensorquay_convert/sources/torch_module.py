"""A PyTorch model in hand, whatever it was loaded from: runs it, exports it, looks inside it.

Python's own way in for a module object is `open_module`; the converters of files end up in `ModuleSource` too.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tensorquay_convert.api import Exported, Say, SourceFacts
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import DeclaredInput, ImportJob, SourceKind
from tensorquay_convert.sources import torch_onnx
from tensorquay_convert.sources.torch_arguments import Arguments, FlatModule, arguments, parameters
from tensorquay_convert.sources.torch_axes import Probed, name_axes, probe
from tensorquay_convert.sources.torch_failures import own_words
from tensorquay_convert.sources.torch_inside import values_inside
from tensorquay_convert.sources.torch_tensors import DTYPES, dtype_name, resized, seeded, to_array, to_tensor
from tensorquay_convert.sources.torch_values import RowsLookedUp, guess
from tensorquay_convert.tensors import BATCH, Array, Arrays, Axis, AxisRange, TensorSpec, Values

_SAME = 1e-5
"""How far two runs of a model on the same inputs may be apart, relative to its largest value."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a converter knows of a model it loaded, besides the module itself.

    Args:
        known_values: of inputs, where the source tells; the rest is guessed by watching the model.
        known_axes: bounds of dynamic axes that the source tells.
        output_names: replace the names found, in order; empty: keep them.
        close: restores what opening changed.
    """

    kind: SourceKind
    what: str
    files: tuple[Path, ...] = ()
    side_files: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    known_values: Mapping[str, Values] = field(default_factory=dict)
    known_axes: Mapping[str, AxisRange] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    close: Callable[[], None] | None = None


class Runner:
    """Runs a flat module on named arrays. `dtypes`: of the outputs it gives, `found`: names of all, once it ran."""

    def __init__(self, module: FlatModule, names: Sequence[str], dtypes: Sequence[str], outputs: Sequence[str]) -> None:
        self._module = module
        self._inputs = tuple(zip(names, dtypes, strict=True))
        self._output_names = outputs
        self._kept: tuple[str, ...] = ()
        self.dtypes: dict[str, str] = {}
        self.found: tuple[str, ...] = ()

    def keep(self, names: Sequence[str]) -> None:
        """Give only these outputs from now on. Raises: BadSource for one that is not there."""
        for name in names:
            if name not in self.dtypes:
                raise BadSource(
                    f"the model has no output '{name}', it has {', '.join(self.dtypes)}",
                    remedy="use one of these names",
                )
        self._kept = tuple(names)
        self.dtypes = {name: self.dtypes[name] for name in names}

    def tensors(self, inputs: Arrays) -> tuple[torch.Tensor, ...]:
        """The inputs in the module's order."""
        return tuple(to_tensor(inputs[name], dtype) for name, dtype in self._inputs)

    def __call__(self, inputs: Arrays) -> Mapping[str, Array]:
        with exactly():
            return {name: to_array(each) for name, each in self.outputs(self.tensors(inputs))}

    def outputs(self, tensors: Sequence[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        """The outputs that are kept, under their final names. Raises: BadSource when they cannot be called so."""
        taken = {name for name, _ in self._inputs}
        found = [(f"{name}_out" if name in taken else name, each) for name, each in self._module.named(tensors)]
        if self._output_names:
            if len(self._output_names) != len(found):
                raise BadSource(
                    f"{len(self._output_names)} output names are given, the model has {len(found)} outputs",
                    remedy="name every output, in order",
                )
            found = [(name, each) for name, (_, each) in zip(self._output_names, found, strict=True)]
        if self._kept:
            by_name = dict(found)
            return [(name, by_name[name]) for name in self._kept]
        self.found = tuple(name for name, _ in found)
        self.dtypes = {name: dtype_name(each.dtype, f"output '{name}'") for name, each in found}
        return found


class KeptOutputs(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """A flat module that gives exactly what its runner gives: the graph has no output nobody asked for."""

    def __init__(self, module: FlatModule, runner: Runner) -> None:
        super().__init__()
        self.module = module
        self.runner = runner

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs in the interface's order."""
        return tuple(each for _, each in self.runner.outputs(tensors))


class ModuleSource:
    """An opened PyTorch model. Used by one thread."""

    def __init__(
        self,
        facts: SourceFacts,
        runner: Runner,
        probed: Probed,
        attempts: Sequence[torch_onnx.Attempt],
        *,
        opset: int | None,
        weight_bytes: int,
        close: Callable[[], None] | None,
    ) -> None:
        self._facts = facts
        self._runner = runner
        self._probed = probed
        self._attempts = attempts
        self._opset = opset
        self._weight_bytes = weight_bytes
        self._close = close
        self._traced: torch_onnx.Traced | None = None

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        return self._runner(inputs)

    def export(self, target: Path, say: Say) -> Exported:
        wanted = torch_onnx.Wanted(
            self._facts.interface,
            self._runner.tensors(self._probed.inputs),
            [(inputs, self._runner(inputs)) for inputs in self._other_inputs()],
            self._opset,
            self._weight_bytes,
        )
        exported, self._traced = torch_onnx.export(self._attempts, wanted, target, say)
        return exported

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        if self._traced is None or self._traced.program is None:
            return {}
        with exactly():
            return values_inside(self._traced.program, self._runner.tensors(inputs), names, self._traced.given_way)

    def close(self) -> None:
        self._traced = None
        if self._close is not None:
            self._close()

    def _other_inputs(self) -> Iterator[Arrays]:
        """Inputs with every dynamic axis at another size, larger and smaller; the traced ones when there is none."""
        interface, sizes = self._facts.interface, self._probed.sizes
        for direction in (1, -1) if sizes else ():
            other = {}
            for axis, size in sizes.items():
                bounds = interface.axes.get(axis, AxisRange())
                moved = size + direction * bounds.multiple
                fits = bounds.low <= moved <= (moved if bounds.high is None else bounds.high)
                other[axis] = moved if fits else size
            yield {
                each.name: resized(self._probed.inputs[each.name], each.shape or (), other) for each in interface.inputs
            }
        if not sizes:
            yield self._probed.inputs


def open_module(module: torch.nn.Module, example_inputs: Any, job: ImportJob) -> ModuleSource:
    """A module object of the caller's own process.

    Args:
        module: any nn.Module. It is put into eval mode until the source is closed, then back as it was.
        example_inputs: what forward takes: a tensor, a tuple by position, a mapping by name; a list of two such
            examples of different sizes says which axes are dynamic. None: `job.inputs` are declared instead.
    Raises: BadSource.
    """
    opened = Opened(SourceKind.TORCH_FACTORY, f"a PyTorch module, {type(module).__name__}")
    return open_callable(module, example_inputs, job, opened)


def open_callable(
    module: torch.nn.Module,
    example_inputs: Any,
    job: ImportJob,
    opened: Opened,
    known_shapes: Mapping[str, tuple[Axis, ...]] | None = None,
) -> ModuleSource:
    """As `open_module`, for converters that know more about the inputs. Raises: BadSource."""
    if not isinstance(module, torch.nn.Module):
        raise BadSource(
            f"expected a torch.nn.Module, got {type(module).__name__}", remedy="give the module itself, not its class"
        )
    module, restore = _for_inference(module)
    calls, shapes = _calls(module.forward, example_inputs, job)
    shapes = {**{name: each for name, each in (known_shapes or {}).items() if name in calls[0].names}, **shapes}
    notes = tuple(f"the argument {each} is fixed in the exported model" for each in calls[0].fixed)
    flat = FlatModule(module, calls[0])

    close_before = opened.close

    def close() -> None:
        restore()
        if close_before is not None:
            close_before()

    opened = replace(opened, notes=(*opened.notes, *notes), close=close)
    return assemble(flat, calls, shapes, job, opened, lambda kept: (torch_onnx.dynamo(kept), torch_onnx.tracing(kept)))


def assemble(
    flat: FlatModule,
    calls: Sequence[Arguments],
    declared: Mapping[str, tuple[Axis, ...]],
    job: ImportJob,
    opened: Opened,
    attempts: Callable[[KeptOutputs], Sequence[torch_onnx.Attempt]],
) -> ModuleSource:
    """Find the interface by running the model, and make a source of it.

    Args: calls: one or two examples. declared: shapes of inputs that are known. attempts: exporters for the result.
    """
    # Not `eval()`: an exported program's module refuses the call. What is inside is in its mode already.
    flat.training = False
    names = calls[0].names
    dtypes = [dtype_name(each.dtype, f"input '{name}'") for name, each in zip(names, calls[0].tensors, strict=True)]
    examples = [dict(zip(names, map(to_array, each.tensors), strict=True)) for each in calls]
    runner = Runner(flat, names, dtypes, opened.output_names)
    shapes = name_axes(examples, declared, job)
    rows = _watch(runner, examples[0])
    if job.outputs and not opened.output_names:
        runner.keep(job.outputs)
    specs = []
    for place, (name, dtype) in enumerate(zip(names, dtypes, strict=True)):
        guessed = guess(name, dtype, examples[0][name], rows.get(place))
        specs.append(TensorSpec(name, dtype, shapes[name], opened.known_values.get(name, guessed)))
    probed = probe(runner, runner.dtypes, specs, examples[0], opened.known_axes)
    _refuse_randomness(runner, probed.inputs)
    kept = KeptOutputs(flat, runner)
    kept.training = False
    notes = opened.notes
    if not job.static and not any(BATCH in (spec.shape or ()) for spec in specs):
        notes = (*notes, "the inputs share no first axis, so there is no batch to stack requests on")
    count = sum(each.numel() for each in flat.parameters())
    facts = SourceFacts(
        kind=opened.kind,
        shown=f"{opened.what}, {len(specs)} input{'s'[: len(specs) != 1]}, {_millions(count)} parameters",
        interface=probed.interface,
        files=opened.files,
        versions={**_versions("torch", "onnxscript", "onnx"), **opened.versions},
        side_files=opened.side_files,
        labels=opened.labels,
        notes=notes,
    )
    state = [*flat.parameters(), *flat.buffers()]
    return ModuleSource(
        facts,
        runner,
        probed,
        attempts(kept),
        opset=job.opset,
        weight_bytes=sum(each.numel() * each.element_size() for each in state),
        close=opened.close,
    )


def declared_example(inputs: Sequence[DeclaredInput], seed: int) -> dict[str, torch.Tensor]:
    """Tensors for `--input` declarations; dynamic axes get sizes from 2 up, the same for the same name.

    Raises: BadSource for dtypes PyTorch does not have.
    """
    sizes: dict[str, int] = {}
    example = {}
    for place, each in enumerate(inputs):
        if each.dtype not in DTYPES:
            raise BadSource(
                f"input '{each.name}' is declared as {each.dtype}, which no PyTorch tensor has",
                remedy=f"use one of {', '.join(DTYPES)}",
            )
        for axis in each.shape:
            if isinstance(axis, str):
                sizes.setdefault(axis, 2 if axis == BATCH else 5 + len(sizes))
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in each.shape]
        example[each.name] = to_tensor(seeded(each.dtype, shape, Values(), seed + place), each.dtype)
    return example


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Inference mode, float32 products in full, the caller's random numbers left alone.

    The fast path of nn.TransformerEncoder is off: it writes zeros where a mask says padding, which no exporter follows.
    """
    precision, fast = torch.get_float32_matmul_precision(), torch.backends.mha.get_fastpath_enabled()
    torch.set_float32_matmul_precision("highest")
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.mha.set_fastpath_enabled(fast)


def _calls(
    forward: Callable[..., Any], example_inputs: Any, job: ImportJob
) -> tuple[list[Arguments], dict[str, tuple[Axis, ...]]]:
    """One or two calls, and the shapes `--input` declares for their inputs."""
    shapes: dict[str, tuple[Axis, ...]] = {}
    if example_inputs is None:
        if not job.inputs:
            raise BadSource(
                f"nothing says what the model takes; forward has the arguments {', '.join(parameters(forward)) or '…'}",
                remedy="declare them: --input 'NAME:float32[batch,3,224,224]', or give --example FILE",
            )
        drawn = declared_example(job.inputs, job.seed)
        by_name = set(drawn) <= set(parameters(forward))
        call = arguments(forward, drawn if by_name else tuple(drawn.values()))
        shapes = {name: each.shape for name, each in zip(call.names, job.inputs, strict=True)}
        return [call if by_name else replace(call, names=tuple(drawn))], _renamed(shapes, call, drawn, by_name)
    several = isinstance(example_inputs, list) and len(example_inputs) == 2 and not _is_tensor(example_inputs[0])
    calls = [arguments(forward, each) for each in (example_inputs if several else [example_inputs])]
    for each in calls[1:]:
        if each.names != calls[0].names:
            raise BadSource(
                f"the two examples have different inputs: {', '.join(calls[0].names)} and {', '.join(each.names)}",
                remedy="give the same inputs at two sizes",
            )
    declared = {each.name: each.shape for each in job.inputs if each.name in calls[0].names}
    return calls, declared


def _renamed(
    shapes: dict[str, tuple[Axis, ...]], call: Arguments, drawn: Mapping[str, Any], by_name: bool
) -> dict[str, tuple[Axis, ...]]:
    return shapes if by_name else {new: shapes[old] for old, new in zip(call.names, drawn, strict=True)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _for_inference(module: torch.nn.Module) -> tuple[torch.nn.Module, Callable[[], None]]:
    """The module on the CPU in eval mode, and what puts it back. On another device: a copy of it."""
    if any(each.device.type != "cpu" for each in (*module.parameters(), *module.buffers())):
        return copy.deepcopy(module).cpu().eval(), lambda: None
    training = [(each, each.training) for each in module.modules()]

    def restore() -> None:
        for each, was in training:
            each.training = was

    module.eval()
    return module, restore


def _watch(runner: Runner, example: Arrays) -> Mapping[int, int]:
    """Run once on the example itself. Raises: BadSource in the model's own words."""
    tensors = runner.tensors(example)
    watcher = RowsLookedUp(tensors)
    try:
        with exactly(), watcher:
            runner.outputs(tensors)
    except BadSource:
        raise
    except Exception as exc:
        shown = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in example.items())
        raise BadSource(
            f"the model raises on the example inputs ({shown}): {own_words(exc)}",
            remedy="give example inputs the model takes",
        ) from exc
    return watcher.rows


def _refuse_randomness(runner: Runner, inputs: Arrays) -> None:
    """Refuse a model that gives another answer each time: nothing could be proven equal to it."""
    with torch.random.fork_rng(devices=[]):
        first = _with_seed(runner, inputs, 1)
        second = _with_seed(runner, inputs, 2)
    for name, array in first.items():
        other = second[name]
        if array.dtype.kind != "f":
            same = np.array_equal(array, other)
        else:
            scale = float(np.nanmax(np.abs(array), initial=1e-3))
            same = array.shape == other.shape and bool(
                np.allclose(array, other, rtol=0, atol=_SAME * scale, equal_nan=True)
            )
        if not same:
            raise BadSource(
                f"the model gives another '{name}' each time it runs on the same inputs, in eval mode too",
                remedy="take the random part (dropout with training=True, torch.rand …) out of forward",
            )


def _with_seed(runner: Runner, inputs: Arrays, seed: int) -> Mapping[str, Array]:
    torch.manual_seed(seed)
    return runner(inputs)


def _versions(*names: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1_000_000 else str(count)
