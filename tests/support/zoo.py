"""A repository of small real models, one for every rule of the protocol that the conformance suite checks."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, helper

from graphs import ONNX_TYPES, add_sub, identity, lookup, model, optional_input, pass_through, scale, value, write

LABELS = ("ant", "bee", "cat", "dog")


def build_zoo(root: Path) -> Path:
    """Write the repository under `root`; returns `root`."""
    for wire in ONNX_TYPES:
        _put(root, f"t_{wire.lower()}", identity(wire))
    _put(root, "scalar", identity("FP32", ()))
    _put(root, "double", scale(2.0))
    _put(root, "grid", identity("FP32", ("batch", "h", "w")))
    _put(root, "pair", identity("FP32", (2, 3)))
    _put(root, "optional", optional_input())
    _put(root, "lookup", lookup())
    _put(root, "two_outputs", pass_through())
    _put(root, "split", add_sub(("batch", 4)), "max_batch_size: 4\ndynamic_batching { }")
    _put(root, "strict", add_sub(("batch", 4)), f"max_batch_size: 8\n{_parameter('oversize_requests', 'refuse')}")
    _put(root, "top", identity("FP32", ("batch", 4)), _labelled("4", 8), labels="\n".join(LABELS))
    _put(root, "top_flat", identity("FP32", (4,)), _labelled("4", 0), labels="ant\nbee\n")
    _put(root, "top_int", identity("INT32", ("batch", 4)), "max_batch_size: 8")
    _put(root, "ranked", identity("FP32", ("batch", 4)), _RANKED)
    _put(root, "waiting", identity("FP32", ("batch", 4)), _WAITING)
    _put(root, "folded", flat_sum(), _FOLDED)
    _put(root, "versions", scale(2.0), "version_policy: { all { } }")
    write(scale(3.0), root / "versions" / "3" / "model.onnx")
    _put(root, "latest", scale(2.0))
    write(scale(3.0), root / "latest" / "2" / "model.onnx")
    _put(root, "odd name é%", scale(2.0))
    return root


def flat_sum() -> ModelProto:
    """x FP32 [batch, 6] → y FP32 [batch, 6] = 2x."""
    axes = ("batch", 6)
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", "FP32", axes)], [value("y", "FP32", axes)])


def _put(root: Path, name: str, graph: ModelProto, config: str = "", *, labels: str = "") -> None:
    write(graph, root / name / "1" / "model.onnx")
    if config:
        (root / name / "config.pbtxt").write_text(f'platform: "onnxruntime_onnx"\n{config}\n')
    if labels:
        (root / name / "labels.txt").write_text(labels)


def _parameter(key: str, text: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}'


def _labelled(dims: str, max_batch_size: int) -> str:
    return (
        f"max_batch_size: {max_batch_size}\n"
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {dims} ] label_filename: "labels.txt" }} ]'
    )


_RANKED = "max_batch_size: 8\ndynamic_batching { priority_levels: 2 default_priority_level: 2 }"

# Here a request waits for an hour: only a full batch, a time-out or leaving ends it, so no test needs a clock.
_WAITING = """max_batch_size: 8
dynamic_batching {
  preferred_batch_size: [ 8 ]
  max_queue_delay_microseconds: 3600000000
  default_queue_policy { timeout_action: REJECT allow_timeout_override: true max_queue_size: 2 }
}"""

_FOLDED = """max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, 3 ] reshape { shape: [ 6 ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3, 2 ] reshape { shape: [ 6 ] } } ]"""
