"""Weights that a graph puts together from stored ones each time: computed once, so that quantizers see them.

Fusions leave them (the weights of query, key and value, joined before an Attention), and exporters leave transposes.
The runtime computes them; operators that would store more bytes than they read are left alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from tensorquay_convert.optimize.passes import counts
from tensorquay_convert.sources import onnx_graph, onnx_rules

_ARRANGING = frozenset({"Concat", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"})
"""Give every entry once, at another place."""


def fold_weights(model: Any) -> int:
    """Replace nodes of the main graph that only arrange stored float32 tensors by their results; how many.

    Raises: what the runtime raises for a node that it cannot run.
    """
    stored: dict[str, Any] = {each.name: each for each in model.graph.initializer}
    outputs = {each.name for each in model.graph.output} | {each.name for each in model.graph.input}
    folded: list[Any] = []
    made: dict[str, Any] = {}
    for node in model.graph.node:
        read = [name for name in node.input if name]
        if counts.name_of(node) not in _ARRANGING or node.output[0] in outputs or not read:
            continue
        inputs = [each for name in read if (each := made.get(name) or stored.get(name)) is not None]
        if len(inputs) < len(read) or inputs[0].data_type != TensorProto.FLOAT:
            continue
        made[node.output[0]] = _result(model, node, inputs)
        folded.append(node)
    if not folded:
        return 0
    gone = {node.output[0] for node in folded}
    freed = {name for node in folded for name in node.input}
    left = [each for each in model.graph.node if not each.output or each.output[0] not in gone]
    kept = [onnx.NodeProto.FromString(each.SerializeToString()) for each in left]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read_still = Counter(name for node in onnx_graph.all_nodes(model) for name in node.input)
    for number in reversed(range(len(model.graph.initializer))):
        name = model.graph.initializer[number].name
        if name in freed and not read_still[name] and name not in outputs:
            del model.graph.initializer[number]
    model.graph.initializer.extend(each for name, each in made.items() if read_still[name])
    return len(folded)


def _result(model: Any, node: Any, inputs: list[Any]) -> Any:
    """What one node makes of stored tensors, under its output's name."""
    given = {each.name: each for each in inputs}
    output = onnx.ValueInfoProto(name=node.output[0])
    graph = helper.make_graph([node], "fold", [], [output], list(given.values()))
    opsets = [each for each in model.opset_import if each.domain in {"", "ai.onnx"}]
    alone = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    found = onnx_rules.session_for(alone.SerializeToString()).run(None, {})[0]
    return numpy_helper.from_array(found, node.output[0])
