"""The pass "fuse transformers": attention, normalisations and activations as the runtime's own operators.

By one of two libraries, which know different exporters' graphs: onnxscript's fusions know what torch.export writes,
the runtime's own tool knows older exports. Which fused more is for the counts to say, which is faster for the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from tensorquay_convert.optimize.passes import counts, graph_level, graphs, registry
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.results import PassReport

LIBRARIES = ("onnxscript", "onnxruntime")
_ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedMultiHeadAttention"})
_NORMS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", "SkipLayerNormalization"})
_WEIGHTLESS = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Transpose", "Where", "Mul"})
_BEFORE = (("basic", ()), ("extended", ("MatMulScaleFusion", "MatMulAddFusion", "MatmulTransposeFusion",
                                        "GemmActivationFusion", "BiasSoftmaxFusion")))  # fmt: skip
"""What the runtime does before its tool looks for attention, and what it must not, or the tool knows no pattern again.

The list is the tool's own; it also leaves constants unshared, as the tool does.
"""


def make(parameters: Mapping[str, Any]) -> Pass:
    """`by`: onnxscript or onnxruntime. Raises: ValueError."""
    unknown = set(parameters) - {"by"}
    by = parameters.get("by", "onnxscript")
    if unknown or by not in LIBRARIES:
        raise ValueError(f"fuse transformers takes 'by', one of {', '.join(LIBRARIES)}; got {dict(parameters)}")
    return Fuse(by)


@dataclass(frozen=True, slots=True)
class Fuse:
    """Replaces known patterns; a graph without any is left alone."""

    by: str

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """Raises: FrameworkMissing; Unsupported when the runtime does not load what comes out."""
        name = f"fuse transformers, {self.by}"
        opened = graphs.opened(source)
        if not has_transformer(opened.model.graph):
            why = "there is no attention and no normalisation to fuse"
            return graphs.as_it_was(name, source, target, why, seconds=opened.seconds)
        bench.say(name)
        fuse: Callable[..., tuple[Any, tuple[str, ...]]] = _by_onnxscript if self.by == "onnxscript" else _by_runtime
        model, notes = fuse(opened, source, bench)
        now = counts.operators(model)
        fused = counts.fused(opened.before, now)
        if not fused:
            why = f"no pattern that it knows in {counts.many(sum(opened.before.values()), 'node')}"
            return graphs.as_it_was(name, source, target, why, seconds=opened.seconds, notes=notes)
        graphs.write(model, opened, target, bench.settings)
        return PassReport(
            name,
            changed=True,
            summary=f"fused {counts.listed(fused)}; {counts.sizes(opened.before, now)}",
            fused=fused,
            seconds=opened.seconds,
            notes=(*notes, counts.difference(opened.before, now)),
        )


def has_transformer(graph: Any) -> bool:
    """Whether `graph` has a normalisation over features, or a softmax whose shares weigh a product of matrices."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kinds = {node.op_type for node in graph.node}
    if kinds & (_NORMS | _ATTENTION) or {"ReduceMean", "Sqrt"} <= kinds:
        return True
    return any(_weighs(node, readers) for node in graph.node if node.op_type == "Softmax")


def _weighs(softmax: Any, readers: Mapping[str, list[Any]]) -> bool:
    """Whether the values go, through nodes that keep them, into a product."""
    seen: set[str] = set()
    ahead = list(softmax.output)
    while ahead:
        name = ahead.pop()
        for node in readers.get(name, ()):
            if node.op_type in {"MatMul", "Einsum"}:
                return True
            if node.op_type in _WEIGHTLESS and name not in seen:
                ahead.extend(node.output)
        seen.add(name)
    return False


def _by_onnxscript(opened: graphs.Opened, _source: Path, _bench: Workbench) -> tuple[Any, tuple[str, ...]]:
    try:
        import onnx_ir  # noqa: PLC0415 - the other library works without
        from onnxscript.rewriter import ort_fusions  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise registry.missing(exc) from exc
    with graphs.quiet():
        model, _ = ort_fusions.optimize_for_ort(onnx_ir.from_proto(opened.model))
        return onnx_ir.to_proto(model), ()


def _by_runtime(opened: graphs.Opened, source: Path, bench: Workbench) -> tuple[Any, tuple[str, ...]]:
    """The attempt that found most attention, then most to fuse at all, then the shortest."""
    heads, size = heads_of(opened.model.graph)
    best: tuple[tuple[int, int, int], Any, str] | None = None
    for level, without in _BEFORE:
        path = bench.scratch / f"fuse-{level}.onnx"
        graph_level.optimize(source, path, level, bench, without=("ConstantSharing", *without))
        for kind in kinds_of(opened.model.graph):
            bench.say(f"fuse transformers, onnxruntime: {kind} after level {level}")
            model = _tried(path, kind, heads, size)
            now = counts.operators(model)
            fused = counts.fused(opened.before, now)
            attention = sum(count for name, count in fused.items() if name in _ATTENTION)
            score = (attention, sum(fused.values()), -sum(now.values()))
            if best is None or score > best[0]:
                best = (score, model, f"as {kind}, after the runtime's level {level}")
    assert best is not None
    return best[1], (best[2],)


def _tried(path: Path, kind: str, heads: int, size: int) -> Any:
    from onnxruntime.transformers import optimizer  # noqa: PLC0415 - half a second, and it changes sys.path
    from onnxruntime.transformers.fusion_options import FusionOptions  # noqa: PLC0415

    options = FusionOptions(kind)
    if kind != "vit":
        # Its default for BERT counts the ones of a mask, which is wrong for padding on the left.
        options.use_raw_attention_mask(True)
    model = graphs.opened(path).model
    given = (heads, heads * size) if kind == "gpt2" else (0, 0)
    with graphs.quiet():
        return optimizer.optimize_by_fusion(model, kind, *given, options).model


def kinds_of(graph: Any) -> tuple[str, ...]:
    """Model types, by the tool's names, that `graph` may be.

    "vit" takes for granted that nothing is masked, so it is tried on images only; "gpt2" looks for a causal mask.
    """
    kinds = {node.op_type for node in graph.node}
    floats = all(each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for each in graph.input)
    images = "Conv" in kinds and floats and all(len(each.type.tensor_type.shape.dim) == 4 for each in graph.input)
    causal = bool(kinds & {"Trilu"}) or any("past" in each.name for each in graph.input) or _has_triangle(graph)
    return ("bert", *(("vit",) if images else ()), *(("gpt2",) if causal else ()))


def _has_triangle(graph: Any) -> bool:
    """Whether a square mask is stored that is 1 up to the diagonal, as GPT-2's attention has it."""
    for tensor in graph.initializer:
        square = len(tensor.dims) >= 2 and tensor.dims[-1] == tensor.dims[-2] and 1 < tensor.dims[-1] <= 1 << 12
        if square and tensor.data_type in {onnx.TensorProto.BOOL, onnx.TensorProto.UINT8}:
            values = numpy_helper.to_array(tensor).reshape(-1, tensor.dims[-1], tensor.dims[-1])[0]
            if values[-1].all() and values[:, 0].all() and values.sum() == len(values) * (len(values) + 1) // 2:
                return True
    return False


def heads_of(graph: Any) -> tuple[int, int]:
    """How many heads attention has and how wide one is, by the reshape before the heads are moved; 0, 0: unknown."""
    stored = {each.name: each for each in graph.initializer if each.data_type == onnx.TensorProto.INT64}
    made = {name: node for node in graph.node for name in node.output}
    found: Counter[tuple[int, int]] = Counter()
    for node in graph.node:
        perm = next((list(each.ints) for each in node.attribute if each.name == "perm"), [])
        before = made.get(node.input[0]) if node.op_type == "Transpose" and perm == [0, 2, 1, 3] else None
        if before is None or before.op_type != "Reshape" or before.input[1] not in stored:
            continue
        shape = numpy_helper.to_array(stored[before.input[1]]).reshape(-1).tolist()
        if len(shape) == 4 and shape[2] > 0 and shape[3] > 0:
            found[shape[2], shape[3]] += 1
    return found.most_common(1)[0][0] if found else (0, 0)
