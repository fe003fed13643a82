"""Which TensorFlow operators are refused before anything of a model is loaded or run, and which take texts.

A SavedModel and a frozen graph are programs, and they come from strangers: loading one runs its initializers. What
touches files, other processes, the network or Python is refused by name from the protobuf alone; nothing here needs
TensorFlow. The list follows TensorFlow's own operator groups (io_ops, script_ops, data, debug, summary, distributed).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tensorquay_convert.errors import BadSource, Unsupported

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "GeneratorDataset", "NumpyCall"})
_FILES = frozenset(
    {
        "ReadFile", "WriteFile", "MatchingFiles", "Save", "SaveSlices", "Restore", "RestoreSlice", "WholeFileReader",
        "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "FixedLengthRecordReader",
        "FixedLengthRecordReaderV2", "TFRecordReader", "TFRecordReaderV2", "LMDBReader", "IdentityReader",
        "IdentityReaderV2", "TextLineDataset",
        "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "LMDBDataset",
        "ExperimentalLMDBDataset", "CSVDataset", "CSVDatasetV2", "ExperimentalCSVDataset", "MatchingFilesDataset",
        "ExperimentalMatchingFilesDataset", "SqlDataset", "ExperimentalSqlDataset", "SaveDataset", "SaveDatasetV2",
        "LoadDataset", "SnapshotDataset", "SnapshotDatasetV2", "CacheDataset", "CacheDatasetV2", "DatasetToTFRecord",
        "ExperimentalDatasetToTFRecord", "DistributedSave", "LoadAndRemapMatrix", "GenerateVocabRemapping",
        "InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "ImmutableConst", "SdcaFprint", "ImportEvent",
        "CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteSummary", "WriteRawProtoSummary", "WriteGraphSummary",
        "WriteScalarSummary", "WriteHistogramSummary", "WriteImageSummary", "WriteAudioSummary", "FlushSummaryWriter",
        "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary",
        "DebugNumericSummaryV2", "PrintV2", "Copy", "CopyHost", "DeleteFile", "RenameFile",
    }
)  # fmt: skip
_OUTSIDE = frozenset(
    {
        "_Send", "_Recv", "_HostSend", "_HostRecv", "RpcCall", "RpcClient", "RpcServer", "RpcServerStart",
        "RpcServerRegister", "RpcCheckStatus", "Rpc", "TryRpc", "RegisterDataset", "RegisterDatasetV2",
        "DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4", "BigQueryReader",
        "RemoteCall", "RemoteFusedGraphExecute", "CollectiveReduce", "CollectiveReduceV2", "CollectiveGather",
        "CollectiveGatherV2", "CollectiveBcastSend", "CollectiveBcastRecv", "CollectiveInitializeCommunicator",
        "TPUExecute", "TPUPartitionedCall", "ConfigureDistributedTPU", "XlaLaunch", "TRTEngineOp", "KafkaDataset",
    }
)  # fmt: skip
_CHECKPOINTS = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "ShardedFilespec"})
"""What every SavedModel has for saving itself again; harmless as long as nothing that is run leads there."""

_WHY = (
    (_PYTHON, "runs Python code"),
    (_FILES, "reads or writes files"),
    (_OUTSIDE, "talks to other processes"),
    (_CHECKPOINTS, "reads or writes checkpoints"),
)

_TEXT_OPERATORS = ("String", "Regex", "Unicode", "AsString", "DecodeJpeg", "DecodePng", "DecodeImage", "ParseExample",
                   "Sentencepiece", "Wordpiece", "WhitespaceTokenize", "LookupTable", "HashTable",
                   "MutableHashTable", "Substr", "ReduceJoin", "DecodeBase64", "DecodeRaw", "StaticRegex")  # fmt: skip
_EXPORT_WITHOUT = (
    "export the part of the model that takes numbers (token ids, pixels) as a signature of its own and name it with "
    "--signature; do the texts and tables in the client"
)


def named_nodes(graph_def: Any) -> Iterator[tuple[str, str, str]]:
    """Operator, node and function (empty: the graph itself) of everything in a GraphDef, functions included."""
    for node in graph_def.node:
        yield node.op, node.name, ""
    for function in graph_def.library.function:
        for node in function.node_def:
            yield node.op, node.name, function.signature.name


def refuse_dangerous(graph_def: Any, what: str, *, roots: Iterable[str] = (), checkpoints: bool = True) -> None:
    """Refuse a graph with an operator that reaches outside, wherever it is.

    Args:
        what: names the source in the sentence.
        roots: nodes and functions that will be run; only what they lead to may not touch checkpoints.
        checkpoints: whether the operators of a saver are allowed outside of what `roots` lead to.
    Raises: BadSource with operator and node.
    """
    run = reached(graph_def, roots) if checkpoints else None
    for operator, node, function in named_nodes(graph_def):
        for operators, why in _WHY:
            if operator not in operators:
                continue
            if operators is _CHECKPOINTS and run is not None and (function or node) not in run:
                continue
            inside = f" in function '{function}'" if function else ""
            raise BadSource(
                f"{what} has an operator that {why}: {operator}, node '{node}'{inside}; it is not loaded",
                remedy="export the model for inference without it; Tensorquay never runs such operators",
                facts={"operator": operator, "node": node},
            )


def reached(graph_def: Any, roots: Iterable[str]) -> set[str]:
    """Names of all nodes of the graph and all functions that running `roots` (of either kind) can run."""
    nodes = {node.name: node for node in graph_def.node}
    functions = {function.signature.name: function for function in graph_def.library.function}
    waiting = [_node_of(root) for root in roots]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in nodes:
            waiting += [_node_of(each) for each in nodes[name].input]
            waiting += _called(nodes[name], functions)
        if name in functions:
            for node in functions[name].node_def:
                waiting += _called(node, functions)
    return seen


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _called(node: Any, functions: Any) -> Iterator[str]:
    if node.op in functions:
        yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for each in value.list.func:
            yield each.name


def reach_of(operator: str) -> str:
    """What an operator reaches outside ("runs Python code"); empty for one that only computes."""
    return next((why for operators, why in _WHY if operator in operators), "")


def is_text_operator(operator: str) -> bool:
    """Whether an operator works on texts, encoded images or tables, for which there is no ONNX."""
    return any(part in operator for part in _TEXT_OPERATORS)


def refuse_texts(graph_def: Any, what: str) -> None:
    """Refuse a graph that works on texts or tables. Raises: Unsupported with operator, node and how many."""
    found = [(operator, node) for operator, node, _ in named_nodes(graph_def) if is_text_operator(operator)]
    if not found:
        return
    operator, node = found[0]
    others = f" and {len(found) - 1} more such nodes" if len(found) > 1 else ""
    raise Unsupported(
        f"{what} works on texts, files' contents or tables, which have no ONNX: {operator}, node '{node}'{others}",
        remedy=_EXPORT_WITHOUT,
        facts={"operator": operator, "node": node, "nodes": len(found)},
    )
