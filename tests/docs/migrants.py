"""What a reader who comes from another server has: a repository of Triton's, a base path, a model store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from tests.docs.desk import Desk
from tests.support import graphs

MADE = Path(__file__).parent / "made"

CLASSES = ("cat", "dog", "horse", "ship")

CONFIG_PBTXT = """
name: "resnet"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {
    name: "image"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 32, 32 ]
  }
]
output [
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 4 ]
    label_filename: "labels.txt"
  }
]
version_policy: { latest { num_versions: 2 } }
instance_group [
  {
    count: 2
    kind: KIND_CPU
  }
]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 200
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 5000000
    max_queue_size: 256
  }
}
optimization {
  graph { level: 1 }
  input_pinned_memory { enable: false }
}
parameters {
  key: "intra_op_thread_count"
  value: { string_value: "1" }
}
metric_tags {
  key: "team"
  value: "vision"
}
model_warmup [
  {
    name: "full batch"
    batch_size: 8
    inputs {
      key: "image"
      value: {
        data_type: TYPE_FP32
        dims: [ 3, 32, 32 ]
        random_data: true
      }
    }
  }
]
"""
"""As Triton's users write it: brackets and colons wherever text protobuf lets them be."""


def resnet(seed: int) -> ModelProto:
    """image FP32 [batch, 3, 32, 32] → probabilities FP32 [batch, 4]."""
    rng = np.random.default_rng(seed)
    return graphs.model(
        [
            helper.make_node("Conv", ["image", "kernel"], ["seen"], strides=[4, 4]),
            helper.make_node("Relu", ["seen"], ["lit"]),
            helper.make_node("GlobalAveragePool", ["lit"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"]),
        ],
        [graphs.value("image", "FP32", ["batch", 3, 32, 32])],
        [graphs.value("probabilities", "FP32", ["batch", len(CLASSES)])],
        [
            numpy_helper.from_array(rng.standard_normal((8, 3, 4, 4)).astype(np.float32), "kernel"),
            numpy_helper.from_array(rng.standard_normal((8, len(CLASSES))).astype(np.float32), "weights"),
        ],
    )


def triton_repository(folder: Path) -> Path:
    """Write the repository to `folder`: one model, two versions, labels, and a configuration with all the usual."""
    for version in (1, 2):
        graphs.write(resnet(version), folder / "resnet" / str(version) / "model.onnx")
    (folder / "resnet" / "config.pbtxt").write_text(CONFIG_PBTXT)
    (folder / "resnet" / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return folder


def beside_triton(desk: Desk) -> None:
    """The repository, and a server on Triton's ports.

    It is one of ours, as Triton cannot be had here: the script that compares two is tried, Triton's answers are not.
    """
    triton_repository(desk.folder / "triton_repo")
    desk.serve("triton_repo")


def beside_tensorflow_serving(desk: Desk) -> None:
    """A base path with one version."""
    pytest.importorskip("tensorflow")
    _make("base_path.py", desk.folder / "tfs" / "flowers")


def beside_torchserve(desk: Desk) -> None:
    """A model store with an archive of TorchScript, and one of a class and its weights."""
    pytest.importorskip("torch")
    _make("model_store.py", desk.folder / "model_store")


def _make(program: str, target: Path) -> None:
    """Run one of `made/`, away from this process: frameworks warn, and warnings are errors here."""
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(MADE / program), str(target)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
