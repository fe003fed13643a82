"""What is measured: a model, requests for it, and how many of them are under way at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto
from tests.bench import graphs

SHIPPED = Path(__file__).parents[2] / "model_repo"
HTTP_BINARY, HTTP_JSON, GRPC = "http binary", "http json", "grpc"
DOORS = (HTTP_BINARY, GRPC, HTTP_JSON)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One model.

    Args:
        build: makes the graph; None copies the shipped model of that name, configuration and all.
        rows: the inputs of `count` different requests of one row each, stacked.
        sizes: batch sizes at which raw throughput is tried.
        max_batch: the server's max_batch_size; None sets it to the best of `sizes`.
        in_flight: requests under way at once; None makes it two batches, one running and one waiting.
        exact: every answer is always the same bytes (integers), so each one can be compared.
    """

    name: str
    what: str
    build: Callable[[], ModelProto] | None
    rows: Callable[[int], Arrays]
    sizes: tuple[int, ...]
    max_batch: int | None = None
    in_flight: int | None = None
    doors: tuple[str, ...] = (HTTP_BINARY, GRPC)
    exact: bool = False

    def write(self, repository: Path) -> Path:
        """Put the model into `repository`, without configuration if it is built; returns the path of the graph."""
        folder = repository / self.name
        graph = folder / "1" / "model.onnx"
        if self.build is None:
            shutil.copytree(SHIPPED / self.name, folder)
        else:
            graph.parent.mkdir(parents=True)
            graph.write_bytes(self.build().SerializeToString())
        return graph

    def configure(self, repository: Path, max_batch: int) -> None:
        """Tell the server the largest batch of a built model; a shipped one has its own configuration."""
        if self.build is not None:
            (repository / self.name / "config.toml").write_text(f"max_batch_size = {max_batch}\n")


def _integers(count: int) -> Arrays:
    random = np.random.default_rng(10)
    return {name: random.integers(-1000, 1000, (count, 16), np.int32) for name in ("INPUT0", "INPUT1")}


def _vectors(count: int) -> Arrays:
    return {"x": np.random.default_rng(11).standard_normal((count, 128), np.float32)}


def _images(count: int) -> Arrays:
    # Noise averages out in the network, and all answers would be alike: coarse patches of different brightness do not.
    random = np.random.default_rng(12)
    patches = random.standard_normal((count, 3, 7, 7), np.float32).repeat(32, 2).repeat(32, 3)
    level = random.uniform(0.3, 2, (count, 1, 1, 1)).astype(np.float32)
    return {"image": patches * level + random.standard_normal(patches.shape, np.float32) / 4}


def _sentences(count: int) -> Arrays:
    random = np.random.default_rng(13)
    shape = (count, 128)
    return {"input_ids": random.integers(0, 30_522, shape, np.int64), "attention_mask": np.ones(shape, np.int64)}


CASES = (
    Case(
        "simple",
        "Triton's add/sub, 2 × INT32 [16]; as shipped",
        None,
        _integers,
        (1, 8, 32, 64),
        max_batch=8,
        in_flight=64,
        doors=DOORS,
        exact=True,
    ),
    Case(
        "mlp",
        "128-256-256-10, 101 thousand parameters",
        graphs.mlp,
        _vectors,
        (1, 8, 32, 64),
        max_batch=64,
        in_flight=64,
        doors=DOORS,
    ),
    Case("resnet50", "ResNet-50's layers, FP32 [3, 224, 224]", graphs.resnet50, _images, (1, 2, 4, 8, 16)),
    Case("bert", "MiniLM's layers (6 × 384), 128 tokens", graphs.bert, _sentences, (1, 2, 4, 8, 16, 32)),
)
