"""The native gRPC server on an engine of real parts: in a thread of the test's process, or as a process of its own.

`python tests/support/native_grpc.py REPOSITORY [--stock-loop]` serves until it is killed and prints its port; that is
what measurements use.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import sys
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from tritonclient.grpc import service_pb2

from composition import _compose
from tensorquay.config.server import ServerConfig
from tensorquay.grpc_api.control import control_methods
from tensorquay.grpc_api.infer import InferHandler
from tensorquay.grpc_api.native_server import NativeGrpcServer
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.listen import bind

T = TypeVar("T")

_TIMEOUT_S = 60


class NativeHouse:
    """A server in this process, on a loop of its own thread. Close it."""

    def __init__(self, repository: Path, *, stock_loop: bool = False, **options: Any) -> None:
        self._loop = asyncio.new_event_loop() if stock_loop else uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="native-grpc", daemon=True)
        self._thread.start()
        self.manager, self.engine, self.server = self.call(serve(repository, **options))
        self.address = f"127.0.0.1:{self.server.port}"

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    def close(self, grace_s: float = 5.0) -> None:
        """Drain, unload, end the loop."""
        self.call(self.server.stop(grace_s))
        self.call(self.manager.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()


def message(model: str = "simple") -> bytes:
    """A serialised request; `waiting` takes floats."""
    request = service_pb2.ModelInferRequest(model_name=model)
    names = ("INPUT0", "INPUT1") if model == "simple" else ("x",)
    for name in names:
        wire = "INT32" if model == "simple" else "FP32"
        request.inputs.add(name=name, datatype=wire, shape=(1, 16))
        request.raw_input_contents.append(bytes(64))
    return bytes(request.SerializeToString())


def connect(house: NativeHouse) -> socket.socket:
    host, _, port = house.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


async def serve(
    repository: Path,
    *,
    restricted: Mapping[str, tuple[str, str]] | None = None,
    max_message_bytes: int = 2**31 - 1,
    max_receiving_bytes: int = 0,
    limits: H2Limits | None = None,
    tls: ssl.SSLContext | None = None,
    forward: str | None = None,
) -> tuple[Any, Any, NativeGrpcServer]:
    """Manager, engine and started server over `repository`."""
    manager, engine = await _compose(ServerConfig(model_repository=(repository,)))
    report = await manager.start()
    assert not report.failed, report.failed
    infer = InferHandler(engine, forward_metadata=re.compile(forward) if forward else None)
    server = NativeGrpcServer(
        engine,
        infer,
        control_methods(engine),
        bound=bind("127.0.0.1", 0, what="gRPC"),
        restricted=restricted or {},
        max_message_bytes=max_message_bytes,
        max_receiving_bytes=max_receiving_bytes,
        limits=limits,
        tls=tls,
    )
    await server.start()
    return manager, engine, server


async def _forever(repository: Path) -> None:
    _, _, server = await serve(repository)
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=None if "--stock-loop" in sys.argv else uvloop.new_event_loop) as runner:
        runner.run(_forever(Path(sys.argv[1])))
