"""Frozen TensorFlow graphs (`.pb`): a GraphDef that says neither what goes in nor what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorquay_convert.api import OpenSource, Say
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import tensorflow_graph
from tensorquay_convert.sources.tensorflow_axes import Port
from tensorquay_convert.sources.tensorflow_ops import refuse_dangerous, refuse_texts
from tensorquay_convert.sources.tensorflow_source import Description, TensorflowSource

_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable", "TemporaryVariable"})
_NO_RESULT = frozenset({"Const", "NoOp", "Assert", "Placeholder", "PlaceholderWithDefault", "Print"})
_LISTED = 12


class GraphDefConverter:
    """Opens frozen GraphDefs. Inputs by `--input`, outputs by `--output-name`; else placeholders and leaf nodes."""

    kinds = (SourceKind.GRAPH_DEF,)
    extra = "tensorflow"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `Converter`."""
        path = Path(job.source)
        tensorflow = tensorflow_graph.load_tensorflow(kind)
        say("reading the graph")
        graph_def = _read(path)
        what = f"the frozen graph '{path.name}'"
        refuse_dangerous(graph_def, what, checkpoints=False)
        _refuse_variables(graph_def, what)
        refuse_texts(graph_def, what)
        entered, left, notes = _ends(graph_def, job, what)
        with tensorflow_graph.quiet():
            graph = _imported(tensorflow, graph_def, what)
            inputs = [_port(graph, name, what) for name in entered]
            outputs = [_port(graph, name, what) for name in left]
            size = sum(len(node.attr["value"].tensor.tensor_content) for node in graph_def.node if node.op == "Const")
            frozen = tensorflow_graph.prepared(graph_def, inputs, outputs, size)
            run = tensorflow_graph.runner(frozen)
        shown = f"a frozen TensorFlow graph, {len(graph_def.node)} nodes, {tensorflow_graph.counted(frozen, None)}"
        # Outputs were chosen above, by node names that the interface does not have in this form.
        about = Description(kind=kind, shown=shown, files=(path,), notes=notes)
        return TensorflowSource(tensorflow_graph.without_outputs(job), frozen, run, about)


def _read(path: Path) -> Any:
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from tensorflow.core.framework.graph_pb2 import GraphDef  # noqa: PLC0415

    graph_def = GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise BadSource(
            f"'{path.name}' is no frozen graph, or damaged or cut off ({error})", remedy="copy or export it again"
        ) from error
    except OSError as error:
        raise BadSource(f"'{path.name}' cannot be read ({error.strerror})") from error
    if not graph_def.node:
        raise BadSource(f"'{path.name}' holds no nodes: it is empty or no frozen graph")
    return graph_def


def _refuse_variables(graph_def: Any, what: str) -> None:
    for node in graph_def.node:
        if node.op in _VARIABLES:
            raise BadSource(
                f"{what} is not frozen: node '{node.name}' is a variable ({node.op}), and its value is elsewhere",
                remedy="freeze it, or import the SavedModel it comes from",
                facts={"node": node.name, "operator": node.op},
            )


def _ends(graph_def: Any, job: ImportJob, what: str) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Where the graph is entered and left, and what to say when that was guessed."""
    nodes = {node.name: node for node in graph_def.node}
    notes = []
    entered = [each.name for each in job.inputs]
    if not entered:
        entered = [node.name for node in graph_def.node if node.op == "Placeholder"]
        notes.append(f"inputs are its placeholders: {', '.join(entered)}; --input chooses others")
    left = list(job.outputs)
    if not left:
        used = {name.removeprefix("^").partition(":")[0] for node in graph_def.node for name in node.input}
        left = [node.name for node in graph_def.node if node.name not in used and node.op not in _NO_RESULT]
        notes.append(f"outputs are the nodes nothing depends on: {', '.join(left)}; --output-name chooses others")
    for name, kind in [*((name, "input") for name in entered), *((name, "output") for name in left)]:
        if name.partition(":")[0] not in nodes:
            raise BadSource(
                f"{what} has no node '{name}' to be an {kind}; its last nodes: "
                + ", ".join(f"'{each}'" for each in list(nodes)[-_LISTED:]),
                remedy="name nodes as they are called in the graph",
                facts={kind: name},
            )
    if not entered or not left:
        raise BadSource(
            f"{what} has no {'input: no placeholder is in it' if not entered else 'output'}",
            remedy="name them: --input 'name:dtype[shape]' --output-name name",
        )
    return entered, left, tuple(notes)


def _imported(tensorflow: Any, graph_def: Any, what: str) -> Any:
    graph = tensorflow.Graph()
    try:
        with graph.as_default():
            tensorflow.compat.v1.import_graph_def(graph_def, name="")
    except (tensorflow.errors.OpError, ValueError, TypeError, KeyError) as error:
        raise BadSource(
            f"TensorFlow does not accept {what}: {' '.join(str(error).split())[:200]}",
            remedy="export it again; operators of other packages cannot be imported",
        ) from error
    return graph


def _port(graph: Any, name: str, what: str) -> Port:
    tensor_name = name if ":" in name else name + ":0"
    try:
        tensor = graph.get_tensor_by_name(tensor_name)
    except (KeyError, ValueError) as error:
        raise BadSource(f"{what} has no tensor '{tensor_name}'", remedy="name a node that gives a value") from error
    return tensorflow_graph.port(name.removesuffix(":0"), tensor, what)
