"""Clients that ask without a pause while a test breaks something, and the judge of what they were told.

Each client asks for y = factor · x with an x of its own. Who knows which factors exist can tell from every single
answer whether it is right and which model gave it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import grpc
import numpy as np
from tests.support import ask
from tests.support.http_raw import Dropped, RawConnection, request
from tests.support.serving import RunningServer
from tests.support.waiting import until
from tritonclient.grpc import service_pb2

WIDTH = 4


@dataclass
class Told:
    """What one client was told, in order. `factors`: of each right-looking answer; `refused`: clean refusals.

    `lost`: connections that ended without an answer to a request; `wrong`: everything else.
    """

    who: str
    factors: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Load:
    """Clients from entering to leaving the `with`; `told` holds their reports.

    Args:
        until_refused: a client ends at its first refusal or lost connection instead of trying again.
        lead: the first element of every row (what `graphs.working` takes its number of turns from); None: random too.
    """

    def __init__(
        self,
        server: RunningServer,
        model: str,
        *,
        http: int = 2,
        grpc: int = 2,
        width: int = WIDTH,
        lead: float | None = None,
        until_refused: bool = False,
    ) -> None:
        self._server = server
        self._model = model
        self._width = width
        self._lead = lead
        self._until_refused = until_refused
        self._stop = threading.Event()
        self.told: list[Told] = []
        self._threads: list[threading.Thread] = []
        clients: list[tuple[str, Callable[[Told, int], None]]] = []
        clients += [(f"http {number}", self._ask_http) for number in range(http)]
        clients += [(f"grpc {number}", self._ask_grpc) for number in range(grpc)]
        for seed, (who, client) in enumerate(clients):
            told = Told(who)
            self.told.append(told)
            self._threads.append(threading.Thread(target=self._serve, args=(client, told, seed), name=who))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until(lambda: all(told.factors or told.lost or told.wrong for told in self.told), "every client had an answer")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def answers(self) -> int:
        """How many right-looking answers there were so far."""
        return sum(len(told.factors) for told in self.told)

    @property
    def ended(self) -> bool:
        """Whether every client has ended (see `until_refused`)."""
        return not any(thread.is_alive() for thread in self._threads)

    def more(self, count: int = 1) -> None:
        """Wait until every client had `count` more answers."""
        before = [len(told.factors) for told in self.told]
        until(
            lambda: all(
                len(told.factors) >= had + count or told.wrong or told.lost
                for told, had in zip(self.told, before, strict=True)
            ),
            f"every client had {count} more answers",
        )

    def check(self, factors: set[float], *, refusals: bool = False, lost: bool = False) -> None:
        """Fail unless every answer was right for one of `factors`, and nothing else happened than what is allowed."""
        for told in self.told:
            assert not told.wrong, (told.who, told.wrong[:3])
            assert lost or not told.lost, (told.who, told.lost[:3])
            assert refusals or not told.refused, (told.who, told.refused[:3])
            assert told.factors, f"{told.who} was never answered"
            assert set(told.factors) <= factors, (told.who, set(told.factors) - factors)

    # -- the clients

    def _serve(self, client: Callable[[Told, int], None], told: Told, seed: int) -> None:
        try:
            client(told, seed)
        except Exception as error:  # noqa: BLE001  whatever breaks a client is part of the report
            told.wrong.append(f"client broke: {error!r}")

    def _rows(self, seed: int) -> np.ndarray:
        rows = np.random.default_rng(seed).integers(1, 100, (1, self._width)).astype(np.float32)
        if self._lead is not None:
            rows[0, 0] = self._lead
        return rows

    def _judge(self, told: Told, version: str, x: np.ndarray, y: list[float]) -> None:
        factor = y[-1] / float(x[0, -1])
        if y != [factor * each for each in x[0].tolist()]:
            told.wrong.append(f"{x.tolist()} gave {y}")
        told.factors.append(factor)
        told.versions.append(int(version))

    def _done(self, told: Told) -> bool:
        return self._stop.is_set() or (self._until_refused and bool(told.refused or told.lost))

    def _ask_http(self, told: Told, seed: int) -> None:
        path = f"/v2/models/{self._model}/infer"
        while not self._done(told):
            try:
                connection = RawConnection(self._server.http)
            except ConnectionRefusedError:
                told.refused.append("connection refused")
                continue
            except ConnectionResetError:
                # Whose queue it stood in ended before it was accepted.
                told.lost.append("connection reset while it was made")
                continue
            with connection:
                for number in itertools.count():
                    if self._done(told):
                        return
                    x = self._rows(seed * 1_000_000 + number)
                    connection.send(request(path, ask.infer_body(x)))
                    try:
                        answer = connection.answer()
                    except Dropped as error:
                        told.lost.append(f"request {number} of a connection: {error}")
                        break
                    if answer.status in {429, 503}:
                        told.refused.append(answer.body.decode())
                    elif answer.status != 200:
                        told.wrong.append(f"{answer.status} {answer.body!r}")
                    else:
                        content = json.loads(answer.body)
                        self._judge(told, content["model_version"], x, content["outputs"][0]["data"])
                    if answer.headers.get("connection") == "close":
                        break

    def _ask_grpc(self, told: Told, seed: int) -> None:
        # A pool of its own: by default all channels of a process to one address share one connection.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        with grpc.insecure_channel(self._server.grpc, options=options) as channel:
            infer = ask.unary(channel, "ModelInfer")
            for number in itertools.count():
                if self._done(told):
                    return
                x = self._rows(seed * 1_000_000 + number)
                try:
                    response = service_pb2.ModelInferResponse.FromString(infer(ask.infer_message(x, self._model)))
                except grpc.RpcError as error:
                    had = len(told.lost)
                    self._failed(told, error)
                    if len(told.lost) > had and not self._done(told):
                        # Until it has connected again a channel fails every call at once with the old error.
                        with contextlib.suppress(grpc.FutureTimeoutError):
                            grpc.channel_ready_future(channel).result(timeout=5)
                    continue
                self._judge(
                    told, response.model_version, x, np.frombuffer(response.raw_output_contents[0], "<f4").tolist()
                )

    @staticmethod
    def _failed(told: Told, error: grpc.RpcError) -> None:
        code, text = error.code(), error.details() or ""
        if code not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
            told.wrong.append(f"{code} {text}")
        elif any(broken in text for broken in ("Connection reset", "Socket closed", "GOAWAY", "Broken pipe")):
            told.lost.append(f"{code} {text}")
        else:
            told.refused.append(text)
