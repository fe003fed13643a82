"""A small repository, and the native server on it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graphs import add_sub, identity, write
from native_grpc import NativeHouse

# Here a request waits for an hour: only a full batch, a deadline or leaving ends it.
WAITING = """platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 3600000000 }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """simple, bytes of any size, and a model whose batches never fill."""
    root = tmp_path_factory.mktemp("native")
    write(add_sub(), root / "simple" / "1" / "model.onnx")
    write(identity("UINT8"), root / "bytes" / "1" / "model.onnx")
    write(identity("FP32"), root / "waiting" / "1" / "model.onnx")
    (root / "waiting" / "config.pbtxt").write_text(WAITING)
    return root


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def house(request: pytest.FixtureRequest, repository: Path) -> Iterator[NativeHouse]:
    """A server with one restricted category, on either loop."""
    house = NativeHouse(
        repository,
        stock_loop=request.param == "asyncio",
        restricted={"trace": ("admin-key", "secret")},
        forward="x-forward-.*",
    )
    yield house
    house.close()
