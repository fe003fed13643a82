"""What a pass did to a graph, told by its operators before and after: never by what a library says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tensorquay_convert.sources import onnx_graph

_RUNTIME = "com.microsoft"
_LAYOUT = "com.microsoft.nchwc"
_NOT_FUSED = frozenset({"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput"})
"""The runtime's own operators that do the work of one: conversions of type and of layout."""
_STANDARD = frozenset(
    {
        "Attention", "FusedConv", "FusedGemm", "FusedMatMul", "Gelu", "GroupNormalization", "LayerNormalization",
        "RMSNormalization", "RotaryEmbedding", "SimplifiedLayerNormalization", "Swish",
    }
)  # fmt: skip
"""Operators of ONNX's own set (or, as LayerNormalization once was, put there by the runtime) that stand for several."""


def operators(model: Any) -> Counter[str]:
    """How many nodes of each operator ("Conv", "com.microsoft.Attention"), graphs inside and functions included."""
    return Counter(name_of(node) for node in onnx_graph.all_nodes(model))


def name_of(node: Any) -> str:
    """The operator with its domain, where that is not ONNX's own."""
    return f"{node.domain}.{node.op_type}" if node.domain not in {"", "ai.onnx"} else str(node.op_type)


def fused(before: Mapping[str, int], after: Mapping[str, int]) -> Mapping[str, int]:
    """Operators that stand for several and were not there, or fewer of them; by short names, the most frequent first.

    Args: before, after: of `operators`.
    """
    found: Counter[str] = Counter()
    for name, count in after.items():
        domain, _, operator = name.rpartition(".")
        own = domain in {_RUNTIME, _LAYOUT} and operator not in _NOT_FUSED
        more = count - before.get(name, 0)
        if more > 0 and (own or (not domain and operator in _STANDARD)):
            found[_short(name)] += more
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


def listed(counts: Mapping[str, int], most: int = 6) -> str:
    """ "12 SkipLayerNormalization, 6 Attention", cut after `most`; "nothing" for none."""
    shown = [f"{count} {name}" for name, count in list(counts.items())[:most]]
    left = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {left} more kinds" if left else "") or "nothing"


def many(count: int, thing: str) -> str:
    """ "1 node", "2 nodes"."""
    return f"{count} {thing}" + ("" if count == 1 else "s")


def sizes(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """ "228 nodes, now 91"."""
    return f"{many(sum(before.values()), 'node')}, now {sum(after.values())}"


def difference(before: Mapping[str, int], after: Mapping[str, int], most: int = 12) -> str:
    """ "Add 56 → 2, Gelu 6 → 0", the largest changes first; "" when no count differs."""
    changed = {
        name: (before.get(name, 0), after.get(name, 0))
        for name in sorted({*before, *after})
        if before.get(name, 0) != after.get(name, 0)
    }
    order = sorted(changed.items(), key=lambda each: -abs(each[1][1] - each[1][0]))
    parts = [f"{_short(name)} {old} → {new}" for name, (old, new) in order[:most]]
    return ", ".join(parts) + (f" and {len(order) - most} more" if len(order) > most else "")


def same(before: Any, after: Any) -> bool:
    """Whether two models compute the same nodes with the same weights; names inside may differ."""
    return _shape(before) == _shape(after)


def _shape(model: Any) -> tuple[Counter[str], Counter[tuple[int, ...]]]:
    """Operators by number of inputs and outputs, and weights by type and size."""
    nodes = Counter(f"{name_of(each)}/{len(each.input)}/{len(each.output)}" for each in onnx_graph.all_nodes(model))
    weights: Counter[tuple[int, ...]] = Counter()
    for graph in onnx_graph.graphs_in(model.graph):
        weights.update((int(each.data_type), *map(int, each.dims)) for each in graph.initializer)
    return nodes, weights


def _short(name: str) -> str:
    domain, _, operator = name.rpartition(".")
    return {"": operator, _RUNTIME: operator, _LAYOUT: f"NCHWc {operator}"}.get(domain, name)
