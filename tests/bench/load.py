"""The load generator: a process of its own, so that its work is neither done nor waited for by anything measured.

    python -m tests.bench.load <spec.json >result.json

Prints the measurement, or {"error": …} when an answer was wrong.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from tests.bench import wire
from tests.bench.arithmetic import per_request_us, percentile
from tests.bench.cases import GRPC, HTTP_BINARY, HTTP_JSON
from tests.bench.http1 import HttpConnection
from tests.bench.http2 import GrpcConnection, share
from tests.bench.pace import Loop, Window
from tests.bench.processes import ProcessTree

try:
    import uvloop
except ImportError:
    uvloop = None

HTTP_HEALTH, GRPC_HEALTH = "http health", "grpc health"
"""Floors: a constant answer through the same door."""

_PROTOCOLS = {HTTP_BINARY: "http", HTTP_JSON: "http", HTTP_HEALTH: "http", GRPC: "grpc", GRPC_HEALTH: "grpc"}
_OPEN_TIMEOUT_S = 30


@dataclass(frozen=True)
class LoadSpec:
    """What to send.

    Args:
        address: "host:port" of the door.
        data: an .npz of rows: "in/<name>" the inputs, "out/<name>" what raw ONNX Runtime computes from them. None for
            a floor.
        connections: at most so many; HTTP/1.1 needs one per request under way whatever this says.
        pid: the server's process.
        limit_s: the whole measurement must be over by then.
    """

    door: str
    address: str
    model: str
    data: str | None
    in_flight: int
    connections: int
    exact: bool
    window: Window
    pid: int
    limit_s: float

    @classmethod
    def from_json(cls, text: str) -> LoadSpec:
        """The other side of `json.dumps(asdict(spec))`."""
        fields = json.loads(text)
        return cls(**{**fields, "window": Window(**fields["window"])})


async def run(spec: LoadSpec) -> dict[str, Any]:
    """Measure once.

    Raises: WrongAnswer, ValueError, OSError, TimeoutError.
    """
    server = ProcessTree.of(spec.pid)
    rows = _Rows(spec.data)
    health = spec.data is None
    loop = Loop(
        spec.window,
        spec.in_flight,
        server.cpu_s,
        exact=spec.exact or health,
        fixed=spec.door != HTTP_JSON or spec.exact,
        finished=asyncio.get_running_loop().create_future(),
    )
    connections = await (_open_http if _PROTOCOLS[spec.door] == "http" else _open_grpc)(spec, rows, loop)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop.fail(_failure(context)))
    # A collection of this process must not look like a slow answer of the other one.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for connection in connections:
            connection.start()
        async with asyncio.timeout(spec.limit_s):
            await loop.finished
    finally:
        gc.enable()
        for connection in connections:
            connection.close()
    if not health:
        decode = wire.grpc_outputs if _PROTOCOLS[spec.door] == "grpc" else None
        for slot, answer in enumerate(loop.answers):
            assert answer.first is not None
            for head, body in (answer.first, answer.last):
                got = decode(body) if decode else wire.http_outputs(head, body)
                wire.compare(got, rows.expected(slot), exact=spec.exact)
    return _result(spec, loop, len(connections))


def _failure(context: dict[str, Any]) -> Exception:
    """What went wrong in a callback, which nobody awaits."""
    error = context.get("exception")
    return error if isinstance(error, Exception) else RuntimeError(context["message"])


class _Rows:
    """Rows of inputs and outputs; slot i uses row i, or begins again when there are fewer."""

    def __init__(self, path: str | None) -> None:
        self._inputs: dict[str, np.ndarray] = {}
        self._outputs: dict[str, np.ndarray] = {}
        if path is not None:
            with np.load(path) as stored:
                for key in stored.files:
                    kind, _, name = key.partition("/")
                    (self._inputs if kind == "in" else self._outputs)[name] = stored[key]

    def row(self, slot: int) -> dict[str, np.ndarray]:
        return _row(self._inputs, slot)

    def expected(self, slot: int) -> dict[str, np.ndarray]:
        return _row(self._outputs, slot)


def _row(arrays: dict[str, np.ndarray], slot: int) -> dict[str, np.ndarray]:
    return {name: array[slot % len(array)][None] for name, array in arrays.items()}


async def _open_http(spec: LoadSpec, rows: _Rows, loop: Loop) -> list[HttpConnection]:
    heads: dict[bytes, tuple[int, int]] = {}
    connections = []
    for slot in range(spec.in_flight):
        if spec.door == HTTP_HEALTH:
            request = wire.http_get(spec.address, "/v2/health/live")
        else:
            request = wire.http_infer(spec.address, spec.model, rows.row(slot), binary=spec.door == HTTP_BINARY)
        connections.append(HttpConnection(loop, slot, request, heads))
    await _connect(spec.address, connections)
    return connections


async def _open_grpc(spec: LoadSpec, rows: _Rows, loop: Loop) -> list[GrpcConnection]:
    outcomes: dict[bytes, tuple[bytes | None, bool | None]] = {}
    connections = []
    for slots in share(spec.in_flight, spec.connections):
        if spec.door == GRPC_HEALTH:
            path, messages = wire.SERVER_LIVE, {slot: wire.grpc_message(b"") for slot in slots}
        else:
            path, messages = wire.MODEL_INFER, {slot: wire.grpc_infer(spec.model, rows.row(slot)) for slot in slots}
        connections.append(GrpcConnection(loop, messages, outcomes, path=path, authority=spec.address))
    await _connect(spec.address, connections)
    async with asyncio.timeout(_OPEN_TIMEOUT_S):
        await asyncio.gather(*(connection.settled() for connection in connections))
    return connections


async def _connect(address: str, connections: list[Any]) -> None:
    host, _, port = address.rpartition(":")
    running = asyncio.get_running_loop()
    for connection in connections:
        await running.create_connection(partial(_same, connection), host, int(port))


def _same(connection: asyncio.Protocol) -> asyncio.Protocol:
    return connection


def _result(spec: LoadSpec, loop: Loop, connections: int) -> dict[str, Any]:
    ordered = sorted(loop.latencies_ns)
    return {
        "requests": loop.requests,
        "answered": loop.answers_in_all,
        "connections": connections,
        "seconds": loop.wall_ns / 1e9,
        "rate_s": loop.requests / (loop.wall_ns / 1e9),
        "p50_ms": percentile(ordered, 0.50) / 1e6,
        "p99_ms": percentile(ordered, 0.99) / 1e6,
        "max_ms": ordered[-1] / 1e6,
        "server_cpu_us": per_request_us(loop.server_cpu_s, loop.requests),
        "load_cpu_us": per_request_us(loop.own_cpu_s, loop.requests),
    }


def dump(spec: LoadSpec) -> str:
    """The specification as the process reads it."""
    return json.dumps(asdict(spec))


def main() -> int:
    """Read the specification, measure, print."""
    spec = LoadSpec.from_json(sys.stdin.read())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
            result = runner.run(run(spec))
    except TimeoutError:
        result = {"error": f"not over after {spec.limit_s:.0f} s"}
    except (wire.WrongAnswer, ValueError, OSError) as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main())
