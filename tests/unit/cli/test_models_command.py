from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from optimized import optimization
from outcomes import HEAD, encoder, nothing_helped
from tensorquay.commands.models import models
from tensorquay.commands.optimization import rows
from tensorquay_convert.optimize.report import record as written

INDEX = [
    {"name": "digits", "version": "2", "state": "READY"},
    {"name": "bad[red]", "version": "1", "state": "UNAVAILABLE", "reason": "model.onnx is cut short"},
    {"name": "never"},
]
DURATION = {"count": 4, "ns": 8_000_000}
STATS = {
    "model_stats": [
        {
            "name": "digits",
            "version": "2",
            "inference_count": 12,
            "execution_count": 3,
            "inference_stats": {
                "success": DURATION,
                "fail": {"count": 1, "ns": 5},
                "queue": DURATION,
                "compute_input": DURATION,
                "compute_infer": DURATION,
                "compute_output": {"count": 0, "ns": 0},
            },
        }
    ]
}
METADATA = {
    "name": "digits",
    "versions": ["2"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
    "properties": {"provider": "cpu"},
}


class FakeServer:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, object]] = []
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, httpx.Response] = {
            "POST /v2/repository/index": httpx.Response(200, json=INDEX),
            "GET /v2/models/stats": httpx.Response(200, json=STATS),
            "GET /v2/models/digits": httpx.Response(200, json=METADATA),
            "GET /v2/models/digits/stats": httpx.Response(200, json=STATS),
            "POST /v2/repository/models/digits/load": httpx.Response(200),
            "POST /v2/repository/models/digits/unload": httpx.Response(200),
        }

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        path = request.url.raw_path.decode()
        self.requests.append(request)
        self.asked.append((request.method, path, body))
        return self.answers.get(f"{request.method} {path}", httpx.Response(404, json={"error": "Not Found"}))


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    monkeypatch.delenv("TENSORQUAY_URL", raising=False)

    def call(*arguments: str) -> object:
        return models.main(list(arguments), standalone_mode=False, obj=httpx.MockTransport(server.handle))

    return call


def test_the_index_is_a_table_with_states_reasons_and_counters(
    run: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["model", "version", "state", "requests", "failed", "mean", "batch", "reason"]
    assert lines[1] == ["digits", "2", "READY", "4", "1", "4.0"]
    assert lines[2] == ["bad[red]", "1", "UNAVAILABLE", "model.onnx", "is", "cut", "short"]
    assert lines[3] == ["never", "not", "loaded"]


def test_a_pipe_gets_no_colours(run: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert "\x1b" not in capsys.readouterr().out


def test_json_is_the_servers_own(run: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    run("--json")
    assert json.loads(capsys.readouterr().out) == INDEX


def test_show_tells_inputs_outputs_and_times(run: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    run("show", "digits")
    out = capsys.readouterr().out
    assert "image  FP32  [-1, 1, 8, 8]" in out
    assert "provider  cpu" in out
    assert "2.000" in out, "mean milliseconds of a stage"


def test_show_tells_where_an_imported_model_comes_from(
    run: Callable[..., object], server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {
        "source": {"shown": "a Keras model", "given": "m.keras", "sha256": 5},
        "conversion": {"exporter": "tf2onnx 1.17.0", "opset": 18},
        "proof": {"passed": True, "cases": 9, "max_absolute": 1.25e-7, "real_inputs": False},
        "environment": {"packages": {"keras": "3.15.1"}},
        "command": ["tensorquay", "import", "m.keras"],
        "imported_at": None,
    }
    server.answers["GET /v2/models/digits/provenance"] = httpx.Response(200, json=record)
    run("show", "digits")
    lines = {line[:12].strip(): line[12:].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["source"] == "a Keras model"
    assert lines["exporter"] == "tf2onnx 1.17.0, operator set 18"
    assert lines["proof"] == "equal, cases: 9, largest error 1.25e-07, seeded inputs only"
    assert lines["packages"] == "keras 3.15.1"
    assert lines["command"] == "tensorquay import m.keras"
    assert not {"sha256", "imported"} & set(lines), "of another type than it should be"
    run("show", "digits", "--json")
    assert json.loads(capsys.readouterr().out)["provenance"] == record


@pytest.mark.parametrize(
    "record", [{}, [], 3, {"source": [], "proof": "x", "environment": {"packages": 1}, "command": {}}]
)
def test_a_record_of_another_shape_is_left_out(
    run: Callable[..., object], server: FakeServer, capsys: pytest.CaptureFixture[str], record: object
) -> None:
    server.answers["GET /v2/models/digits/provenance"] = httpx.Response(200, json=record)
    run("show", "digits")
    assert "image  FP32  [-1, 1, 8, 8]" in capsys.readouterr().out


def test_show_tells_how_a_model_was_optimised(
    run: Callable[..., object], server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = {
        "point": "batch 8",
        "batch": 8,
        "ratio": 1.704,
        "low": 1.61,
        "high": 1.8,
        "p50": 0.001,
        "baseline_p50": 2e-3,
    }
    record = optimization(
        data={"real": False, "judging": 64},
        baseline={"version": 1, "sha256": "ab" * 32},
        trials=[
            {"variant": {"name": "dynamic int8"}, "timings": [{"point": "batch 1", "ratio": 0.4}]},
            {
                "variant": {"name": "static int8, minmax"},
                "timings": [timing, {"point": "batch 32", "ratio": float(10**20)}, 3],
                "judgement": {"rule": "mean cosine at least 0.99", "outputs": [{"cosine": 0.9995}, {"cosine": None}]},
            },
        ],
    )
    server.answers["GET /v2/models/digits/optimization"] = httpx.Response(200, json=record)
    run("show", "digits")
    lines = {line[:12].strip(): line[12:].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["optimised"] == "static int8, minmax"
    assert lines["at batch 8"] == "1.70 × (1.61 to 1.80), median 2 ms → 1 ms"
    assert not {"at batch 1", "at batch 32"} & set(lines), "of another variant, and no number that can be"
    assert lines["gate"] == "mean cosine at least 0.99; least mean cosine 0.99950"
    assert lines["judged on"] == "64 samples that were drawn: accuracy was not judged on real data"
    assert lines["measured on"] == "Test CPU 1; 8 processors; avx2, avx512f, avx512_vnni; ONNX Runtime 1.31.0"
    assert lines["made from"].startswith("version 1, sha256 abab")
    assert lines["report"] == "http://127.0.0.1:8000/v2/models/digits/report"
    run("show", "digits", "--json")
    assert json.loads(capsys.readouterr().out)["optimization"] == record


def test_what_the_optimizer_writes_can_be_shown() -> None:
    outcome = encoder()
    found = dict(rows(written.record(outcome, **HEAD), "http://there/report"))
    assert found["optimised"] == outcome.winner
    assert found["result"] == outcome.sentence
    won = next(each for each in outcome.trials if each.variant.name == outcome.winner)
    for timing in won.timings:
        assert found[f"at {timing.point}"].startswith(f"{timing.ratio:.2f} × ({timing.low:.2f} to {timing.high:.2f})")
    assert won.judgement is not None
    assert found["gate"].startswith(won.judgement.rule)
    assert outcome.machine.cpu in found["measured on"]
    assert dict(rows(written.record(nothing_helped(), **HEAD), ""))["optimised"] == "nothing was faster"


@pytest.mark.parametrize(
    "record",
    [
        {"winner": 3, "trials": {}},
        {"winner": "a", "trials": [{"variant": "a", "timings": 3}], "machine": [], "data": 3, "warnings": "x"},
        {"winner": "a", "trials": [{"variant": {"name": "a"}, "timings": [{"ratio": True}], "judgement": 1}]},
        {"winner": "a", "machine": {"processors": 10**30, "features": [None]}, "baseline": {"version": []}},
    ],
)
def test_an_optimization_of_another_shape_is_left_out(record: dict[str, object]) -> None:
    assert all(isinstance(value, str) for row in rows(record, "") for value in row)


def test_load_and_unload_ask_the_repository(run: Callable[..., object], server: FakeServer) -> None:
    run("load", "digits", "--config", '{"max_batch_size": 2}')
    run("unload", "digits")
    assert server.asked == [
        ("POST", "/v2/repository/models/digits/load", {"parameters": {"config": '{"max_batch_size": 2}'}}),
        ("POST", "/v2/repository/models/digits/unload", {}),
    ]


OPTIONS = ["--url", "there:7", "--timeout", "3", "--header", "x-admin=secret", "--header", "b=c=d"]


@pytest.mark.parametrize("command", [["show", "digits"], ["load", "digits"], ["unload", "digits"]])
@pytest.mark.parametrize("before", [True, False])
def test_how_to_reach_the_server_stands_before_or_after_the_subcommand(
    run: Callable[..., object], server: FakeServer, command: list[str], before: bool
) -> None:
    run(*(OPTIONS + command if before else command + OPTIONS))
    assert server.requests
    for request in server.requests:
        assert request.url.netloc == b"there:7"
        assert (request.headers["x-admin"], request.headers["b"]) == ("secret", "c=d")
        assert request.extensions["timeout"]["read"] == 3


def test_what_stands_after_the_subcommand_wins(
    run: Callable[..., object], server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORQUAY_URL", "environment:1")
    run("load", "digits")
    run("--url", "before:1", "--header", "a=1", "load", "digits", "--url", "after:1", "--header", "a=2")
    first, second = server.requests
    assert (first.url.host, first.extensions["timeout"]["read"]) == ("environment", 600)
    assert (second.url.host, second.headers["a"]) == ("after", "2")


def test_json_of_one_model(run: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    run("--json", "show", "digits")
    run("show", "digits", "--json")
    first, second = capsys.readouterr().out.split("}\n{")
    assert json.loads(first + "}") == json.loads("{" + second) == {"metadata": METADATA, "statistics": STATS}


@pytest.mark.parametrize("header", ["secret", "=secret", "a b=secret", "a=secret\n"])
def test_what_is_no_header_is_refused_and_not_repeated(run: Callable[..., object], header: str) -> None:
    with pytest.raises(Exception, match="expected NAME=VALUE") as caught:
        run("--header", header)
    assert "secret" not in str(caught.value)


def test_names_are_encoded_into_the_path(run: Callable[..., object], server: FakeServer) -> None:
    with pytest.raises(Exception, match="404"):
        run("unload", "a/../b c")
    assert server.asked[0][1] == "/v2/repository/models/a%2F..%2Fb%20c/unload"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (httpx.Response(503, json={"error": "not now"}), "503: not now"),
        (httpx.Response(500, content=b"<html>"), "something else than JSON"),
        (httpx.Response(404), "404: Not Found"),
        (httpx.Response(200, json={"models": 3}), "does not answer as a V2 server"),
        (httpx.Response(200), "does not answer as a V2 server"),
    ],
)
def test_a_strange_answer_is_one_sentence(
    run: Callable[..., object], server: FakeServer, answer: httpx.Response, text: str
) -> None:
    server.answers["POST /v2/repository/index"] = answer
    with pytest.raises(Exception, match=text) as caught:
        run()
    assert type(caught.value).__name__ == "ClickException"


@pytest.mark.parametrize("url", ["127.0.0.1:1", "http://127.0.0.1:1", "http://[", "ftp://x"])
def test_no_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(Exception, match="no answer from") as caught:
        models.main(["--url", url], standalone_mode=False)
    assert type(caught.value).__name__ == "ClickException"
