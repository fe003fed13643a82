"""The model to optimise: read, refused when nothing can be done with it, described, and tried for stacked requests.

Nothing is changed here. A model that needs repair (an old operator set, names of axes) is imported first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.optimize.results import Subject
from tensorquay_convert.proof.compare import as_numbers
from tensorquay_convert.proof.inputs import Drawn, draw
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed
from tensorquay_convert.proof.sizes import bases, bounds, dynamic_axes, elements, fit
from tensorquay_convert.provenance import file_digest
from tensorquay_convert.sources import onnx_axes, onnx_graph, onnx_rules
from tensorquay_convert.tensors import BATCH, Array, Arrays, Interface, TensorSpec

OLDEST_OPSET = 7
"""ONNX Runtime's own limit: below it guarantees nothing, says its log, and often does not load."""
TRIED_BATCHES = (1, 2, 3)
_SAME = 1e-3
"""How far a row's answers may be from those it has alone, as a share of their norm: kernels of other batch sizes add
up in another order. A model that mixes rows is off by far more."""
_SAME_QUANTIZED = 0.1
"""The same for a model that computes with quantized values: ranges of dynamic quantization are taken over a batch."""
_QUANTIZED = re.compile(
    r"(QLinear|QAttention|QGemm|QMoE|QEmbed|QOrdered|DynamicQuantize|Quantize|Dequantize|MatMulNBits|MatMulBnb4"
    r"|MatMulFpQ4|GatherBlockQuantized)\w*|\w+Integer(ToFloat)?"
)
MOST_ELEMENTS = 1 << 26
"""Of the inputs of one run that tries something: 512 MiB of the widest dtype."""
TOO_LARGE = "its inputs are too large to try"
_IMPORT = "import it again: tensorquay import MODEL"


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that was read and loaded.

    Args:
        model: without the weights that are kept beside it.
        interface: what it takes and gives, every dynamic axis named, no unknown shape of an input.
        runtime: loaded as a server does.
        vocabulary: input name → rows of the table its values pick from.
        weights: the files beside the model.
        notes: for the user.
    """

    path: Path
    model: Any
    interface: Interface
    runtime: Runtime
    vocabulary: Mapping[str, int]
    weights: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def needed(self) -> tuple[TensorSpec, ...]:
        """The inputs a caller has to give."""
        return tuple(spec for spec in self.interface.inputs if not spec.optional)


@dataclass(frozen=True, slots=True)
class Stacking:
    """Whether requests can be stacked on the first axis. `reason`: why not; `batch`: the only size it runs at, or 0."""

    batched: bool
    reason: str = ""
    batch: int = 0


def read_subject(path: Path, name: str) -> Subject:
    """Read the model, load it and try it with drawn inputs.

    Raises: BadSource for what is no ONNX model, is corrupt or incomplete, or is not loaded by ONNX Runtime; Unsupported
        for custom operators, values that are no tensors, an operator set that is too old, no inputs, or when it runs
        with no inputs that could be drawn.
    """
    opened = open_model(path)
    return describe(opened, name, stacking(opened, ()))


def open_model(path: Path) -> Opened:
    """Read and load the model. Raises: as `read_subject`."""
    shown = path.name
    if not path.is_file():
        raise BadSource(f"'{path}' is no file", remedy="give an ONNX file, or a model of the repository by its name")
    try:
        model = onnx_graph.read_model(path, shown)
    except BadSource as exc:
        raise BadSource(
            exc.sentence, remedy="only ONNX models are taken; others are imported first: tensorquay import"
        ) from exc
    onnx_graph.refuse_custom_operators(model)
    weights = onnx_graph.external_files(model, path.parent)
    _refuse_old(model, shown)
    try:
        interface = onnx_graph.interface_of(model)
    except Unsupported as exc:
        raise Unsupported(exc.sentence, remedy="import it again with --output-name for the outputs to keep") from exc
    if not any(not spec.optional for spec in interface.inputs):
        raise Unsupported(f"'{shown}' takes no inputs: its answers never change, and there is nothing to gain")
    unknown = onnx_rules.unknown_axes(interface)
    if unknown:
        raise Unsupported(
            f"'{shown}' does not say what shape input '{unknown[0]}' has",
            remedy=f"{_IMPORT} --input '{unknown[0]}:float32[batch,4]'",
        )
    try:
        runtime = Runtime(path)
    except RuntimeFailed as exc:
        raise BadSource(
            f"ONNX Runtime {onnxruntime.__version__} does not load '{shown}': {exc.sentence.partition(': ')[2]}",
            remedy="check the file with onnx.checker, or export it again",
        ) from exc
    interface, notes = onnx_axes.tried(interface, runtime.run)
    return Opened(path, model, interface, runtime, onnx_graph.index_bounds(model), weights, notes)


def _refuse_old(model: Any, shown: str) -> None:
    opset = onnx_rules.opset_of(model)
    if 0 < opset < OLDEST_OPSET:
        raise Unsupported(
            f"'{shown}' uses operator set {opset}, expected {OLDEST_OPSET} or newer, which ONNX Runtime supports",
            remedy="raise it: tensorquay import MODEL --opset 17",
        )


def describe(opened: Opened, name: str, stacked: Stacking) -> Subject:
    """The facts of the model. Raises: OSError when its files cannot be read."""
    model, interface = opened.model, opened.interface
    operators = Counter(_operator(node) for node in onnx_graph.all_nodes(model))
    quantized = {each: count for each, count in operators.items() if _QUANTIZED.fullmatch(each.rpartition(".")[2])}
    notes = [*opened.notes]
    if not stacked.batched:
        notes.append(f"requests are not stacked: {stacked.reason}")
    if quantized:
        listed = ", ".join(f"{count} {each}" for each, count in sorted(quantized.items()))
        notes.append(f"the model is already quantized ({listed}): quantizing passes are left out")
    return Subject(
        name=name,
        sha256=file_digest(opened.path),
        bytes=sum(each.stat().st_size for each in (opened.path, *opened.weights)),
        opset=onnx_rules.opset_of(model),
        nodes=operators.total(),
        operators=dict(sorted(operators.items())),
        quantized=dict(sorted(quantized.items())),
        batched=stacked.batched,
        inputs={spec.name: shown_spec(spec) for spec in interface.inputs},
        outputs={spec.name: shown_spec(spec) for spec in interface.outputs},
        fp32_weight_bytes=_fp32_bytes(model),
        external_data=bool(opened.weights),
        notes=tuple(notes),
    )


def shown_spec(spec: TensorSpec) -> str:
    """`float32[batch,3,224,224]`."""
    axes = "…" if spec.shape is None else ",".join(str(axis) for axis in spec.shape)
    return f"{spec.dtype}[{axes}]"


def _operator(node: Any) -> str:
    return str(node.op_type) if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def _fp32_bytes(model: Any) -> int:
    """Of dense initializers, those of inner graphs included."""
    return 4 * sum(
        int(np.prod(tensor.dims, dtype=np.int64))
        for graph in onnx_graph.graphs_in(model.graph)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )


def stacking(opened: Opened, hints: Iterable[Mapping[str, int]], rows: Arrays | None = None) -> Stacking:
    """Try whether requests can be stacked: the first axis of everything is dynamic, and a row's answers are its own.

    Args:
        hints: sizes of dynamic axes to try first.
        rows: 3 rows to try when no drawn ones run: the user's own.
    Raises: Unsupported when the model declares it and runs with nothing that was tried.
    """
    declared = _declared_single(opened.interface)
    if declared:
        return Stacking(batched=False, reason=declared)
    failed = TOO_LARGE
    for inputs in _witnesses(opened, hints, rows):
        alone: list[Arrays] = []
        try:
            alone = [_run_rows(opened.runtime, inputs, at, at + 1) for at in range(max(TRIED_BATCHES))]
        except RuntimeFailed as exc:
            failed = exc.sentence
            continue
        again = _run_rows(opened.runtime, inputs, 0, 1)
        for spec in opened.interface.outputs:
            if not _same(again[spec.name], alone[0][spec.name], spec.dtype, quantized=False):
                return Stacking(batched=False, reason=f"output '{spec.name}' differs from run to run: is it random?")
        return _compared(opened, inputs, alone)
    raise Unsupported(
        f"the model runs with no inputs that were tried; at last: {failed}",
        remedy="give inputs that it takes with --data" if rows is None else "check that the model serves these inputs",
    )


def _declared_single(interface: Interface) -> str:
    """What the declarations say against stacking; empty when nothing."""
    for what, specs in (("input", interface.inputs), ("output", interface.outputs)):
        for spec in specs:
            shape = spec.shape
            if shape == ():
                return f"{what} '{spec.name}' is a single number"
            if shape and isinstance(shape[0], int):
                return f"the first axis of {what} '{spec.name}' is fixed at {shape[0]}"
    if any(not spec.shape or spec.shape[0] != BATCH for spec in interface.inputs):
        return "the first axes of the inputs differ"
    return ""


def _witnesses(opened: Opened, hints: Iterable[Mapping[str, int]], rows: Arrays | None) -> Iterator[Arrays]:
    most = max(TRIED_BATCHES)
    interface = opened.interface
    axes = dynamic_axes(interface)
    for sizes in (*hints, *bases(interface, most)):
        # Axes that a hint says nothing of get a middle size.
        whole = {axis: fit(sizes.get(axis, 16), bounds(interface, axis)) for axis in axes} | {BATCH: most}
        if elements(interface, whole) <= MOST_ELEMENTS:
            yield draw(interface, Drawn("stacking", whole), seed=0)
    if rows is not None:
        yield rows


def _run_rows(runtime: Runtime, inputs: Arrays, start: int, stop: int) -> Arrays:
    return runtime.run({name: np.ascontiguousarray(array[start:stop]) for name, array in inputs.items()})


def _compared(opened: Opened, inputs: Arrays, alone: list[Arrays]) -> Stacking:
    """Whether batches give what their rows give alone."""
    quantized = any(_QUANTIZED.fullmatch(node.op_type) for node in onnx_graph.all_nodes(opened.model))
    for spec in opened.interface.outputs:
        if alone[0][spec.name].shape[:1] != (1,):
            return Stacking(
                batched=False,
                reason=f"for one row output '{spec.name}' has shape {list(alone[0][spec.name].shape)}, "
                "expected a first axis of 1",
            )
    for batch in TRIED_BATCHES[1:]:
        try:
            together = _run_rows(opened.runtime, inputs, 0, batch)
        except RuntimeFailed as exc:
            return Stacking(batched=False, reason=f"it runs with 1 row and not with {batch}: {exc.sentence}", batch=1)
        for spec in opened.interface.outputs:
            whole = together[spec.name]
            if whole.shape[:1] != (batch,):
                return Stacking(
                    batched=False,
                    reason=f"for {batch} rows output '{spec.name}' has shape {list(whole.shape)}, "
                    f"expected a first axis of {batch}",
                )
            for row in range(batch):
                if not _same(whole[row], alone[row][spec.name][0], spec.dtype, quantized=quantized):
                    return Stacking(
                        batched=False,
                        reason=f"the model mixes rows: in a batch of {batch} row {row} of output '{spec.name}' "
                        "has other values than alone",
                    )
    return Stacking(batched=True)


def _same(got: Array, wanted: Array, dtype: str, *, quantized: bool) -> bool:
    if got.shape != wanted.shape:
        return False
    if dtype == "string" or not dtype.startswith(("float", "bfloat")):
        # Of quantized values a choice may flip with its neighbours; its shape has to do.
        return quantized or bool(np.array_equal(got, wanted))
    ours, theirs = as_numbers(got, dtype), as_numbers(wanted, dtype)
    if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return False
    finite = np.isfinite(ours)
    off = float(np.linalg.norm(ours[finite] - theirs[finite]))
    share = _SAME_QUANTIZED if quantized else 0.02 if dtype in {"float16", "bfloat16"} else _SAME
    return off <= share * float(np.linalg.norm(theirs[finite])) + 1e-6
