"""The access log: one line for every request, whatever carried it and however it ended, with the same fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import RawConnection, exchange, request
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until
from tritonclient.grpc import service_pb2

ROWS = ask.sequence([[1, 2, 3, 4], [5, 6, 7, 8]])
WAITS = "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n"
TRANSPORTS = {
    "native": ("--http-transport=native", "--grpc-transport=native"),
    "others": ("--http-transport=asgi", "--grpc-transport=grpcio"),
    "frontends": ("--frontends=2",),
}
FACTS = {"request_id", "model", "version", "rows", "batch_rows", "queue_ms", "run_ms"}
ALWAYS = {"door", "method", "path", "status", "ms", "peer", "request_bytes", "response_bytes"}


@dataclass
class Logged:
    """A server, and the lines of its access log that nobody has looked at."""

    server: RunningServer
    file: Path
    seen: int = 0

    def lines(self) -> list[dict[str, Any]]:
        """All of them."""
        lines = map(json.loads, self.file.read_text().splitlines())
        return [line for line in lines if line["logger"] == "tensorquay.access"]

    def next(self, count: int = 1) -> list[dict[str, Any]]:
        """The next `count` lines. Fails if there are more, because every test looks at all of its own."""
        until(lambda: len(self.lines()) >= self.seen + count, f"{count} more lines")
        new = self.lines()[self.seen :]
        self.seen += len(new)
        assert len(new) == count, new
        for line in new:
            assert line.keys() >= ALWAYS, line
            assert line["ms"] >= 0
        return new

    def one(self) -> dict[str, Any]:
        """The next line."""
        return self.next()[0]


@pytest.fixture(scope="module", params=TRANSPORTS)
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("logged")
    repo = Repo(folder / "repo")
    repo.model("scale", {3: graphs.scale(2.0)})
    repo.model("waits", {1: graphs.scale(2.0)}, WAITS)
    repo.model("full", {1: graphs.scale(2.0)}, WAITS.replace("32", "4"))
    file = folder / "server.log"
    flags = ("--access-log", "--log-format=json", f"--log-file={file}", "--http-max-input-size=100000")
    running = start([repo.root], *flags, *TRANSPORTS[request.param])
    yield Logged(running, file)
    assert running.stop() == 0, running.told()


@pytest.fixture(autouse=True)
def nothing_unseen(logged: Logged) -> Iterator[None]:
    yield
    # A line that comes late would be found by the next request.
    assert ask.get(logged.server, "/v2/health/live").status == 200
    assert logged.one()["path"] == "/v2/health/live"


def test_a_prediction_over_http(logged: Logged) -> None:
    body = ask.infer_body(ROWS, id="größe 1")
    answer = ask.post(logged.server, "/v2/models/scale/infer", body)
    assert answer.status == 200
    line = logged.one()
    assert line.keys() >= ALWAYS | FACTS
    assert line["message"] == "POST /v2/models/scale/infer 200"
    assert (line["door"], line["method"], line["path"], line["status"]) == (
        "http",
        "POST",
        "/v2/models/scale/infer",
        200,
    )
    assert (line["request_id"], line["model"], line["version"]) == ("größe 1", "scale", "3")
    assert (line["rows"], line["batch_rows"]) == (2, 2)
    assert line["ms"] >= line["queue_ms"] + line["run_ms"] > 0
    assert (line["request_bytes"], line["response_bytes"]) == (len(body), len(answer.body))
    assert line["peer"].startswith("127.0.0.1:")


def test_a_raw_binary_prediction(logged: Logged) -> None:
    """Front ends do not decode these themselves."""
    answer = ask.post(
        logged.server,
        "/v2/models/scale/versions/3/infer",
        ROWS[:1].tobytes(),
        **{"Inference-Header-Content-Length": "0"},
    )
    assert answer.status == 200, answer
    line = logged.one()
    assert (line["model"], line["version"], line["rows"]) == ("scale", "3", 1)
    assert line["request_bytes"] == ROWS[:1].nbytes


def test_a_prediction_over_grpc(logged: Logged) -> None:
    message = ask.infer_message(ROWS, "scale", id="g 1")
    with grpc.insecure_channel(logged.server.grpc) as channel:
        answer = ask.unary(channel, "ModelInfer")(message)
    line = logged.one()
    assert line.keys() >= ALWAYS | FACTS
    assert line["message"] == "ModelInfer OK"
    assert (line["door"], line["method"], line["path"]) == ("grpc", "ModelInfer", ask.SERVICE + "ModelInfer")
    assert (line["request_id"], line["model"], line["version"], line["rows"]) == ("g 1", "scale", "3", 2)
    assert (line["status"], line["request_bytes"], line["response_bytes"]) == ("OK", len(message), len(answer))
    assert line["ms"] >= line["queue_ms"] + line["run_ms"] > 0
    assert line["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v2/health/ready", "GET", 200),
        ("/v2/health/ready", "HEAD", 200),
        ("/v2", "GET", 200),
        ("/v2/models/scale/ready", "GET", 200),
        ("/v2/repository/index", "POST", 200),
        ("/v2/models/scale/infer?secret=1", "GET", 405),
        ("/nowhere", "GET", 404),
        ("/v2/models/nosuch/infer", "POST", 404),
    ],
)
def test_other_requests_over_http(logged: Logged, path: str, method: str, status: int) -> None:
    with RawConnection(logged.server.http) as connection:
        connection.send(request(path, method=method, headers={"Connection": "close"}))
        if method == "HEAD":
            connection.ends()
        else:
            assert connection.answer().status == status
    line = logged.one()
    assert (line["method"], line["path"], line["status"]) == (method, path.partition("?")[0], status)
    assert "rows" not in line
    assert method != "HEAD" or line["response_bytes"] == 0


def test_a_refused_prediction_says_of_which_model_and_request(logged: Logged) -> None:
    assert ask.post(logged.server, "/v2/models/nosuch/infer", ask.infer_body(ROWS, id="7")).status == 404
    line = logged.one()
    assert (line["status"], line["model"], line["request_id"]) == (404, "nosuch", "7")
    assert ask.post(logged.server, "/v2/models/scale/infer", b"{").status == 400
    line = logged.one()
    assert (line["status"], line["model"], line.get("request_id")) == (400, "scale", None)
    with grpc.insecure_channel(logged.server.grpc) as channel, pytest.raises(grpc.RpcError):
        ask.unary(channel, "ModelInfer")(ask.infer_message(ROWS, "nosuch", id="8"))
    line = logged.one()
    assert (line["status"], line["model"], line["request_id"]) == ("NOT_FOUND", "nosuch", "8")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", 400),
        (request("/v2/models/scale/infer", length=10**8), 400),
    ],
    ids=["no HTTP", "bad head", "too large"],
)
def test_what_is_refused_before_it_is_a_request(logged: Logged, sent: bytes, status: int) -> None:
    assert exchange(logged.server.http, sent).status == status
    line = logged.one()
    assert line["status"] == status
    assert line["path"] == ("/v2/models/scale/infer" if b"infer" in sent else "-")


def test_clients_that_leave_over_http(logged: Logged) -> None:
    with RawConnection(logged.server.http) as leaving:
        leaving.send(request("/v2/models/waits/infer", ask.infer_body(ROWS, id="gone")))
        until(lambda: ask.pending(logged.server, "waits") == 1, "it is waiting")
    line = logged.one()
    assert (line["status"], line["model"], line["request_id"]) == (499, "waits", "gone")
    with RawConnection(logged.server.http) as leaving:
        leaving.send(request("/v2/models/waits/infer", b"half", length=100))
    line = logged.one()
    assert (line["status"], line["path"]) == (499, "/v2/models/waits/infer")


def test_clients_that_leave_over_grpc(logged: Logged) -> None:
    with grpc.insecure_channel(logged.server.grpc) as channel:
        call = ask.unary(channel, "ModelInfer").future(ask.infer_message(ROWS, "waits", id="gone"))
        until(lambda: ask.pending(logged.server, "waits") == 1, "it is waiting")
        call.cancel()
        line = logged.one()
        assert (line["status"], line["model"], line["request_id"]) == ("CANCELLED", "waits", "gone")
        with pytest.raises(grpc.RpcError):
            ask.unary(channel, "ModelInfer")(ask.infer_message(ROWS, "waits"), timeout=0.2)
        assert logged.one()["status"] in {"DEADLINE_EXCEEDED", "CANCELLED"}, "whichever side's clock was first"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (ask.SERVICE + "ServerLive", "OK"),
        (ask.SERVICE + "RepositoryIndex", "OK"),
        ("/grpc.health.v1.Health/Check", "OK"),
        (ask.SERVICE + "NoSuchMethod", "UNIMPLEMENTED"),
    ],
)
def test_other_calls_over_grpc(logged: Logged, path: str, status: str) -> None:
    with grpc.insecure_channel(logged.server.grpc) as channel:
        if status == "OK":
            channel.unary_unary(path)(b"")
        else:
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(path)(b"")
    line = logged.one()
    assert (line["path"], line["method"], line["status"]) == (path, path.rpartition("/")[2], status)


def test_every_message_of_a_stream_and_the_stream(logged: Logged) -> None:
    messages = [
        ask.infer_message(ROWS, "scale", id="s 1"),
        ask.infer_message(ROWS, "nosuch", id="s 2"),
        ask.infer_message(ROWS[:1], "scale", id="s 3"),
    ]
    with grpc.insecure_channel(logged.server.grpc) as channel:
        answers = list(channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(iter(messages)))
    assert len(answers) == 3
    *each, whole = logged.next(4)
    told = {line["request_id"]: (line["status"], line.get("rows"), line["request_bytes"]) for line in each}
    assert told == {
        "s 1": ("OK", 2, len(messages[0])),
        "s 2": ("NOT_FOUND", None, len(messages[1])),
        "s 3": ("OK", 1, len(messages[2])),
    }
    assert {line["message"] for line in each} == {"ModelStreamInfer message OK", "ModelStreamInfer message NOT_FOUND"}
    assert whole["message"] == "ModelStreamInfer OK"
    assert "model" not in whole
    assert (whole["request_bytes"], whole["response_bytes"]) == (sum(map(len, messages)), sum(map(len, answers)))


def test_riders_of_one_batch(logged: Logged) -> None:
    with grpc.insecure_channel(logged.server.grpc) as channel:
        calls = [
            ask.unary(channel, "ModelInfer").future(ask.infer_message(rows, "full"))
            for rows in (ROWS[:1], ROWS, ROWS[:1])
        ]
        for call in calls:
            call.result()
    lines = logged.next(3)
    assert sorted(line["rows"] for line in lines) == [1, 1, 2]
    assert {line["batch_rows"] for line in lines} == {4}
    assert len({line["run_ms"] for line in lines}) == 1


def test_what_clients_write_stays_in_its_place(logged: Logged) -> None:
    """Line breaks of every kind, colours, and texts without end, in every place a client can write to."""
    evil = '\n\r\x1b[31m\x85\u2028\u2029{"level":"error"}' + "x" * 3000
    with grpc.insecure_channel(logged.server.grpc) as channel, pytest.raises(grpc.RpcError):
        ask.unary(channel, "ModelInfer")(ask.infer_message(ROWS, evil, id=evil))
    line = logged.one()
    assert (line["model"], line["request_id"]) == (evil[:256], evil[:256])
    assert ask.post(logged.server, "/v2/models/scale/infer", ask.infer_body(ROWS, id=evil)).status == 200
    assert logged.one()["request_id"] == evil[:256]
    ask.get(logged.server, "/v2/models/" + "y" * 5000)
    assert len(logged.one()["path"]) == 1024
    text = logged.file.read_text()
    assert len(text.splitlines()) == text.count("\n"), "what Python and others take for an end of line is escaped"
    assert "\x1b" not in text


def test_messages_are_what_the_protocol_says(logged: Logged) -> None:
    """The same answers as without the log."""
    with grpc.insecure_channel(logged.server.grpc) as channel:
        answer = ask.unary(channel, "ModelInfer")(ask.infer_message(ROWS, "scale", id="1"))
    logged.one()
    assert service_pb2.ModelInferResponse.FromString(answer).id == "1"
    assert ask.raw_values(answer) == (ROWS * 2).reshape(-1).tolist()
