"""Build `simple` and `simple_identity`, the models that Triton's client examples call.

    python model_repo/build_simple.py [--into model_repo]

Needs onnx and numpy only. Both are one or two ONNX nodes, so what a client measures on them is the server.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
from onnx import TensorProto, helper

OPSET = 17
IR_VERSION = 8  # the oldest format that holds opset 17: every ONNX Runtime since 1.12 reads it


def simple() -> onnx.ModelProto:
    """OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, all INT32 [batch, 16]."""
    shape = ["batch", 16]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"], name="sum"),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"], name="difference"),
        ],
        "simple",
        [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("INPUT0", "INPUT1")],
        [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("OUTPUT0", "OUTPUT1")],
    )
    return finished(graph)


def simple_identity() -> onnx.ModelProto:
    """OUTPUT0 = INPUT0, strings [batch, elements]."""
    shape = ["batch", "elements"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"], name="echo")],
        "simple_identity",
        [helper.make_tensor_value_info("INPUT0", TensorProto.STRING, shape)],
        [helper.make_tensor_value_info("OUTPUT0", TensorProto.STRING, shape)],
    )
    return finished(graph)


def finished(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tensorquay model_repo",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the models of Triton's client examples.")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="the model repository")
    repository: Path = parser.parse_args().into
    for model in (simple(), simple_identity()):
        path = repository / model.graph.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        print(f"{model.graph.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
