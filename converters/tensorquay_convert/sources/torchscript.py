"""Open TorchScript archives (`torch.jit.save`, .pt): programs without names or shapes for what they take.

The new exporter refuses scripted modules, so the old one writes them: loops and branches of scripted code stay, sizes
that it fixes on the way are caught by the check at other sizes, and by the proof.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tensorquay_convert.api import Say
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import torch_onnx
from tensorquay_convert.sources.torch_arguments import FlatModule, arguments
from tensorquay_convert.sources.torch_examples import example_inputs
from tensorquay_convert.sources.torch_module import ModuleSource, Opened, assemble, declared_example
from tensorquay_convert.sources.torch_trust import check_script

_PLACED = re.compile(r"^.*__(\d+)$")
"""Triton's names for TorchScript, "INPUT__0": what counts is the number."""


class TorchScriptConverter:
    """Opens TorchScript archives."""

    kinds: tuple[SourceKind, ...] = (SourceKind.TORCHSCRIPT,)
    extra = "torch"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> ModuleSource:
        path = Path(job.source)
        check_script(path, path.name)
        say("loading the TorchScript module")
        module = _load(path)
        names = _argument_names(module)
        inputs, shapes = _inputs(job, names)
        call = arguments(module.forward, tuple(inputs.values()))
        call = type(call)(call.args, call.kwargs, tuple(inputs), call.tensors, call.fixed)
        opened = Opened(kind, "a TorchScript module", (path,), output_names=_output_names(module, job))

        def attempts(kept: Any) -> Sequence[torch_onnx.Attempt]:
            # The module itself: one that wraps it could not be traced.
            return (torch_onnx.tracing(module, kept.runner.found), _captured(module, kept.runner.found))

        return assemble(FlatModule(module, call), [call], shapes, job, opened, attempts)


def _captured(module: Any, found: Sequence[str]) -> torch_onnx.Attempt:
    """PyTorch's own way from TorchScript to an exported program.

    It is not public, so it only comes second; it takes traced attention, which the tracing exporter cannot.
    """

    def write(wanted: torch_onnx.Wanted, path: Path) -> Any:
        from torch._export.converter import TS2EPConverter  # noqa: PLC0415  may be gone in another PyTorch

        if len(found) != len(wanted.interface.outputs):
            raise ValueError("it cannot leave outputs out")
        return torch_onnx.program(TS2EPConverter(module, wanted.inputs).convert())[1](wanted, path)

    return "torch.export of the TorchScript graph", write


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # TorchScript itself is deprecated; its files are what we are asked to take.
            warnings.filterwarnings("ignore", r".*torch\.jit.*", DeprecationWarning)
            module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, EOFError) as exc:
        words = next((line.strip() for line in str(exc).splitlines() if line.strip()), "no message")
        raise BadSource(
            f"'{path.name}' cannot be loaded as TorchScript: {words[:200]}",
            remedy=f"save it with PyTorch {torch.__version__} or older, whole",
        ) from exc
    return module.eval()


def _argument_names(module: Any) -> list[str]:
    """Of `forward`, without those that have defaults and no tensor type.

    Raises: BadSource for types no request can carry.
    """
    names = []
    for each in module.forward.schema.arguments[1:]:
        if str(each.type) == "Tensor":
            names.append(each.name)
        elif not each.has_default_value():
            raise BadSource(
                f"forward takes '{each.name}' of type {each.type}, expected tensors",
                remedy="script a module that takes tensors one by one",
            )
    return names


def _inputs(job: ImportJob, names: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, tuple[int | str, ...]]]:
    """Example tensors in forward's order, and their declared shapes.

    Raises: BadSource when neither declarations nor examples say what the inputs are.
    """
    if job.inputs:
        declared = list(job.inputs)
        if all(_PLACED.match(each.name) for each in declared):
            declared.sort(key=lambda each: int(_PLACED.sub(r"\1", each.name)))
        elif {each.name for each in declared} <= set(names):
            declared.sort(key=lambda each: names.index(each.name))
        if len(declared) > len(names):
            raise BadSource(
                f"{len(declared)} inputs are declared, forward takes {len(names)}: {', '.join(names)}",
                remedy="declare one per argument, in order",
            )
        drawn = declared_example(declared, job.seed)
        return drawn, {each.name: each.shape for each in declared}
    examples = example_inputs(job, names)
    if examples is not None:
        first = examples[0] if isinstance(examples, list) else examples
        if isinstance(first, tuple):
            return dict(zip(names, first, strict=False)), {}
        return {name: first[name] for name in names if name in first}, {}
    shown = " ".join(f"--input '{name}:float32[batch,…]'" for name in names)
    raise BadSource(
        f"a TorchScript module does not tell what its inputs are; forward takes {', '.join(names) or 'nothing'}",
        remedy=f"declare them in order: {shown}, or give --example FILE",
    )


def _output_names(module: Any, job: ImportJob) -> tuple[str, ...]:
    """Names the user gives in order, where the module's own are not meant: it has none but numbers."""
    own = {"output"} | {f"output_{place}" for place in range(64)}
    if not job.outputs or set(job.outputs) <= own:
        return ()
    if "Dict" in str(module.forward.schema.returns[0].type):
        return ()
    if all(_PLACED.match(each) for each in job.outputs):
        return tuple(sorted(job.outputs, key=lambda each: int(_PLACED.sub(r"\1", each))))
    return job.outputs
