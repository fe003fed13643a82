"""The casts that a converter to 16 bits puts around what stays in FP32: each once, none in vain, in running order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from onnx import TensorProto, helper

HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_CASTS = frozenset({"Cast", "CastLike"})


def types(model: Any) -> dict[str, int]:
    """Element types of the main graph's values and stored tensors, as far as the model tells them."""
    graph = model.graph
    found = {each.name: int(each.data_type) for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.WhichOneof("value") == "tensor_type":
            found[value.name] = int(value.type.tensor_type.elem_type)
    return found


def tidy(model: Any, first: int, outputs: Collection[str]) -> None:
    """Put the casts right that a converter appended to the main graph from node `first` on.

    It writes one for each reader; leaves values that graphs inside nodes capture in 16 bits there; casts down and up
    again between nodes in FP32, which loses precision for nothing; and appends them all at the end.

    Args: outputs: names that must keep their value.
    """
    nodes = [_copy(node) for node in model.graph.node]
    whole, added = nodes[:first], _once(nodes[first:])
    added += _for_captured(whole, types(model), {node.output[0] for node in added})
    _straighten([*whole, *added], added, outputs)
    used = _read_by([*whole, *added]) | set(outputs)
    while dead := [node for node in added if node.output[0] not in used]:
        added = [node for node in added if node not in dead]
        used = _read_by([*whole, *added]) | set(outputs)
    del model.graph.node[:]
    model.graph.node.extend(in_order([*whole, *added]))


def computing(model: Any) -> int:
    """How many nodes of the main graph take or give 16-bit numbers, casts left out."""
    half = {name for name, kind in types(model).items() if kind in HALVES}
    for node in model.graph.node:
        if node.op_type == "Cast" and _to(node) in HALVES:
            half.update(node.output)
    return sum(
        node.op_type not in _CASTS and not half.isdisjoint({*node.input, *node.output}) for node in model.graph.node
    )


def in_order(nodes: Iterable[Any]) -> list[Any]:
    """`nodes`, each after those whose outputs it or a graph inside it reads; otherwise in the order given."""
    waiting = list(nodes)
    made = {name: number for number, node in enumerate(waiting) for name in node.output if name}
    placed: dict[int, None] = {}
    for start in range(len(waiting)):
        stack = [(start, False)]
        while stack:
            number, ready = stack.pop()
            if number in placed:
                continue
            if ready:
                placed[number] = None
                continue
            stack.append((number, True))
            needed = {made[name] for name in reads(waiting[number]) if name in made} - {number}
            stack.extend((each, False) for each in sorted(needed, reverse=True) if each not in placed)
    return [waiting[number] for number in placed]


def reads(node: Any) -> set[str]:
    """Names that a node reads, those captured by graphs inside it included."""
    found = {name for name in node.input if name}
    for graph in _inside(node):
        inner = {name for each in graph.node for name in each.output}
        inner |= {each.name for each in (*graph.input, *graph.initializer)}
        outer = {name for each in graph.node for name in reads(each)} | {value.name for value in graph.output}
        found |= outer - inner
    return found


def rename(node: Any, names: Mapping[str, str]) -> None:
    """Let a node, and graphs inside it, read other values. Their own names are never those of values outside."""
    for number, name in enumerate(node.input):
        node.input[number] = names.get(name, name)
    for graph in _inside(node):
        for each in graph.node:
            rename(each, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)


def _inside(node: Any) -> list[Any]:
    return [
        graph
        for attribute in node.attribute
        for graph in ((attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs))
    ]


def _once(added: Iterable[Any]) -> list[Any]:
    return list({node.output[0]: node for node in added}.values())


def _for_captured(nodes: Iterable[Any], known: Mapping[str, int], there: Collection[str]) -> list[Any]:
    """Casts up for 16-bit values that graphs inside nodes capture: those graphs stay in FP32."""
    made: dict[str, Any] = {}
    for node in nodes:
        captured = reads(node) - set(node.input)
        names = {name: f"{name}_cast_to_fp32" for name in sorted(captured) if known.get(name) in HALVES}
        for name, cast in names.items():
            if cast not in there:
                made.setdefault(cast, helper.make_node("Cast", [name], [cast], f"{cast}_node", to=TensorProto.FLOAT))
        if names:
            rename(node, names)
    return list(made.values())


def _straighten(nodes: Iterable[Any], added: Iterable[Any], outputs: Collection[str]) -> None:
    """Where an added cast takes up again what an added cast took down, read what was there before."""
    down = {node.output[0]: node.input[0] for node in added if _to(node) in HALVES}
    names: dict[str, str] = {}
    for node in added:
        if _to(node) != TensorProto.FLOAT or node.input[0] not in down:
            continue
        if node.output[0] in outputs:
            node.op_type = "Identity"
            node.input[0] = down[node.input[0]]
            del node.attribute[:]
        else:
            names[node.output[0]] = down[node.input[0]]
    for node in nodes:
        rename(node, names)


def _to(node: Any) -> int:
    return next((int(each.i) for each in node.attribute if each.name == "to"), 0)


def _read_by(nodes: Iterable[Any]) -> set[str]:
    return {name for node in nodes for name in reads(node)}


def _copy(node: Any) -> Any:
    found = type(node)()
    found.CopyFrom(node)
    return found
