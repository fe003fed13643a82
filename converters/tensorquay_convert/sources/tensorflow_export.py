"""Have tf2onnx make ONNX of a frozen graph or a TFLite file, and hold it to what it says.

tf2onnx reports success with operators it did not convert still in the graph, names axes at will, and trusts shapes
that are wrong. So: whatever is not ONNX afterwards is named, and names, axes and order become the interface's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay_convert.api import Exported
from tensorquay_convert.errors import Unsupported
from tensorquay_convert.sources.tensorflow_handlers import handlers
from tensorquay_convert.sources.tensorflow_ops import is_text_operator
from tensorquay_convert.tensors import Interface, TensorSpec

OPSETS = range(13, 19)
"""What tf2onnx writes. 18 is the default: all of it is tested here, and ONNX has BitwiseAnd from there on."""
DEFAULT_OPSET = 18

EXTERNAL_ABOVE_BYTES = 1_500_000_000
"""Models above this have their weights in a file of their own; a protobuf ends at 2 GB."""

_NOT_NODES = frozenset({"Const", "Placeholder", "PlaceholderWithDefault", "Identity"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a conversion starts from: the arguments of tf2onnx's `process_tf_graph` and the names to give.

    `renamed`: interface names by the framework's tensor names. `weights_bytes` decides where the weights go.
    """

    arguments: Mapping[str, Any]
    renamed: Mapping[str, str]
    weights_bytes: int
    what: str


def opset_of(asked: int | None) -> int:
    """The opset to write. Raises: Unsupported when tf2onnx does not write it."""
    if asked is None:
        return DEFAULT_OPSET
    if asked not in OPSETS:
        raise Unsupported(
            f"opset {asked} is not one that tf2onnx writes ({OPSETS[0]} to {OPSETS[-1]})",
            remedy=f"leave --opset out, or take {DEFAULT_OPSET}",
        )
    return asked


def convert(graph: Any, wanted: Wanted, opset: int) -> Any:
    """The ONNX model of a TensorFlow graph (`graph` None: of the TFLite file in `wanted.arguments`).

    Raises: Unsupported with operator, node and how many, when something has no ONNX.
    """
    from tf2onnx import optimizer, tfonnx  # noqa: PLC0415

    with _failures() as failures:
        made = tfonnx.process_tf_graph(
            graph,
            continue_on_error=True,
            opset=opset,
            custom_op_handlers=dict(handlers()),
            tensors_to_rename=dict(wanted.renamed),
            **wanted.arguments,
        )
        made.delete_unused_nodes(made.outputs)
        _refuse_leftovers(made, wanted.what, opset, failures)
        # A failing optimizer is skipped on a copy of the graph; a large graph is not copied.
        made = optimizer.optimize_graph(made, wanted.weights_bytes < EXTERNAL_ABOVE_BYTES)
        return made.make_model("")


def write(model: Any, interface: Interface, target: Path, weights_bytes: int) -> None:
    """Give `model` the interface's names, order and axes, and write it; large weights into `<target>.data`."""
    import onnx  # noqa: PLC0415

    _dress(model, interface)
    if weights_bytes < EXTERNAL_ABOVE_BYTES:
        model = onnx.shape_inference.infer_shapes(model)
        onnx.save_model(model, target)
        return
    onnx.save_model(
        model, target, save_as_external_data=True, all_tensors_to_one_file=True, location=target.name + ".data"
    )


def exported(opset: int, notes: Sequence[str] = ()) -> Exported:
    """What `Exported` says of a conversion by this module."""
    import tf2onnx  # noqa: PLC0415

    return Exported(exporter=f"tf2onnx {tf2onnx.__version__}", opset=opset, notes=tuple(notes))


@contextmanager
def _failures() -> Iterator[list[tuple[str, str]]]:
    """Collects the nodes tf2onnx failed on and why, which it only logs; nothing of its log is shown."""
    found: list[tuple[str, str]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("Failed to convert node") and isinstance(record.args, tuple):
                error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
                found.append((str(record.args[0]), _one_line(str(error or ""))))

    logger = logging.getLogger("tf2onnx")
    listener, propagated, level = Listener(), logger.propagate, logger.level
    logger.addHandler(listener)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagated
        logger.setLevel(level)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _graphs(graph: Any) -> Iterator[Any]:
    """A tf2onnx graph and everything inside its nodes."""
    yield graph
    for node in graph.get_nodes():
        for body in (node.get_body_graphs() or {}).values():
            yield from _graphs(body)


def _refuse_leftovers(graph: Any, what: str, opset: int, failures: Sequence[tuple[str, str]]) -> None:
    found: dict[str, list[str]] = {}
    for each in _graphs(graph):
        for node in each.get_nodes():
            if node.type not in _NOT_NODES and not _is_onnx(node.type, node.domain, opset):
                found.setdefault(node.type, []).append(node.name)
    if found:
        # tf2onnx's order is not the graph's, nor the same twice.
        found = {operator: sorted(nodes) for operator, nodes in sorted(found.items())}
        reasons = dict(failures)
        named = [_named(operator, nodes, reasons) for operator, nodes in found.items()]
        more = f", and {len(named) - 5} other operators" if len(named) > 5 else ""
        operator, nodes = next(iter(found.items()))
        raise Unsupported(
            f"{what} has what tf2onnx has no ONNX for: {', '.join(named[:5])}{more}",
            remedy=_remedy(found),
            facts={"operator": operator, "node": nodes[0], "nodes": sum(map(len, found.values()))},
        )
    if failures:
        node, reason = failures[0]
        raise Unsupported(
            f"tf2onnx failed on node '{node}' of {what}: {reason or 'it gives no reason'}",
            remedy="replace that operation in the model, or try another --opset",
            facts={"node": node, "nodes": len(failures)},
        )


def _is_onnx(operator: str, domain: str, opset: int) -> bool:
    from onnx import defs  # noqa: PLC0415

    if domain not in {"", "ai.onnx"}:
        return domain == "ai.onnx.ml"
    try:
        defs.get_schema(operator, opset, "")
    except defs.SchemaError:
        return False
    return True


def _named(operator: str, nodes: Sequence[str], reasons: Mapping[str, str]) -> str:
    reason = next((reasons[node] for node in nodes if reasons.get(node)), "")
    count = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"{operator} (node '{nodes[0]}'{count}{': ' + reason if reason else ''})"


def _remedy(found: Mapping[str, Sequence[str]]) -> str:
    if any(map(is_text_operator, found)):
        return "texts and tables have no ONNX: export the part that takes numbers, do the rest in the client"
    return "write that part of the model with other operations and export it again"


def _dress(model: Any, interface: Interface) -> None:
    """Inputs and outputs as the interface has them: order, names of axes; shapes inside are forgotten, not trusted."""
    import onnx  # noqa: PLC0415

    graph = model.graph
    for found, specs in ((graph.input, interface.inputs), (graph.output, interface.outputs)):
        made = {each.name: each for each in found}
        del found[:]
        for spec in specs:
            # An input nothing depends on is dropped on the way; the model still takes it.
            kind = made[spec.name].type.tensor_type.elem_type if spec.name in made else _element_type(spec)
            found.append(onnx.helper.make_tensor_value_info(spec.name, kind, spec.shape))
    del graph.value_info[:]
    graph.name = "model"


def _element_type(spec: TensorSpec) -> int:
    import numpy as np  # noqa: PLC0415
    import onnx  # noqa: PLC0415

    if spec.dtype == "bfloat16":
        return int(onnx.TensorProto.BFLOAT16)
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)))
