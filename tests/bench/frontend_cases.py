"""What `frontends.py` measures: which model through which door, how many at once, from which generator.

Requests are whole ones as bytes, right answers are numpy's: nothing here asks the server or ONNX Runtime.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import grpc
import numpy as np
from tests.bench import graphs, wire
from tests.bench.cases import CASES, GRPC, HTTP_BINARY, HTTP_JSON, Case
from tests.bench.generators import missing
from tests.bench.h2load import PACKAGE as H2LOAD_PACKAGE
from tests.bench.h2load import PROGRAM as H2LOAD
from tests.bench.load import GRPC_HEALTH, HTTP_HEALTH
from tests.bench.wrk import PACKAGE as WRK_PACKAGE
from tests.bench.wrk import PROGRAM as WRK

Arrays = Mapping[str, np.ndarray]

OWN = "own"
"""The project's own load generator (`load.py`)."""

_PACKAGES = {WRK: WRK_PACKAGE, H2LOAD: H2LOAD_PACKAGE}
_TIMEOUT_S = 60


def _images(count: int) -> Arrays:
    return {"image": np.random.default_rng(14).integers(0, 256, (count, 3, 224, 224)).astype(np.float32)}


GAP = Case("gap", "GlobalAveragePool over FP32 [3, 224, 224]: 600 KB in", graphs.global_average, _images, (1,))
SIMPLE = next(case for case in CASES if case.name == "simple")
MODELS = {case.name: case for case in (SIMPLE, GAP)}

_ROWS = {SIMPLE.name: 64, GAP.name: 8}
"""Different requests that a generator sends by turns, where it can (h2load repeats one)."""


@dataclass(frozen=True)
class DoorCase:
    """One line of the table.

    Args:
        model: None for a floor, an empty handler behind the same door.
        goal_us: server CPU per request that the design promises; no test looks at it.
        note: what the line's name does not say.
    """

    door: str
    connections: int
    streams: int = 1
    model: str | None = None
    goal_us: float | None = None
    generator: str = WRK
    note: str = ""

    @property
    def is_grpc(self) -> bool:
        """Whether it is gRPC's door, else HTTP's."""
        return self.door in {GRPC, GRPC_HEALTH}

    @property
    def in_flight(self) -> int:
        """Requests under way at once."""
        return self.connections * self.streams

    @property
    def shape(self) -> str:
        """Connections × streams, as people write it."""
        return f"{self.connections} × {self.streams}" if self.is_grpc else str(self.connections)

    @property
    def floor(self) -> DoorCase:
        """The empty handler behind the same door, with as many requests at once."""
        generator = self.generator if self.generator != OWN else H2LOAD if self.is_grpc else WRK
        door = GRPC_HEALTH if self.is_grpc else HTTP_HEALTH
        return DoorCase(door, self.connections, self.streams, generator=generator)


def _simple(door: str, connections: int, streams: int, goal_us: float) -> DoorCase:
    generator = H2LOAD if door == GRPC else WRK
    return DoorCase(door, connections, streams, SIMPLE.name, goal_us, generator)


DOOR_CASES = (
    _simple(HTTP_BINARY, 64, 1, 15),
    _simple(HTTP_JSON, 64, 1, 20),
    _simple(GRPC, 8, 8, 15),
    _simple(GRPC, 64, 1, 20),
    _simple(HTTP_BINARY, 1, 1, 80),
    _simple(HTTP_JSON, 1, 1, 80),
    _simple(GRPC, 1, 1, 80),
    DoorCase(HTTP_BINARY, 64, 1, GAP.name, 180, WRK),
    DoorCase(HTTP_BINARY, 4, 1, GAP.name, 180, WRK),
    DoorCase(GRPC, 8, 8, GAP.name, 330, OWN, "frames as large as the server takes"),
    DoorCase(GRPC, 8, 8, GAP.name, 330, H2LOAD, "frames of 16 KiB"),
    DoorCase(GRPC, 4, 1, GAP.name, 330, H2LOAD, "frames of 16 KiB"),
)


def usable(cases: Sequence[DoorCase]) -> tuple[list[DoorCase], list[str]]:
    """The cases with generators that are installed, and a note for each one that is not."""
    absent = {program: why for program, package in _PACKAGES.items() if (why := missing(program, package)) is not None}
    # Only where the generator is the point of the line is there nothing to take its place.
    kept = [case for case in cases if case.generator not in absent or not case.note]
    return [replace(case, generator=OWN) if case.generator in absent else case for case in kept], sorted(
        absent.values()
    )


@dataclass(frozen=True)
class Traffic:
    """The requests of one case, and what is right.

    Args:
        requests: what a generator sends: whole HTTP requests, or prefixed gRPC messages.
        rows: inputs and right outputs, for the project's own generator; None for a floor.
    """

    case: DoorCase
    address: str
    requests: list[bytes]
    rows: tuple[Arrays, Arrays] | None

    @property
    def path(self) -> str:
        """The gRPC method."""
        return wire.SERVER_LIVE if self.case.model is None else wire.MODEL_INFER

    def check(self) -> int:
        """Ask once for every request and compare each answer with numpy. Returns: bytes of the first answer.

        Raises: wire.WrongAnswer.
        """
        ask = self._ask_grpc if self.case.is_grpc else self._ask_http
        return ask(self._right if self.rows is not None else self._alive)

    def _right(self, number: int, got: Arrays) -> None:
        assert self.rows is not None
        assert self.case.model is not None
        expected = {name: array[number][None] for name, array in self.rows[1].items()}
        wire.compare(got, expected, exact=MODELS[self.case.model].exact)

    def _alive(self, number: int, got: Arrays) -> None:
        """Nothing to compare: a floor's answer is a success or it is not."""

    def _ask_http(self, judge: Callable[[int, Arrays], None]) -> int:
        connection = http.client.HTTPConnection(self.address, timeout=_TIMEOUT_S)
        sizes = []
        try:
            for number, request in enumerate(self.requests):
                head, _, body = request.partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                connection.request(method, path, body or None, dict(line.split(": ", 1) for line in lines))
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != 200:
                    raise wire.WrongAnswer(f"status {answer.status}: {said[:300]!r}")
                heading = "\r\n".join(("", *(f"{name}: {text}" for name, text in answer.getheaders())))
                judge(number, wire.http_outputs(heading.encode("latin-1"), said) if self.rows is not None else {})
                sizes.append(len(said))
        finally:
            connection.close()
        return sizes[0]

    def _ask_grpc(self, judge: Callable[[int, Arrays], None]) -> int:
        sizes = []
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(self.address, options) as channel:
            call = channel.unary_unary(self.path)  # bytes in, bytes out
            for number, request in enumerate(self.requests):
                try:
                    said = wire.grpc_message(call(request[5:], timeout=_TIMEOUT_S))
                except grpc.RpcError as error:
                    raise wire.WrongAnswer(str(error)) from error
                judge(number, wire.grpc_outputs(said) if self.rows is not None else {})
                sizes.append(len(said))
        return sizes[0]


def traffic(case: DoorCase, address: str) -> Traffic:
    """The requests of `case` to the door at `address`."""
    if case.model is None:
        request = wire.grpc_message(b"") if case.is_grpc else wire.http_get(address, "/v2/health/live")
        return Traffic(case, address, [request], None)
    count = _ROWS[case.model]
    inputs = MODELS[case.model].rows(count)
    requests = []
    for number in range(count):
        row = {name: array[number][None] for name, array in inputs.items()}
        if case.is_grpc:
            requests.append(wire.grpc_infer(case.model, row))
        else:
            requests.append(wire.http_infer(address, case.model, row, binary=case.door == HTTP_BINARY))
    return Traffic(case, address, requests, (inputs, _right_answers(case.model, inputs)))


def _right_answers(model: str, inputs: Arrays) -> Arrays:
    """What `model` computes, by numpy."""
    if model == SIMPLE.name:
        first, second = inputs["INPUT0"], inputs["INPUT1"]
        return {"OUTPUT0": first + second, "OUTPUT1": first - second}
    return {"y": inputs["image"].mean(axis=(2, 3), keepdims=True, dtype=np.float64).astype(np.float32)}
