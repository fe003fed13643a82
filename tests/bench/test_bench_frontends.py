"""The bench of the doors: strangers' reports as they printed them, its arithmetic, and one run that means nothing.

The texts in `recorded/` are what wrk 4.1.0 and h2load 1.52.0 said against this server, an empty port, and a server that
hangs up.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from tests.bench import frontend_report, wire
from tests.bench.arithmetic import spread
from tests.bench.cases import GRPC, HTTP_BINARY, HTTP_JSON
from tests.bench.frontend_cases import DOOR_CASES, OWN, DoorCase, traffic, usable
from tests.bench.frontend_suite import Contender, Cores, NoResult, agree, pinned, with_floors
from tests.bench.frontends import main
from tests.bench.generators import GeneratorFailed, Reading, Shape
from tests.bench.h2load import H2loadReport
from tests.bench.h2load import measure as h2load
from tests.bench.wrk import WrkReport
from tests.bench.wrk import measure as wrk

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


# -- reports of strangers


@pytest.mark.parametrize(
    ("name", "answers", "refused", "errors"),
    [("wrk_success", 28_839, 0, 0), ("wrk_refused", 5189, 5189, 0), ("wrk_errors", 3470, 0, 3469)],
)
def test_wrk_is_understood(name, answers, refused, errors):
    assert WrkReport.read(recorded(name)) == WrkReport(answers, refused, errors)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h2load_success", H2loadReport(1000, 1000, 1000, 0, 0.04122, 7000)),
        ("h2load_grpc_failure", H2loadReport(10, 10, 10, 0, 0.00261, 0)),
        ("h2load_http_refused", H2loadReport(10, 0, 0, 10, 0.0018, 0)),
        ("h2load_errored", H2loadReport(10, 0, 0, 10, 0.00103, 0)),
        ("h2load_nobody", H2loadReport(10, 0, 0, 10, 0.000242, 0)),
    ],
)
def test_h2load_is_understood(name, expected):
    report = H2loadReport.read(recorded(name))
    assert report.seconds == pytest.approx(expected.seconds)
    assert report == H2loadReport(**{**vars(expected), "seconds": report.seconds})


@pytest.mark.parametrize("text", ["", "wrk: unable to resolve", recorded("wrk_nobody"), recorded("h2load_success")])
def test_what_is_no_report_of_wrk_is_no_figure(text):
    with pytest.raises(GeneratorFailed, match="gave no report"):
        WrkReport.read(text)


@pytest.mark.parametrize("text", ["", recorded("wrk_success"), recorded("h2load_success").partition("status")[0]])
def test_what_is_no_report_of_h2load_is_no_figure(text):
    with pytest.raises(GeneratorFailed, match="gave no report"):
        H2loadReport.read(text)


# -- agreement


def statistics(success: int, fail: int = 0) -> dict:
    return {"inference_stats": {"success": {"count": success}, "fail": {"count": fail}}}


def test_both_sides_must_have_counted_the_same():
    reading = Reading(100, 100, 1.0, 0.001, 0.001)
    agree("case", reading, statistics(7), statistics(107))
    # A gRPC call that failed is a success to h2load.
    for after in (statistics(106), statistics(108), statistics(107, 1)):
        with pytest.raises(NoResult, match="the generator counted 100 successes"):
            agree("case", reading, statistics(7), after)


# -- what is measured


def test_every_case_has_a_floor_at_the_same_door_with_as_many_at_once():
    for case in DOOR_CASES:
        floor = case.floor
        assert (floor.model, floor.is_grpc, floor.connections, floor.streams) == (
            None, case.is_grpc, case.connections, case.streams,
        )  # fmt: skip
        assert floor.generator != OWN
    assert {case.in_flight for case in DOOR_CASES if case.model == "simple"} == {64, 1}


def test_what_is_not_installed_is_said_and_replaced(monkeypatch):
    monkeypatch.setenv("PATH", "")
    cases, notes = usable(DOOR_CASES)
    assert {case.generator for case in cases} == {OWN}
    assert len(notes) == 2
    assert all("apt-get install" in note for note in notes)
    # A line that is about h2load's small frames says nothing without it.
    assert len(cases) == len(DOOR_CASES) - 2


def test_what_is_sent_is_whole_and_each_row_another():
    sent = traffic(DoorCase(HTTP_JSON, 1, model="simple"), "h:1")
    assert len(set(sent.requests)) == len(sent.requests) == 64
    assert all(request.startswith(b"POST /v2/models/simple/infer HTTP/1.1\r\n") for request in sent.requests)
    calls = traffic(DoorCase(GRPC, 1, model="gap"), "h:1")
    assert {int.from_bytes(message[1:5], "big") + 5 for message in calls.requests} == {len(calls.requests[0])}
    assert calls.rows[1]["y"].shape == (8, 3, 1, 1)
    assert traffic(DoorCase(GRPC, 1), "h:1").path == wire.SERVER_LIVE


# -- cores, contenders, rows


def test_server_and_generator_have_cores_of_their_own_where_there_are_two():
    assert Cores.split([0], 1) == Cores(None, None)
    assert Cores.split([0, 1], 1) == Cores(frozenset({0}), frozenset({1}))
    assert Cores.split([4, 2, 6, 0], 2) == Cores(frozenset({0, 2}), frozenset({6}))
    assert Cores.split([0, 1], 5).server == {0}
    assert "share" in Cores(None, None).told()
    assert Cores.split([0, 1, 2], 2).told() == "server on core 0, 1, generator on core 2"


def test_pinning_ends_with_the_block():
    before = os.sched_getaffinity(0)
    with pinned(frozenset({min(before)})):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_a_checkout_without_a_server_is_refused(tmp_path):
    with pytest.raises(NoResult, match="no server in"):
        Contender("baseline", checkout=tmp_path).environment()
    here = Contender("baseline", checkout=Path(__file__).parents[2]).environment()
    assert here["PYTHONPATH"].split(os.pathsep)[0].endswith("server")


def row(model: str | None, door: str, cpu_us: float, contender: str = "this one", **more) -> dict:
    return {
        "contender": contender, "model": model, "door": door, "connections": 64, "streams": 1, "shape": "64",
        "generator": "wrk", "note": "", "goal_us": 15 if model else None, "requests": 9,
        "server_cpu_us": spread([cpu_us, cpu_us + 1]), "generator_cpu_us": spread([3.0]), "rate_s": spread([1e5]),
        **more,
    }  # fmt: skip


def document() -> dict:
    rows = [
        row(None, "http health", 5.0),
        row(None, "http health", 50.0, "asgi"),
        row("simple", HTTP_BINARY, 12.0, rows_per_batch=spread([8.0])),
        row("simple", HTTP_BINARY, 200.0, "asgi"),
        row("simple", GRPC, 11.0),
    ]
    return {
        "environment": {
            "when": "2030-01-01T00:00:00+00:00", "cpu": "Some CPU", "cores": 2, "budget": "2 threads",
            "system": "Linux 6", "python": "3.11.7", "packages": {"uvloop": "1"},
            "load_average_before": [0.1], "stolen_percent": 0.5,
        },
        "settings": {"rounds": 2, "seconds": 3.0, "flags": ["--x=1"]},
        "cores": "server on core 0, generator on core 1",
        "contenders": ["this one", "asgi"],
        "notes": ["wrk is not installed"],
        "rows": with_floors(rows),
    }  # fmt: skip


def test_each_row_has_the_floor_of_its_own_server_and_door():
    floors = {(r["contender"], r["model"], r["door"]): r["floor_us"] for r in document()["rows"]}
    assert floors["this one", "simple", HTTP_BINARY] == 5.5
    assert floors["asgi", "simple", HTTP_BINARY] == 50.5
    assert floors["this one", "simple", GRPC] is None
    assert floors["this one", None, "http health"] is None


def test_the_report_has_predictions_first_and_says_what_it_was_measured_on():
    cells = frontend_report.rows(document())
    assert [each[0] for each in cells] == ["simple"] * 3 + ["–"] * 2
    assert cells[0][5:8] == ["12.5 (12.0–13.0)", "≤ 15", "5.50"]
    text = frontend_report.markdown(document())
    assert "| simple | http binary | 64 | wrk | asgi |" in text
    assert "Server on core 0" in text
    assert "Note: wrk is not installed." in text
    assert "Server flags: --x=1." in text
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(frontend_report.table(document()))
    assert "200 (200–201)" in console.export_text()


# -- real runs


@pytest.mark.parametrize(
    "arguments", [["--only=nothing"], ["--also=nginx"], ["--doors=window"], ["--markdown=/none"], ["--rounds=x"]]
)
def test_wrong_arguments_are_refused_before_anything_runs(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "usage:" in capsys.readouterr().err


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: wrk, nghttp2-client): this generator was NOT tried")


def test_wrk_without_a_server_is_no_figure(tmp_path):
    need("wrk")
    (tmp_path / "0").write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(GeneratorFailed, match="wrk did not get 5 answers"):
        wrk("127.0.0.1:1", tmp_path, 1, Shape(5, 1), lambda: 0.0, 5)


def test_h2load_without_a_server_is_no_figure(tmp_path):
    need("h2load")
    (tmp_path / "body").write_bytes(bytes(5))
    with pytest.raises(GeneratorFailed, match="5 requests, 0 answers"):
        h2load("127.0.0.1:1", "/a/b", tmp_path / "body", Shape(5, 1), lambda: 0.0, 5)


@pytest.mark.long
def test_a_quick_run_measures_verifies_and_writes_everything(tmp_path, capsys):
    need("h2load")
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text(f"{frontend_report.BEGIN}\n{frontend_report.END}\n")
    here = Path(__file__).parents[2]
    arguments = ["--quick", "--only=simple", "--doors=grpc", f"--baseline={here}"]
    assert main([*arguments, f"--json={figures}", f"--markdown={page}"]) == 0, capsys.readouterr().err
    rows = json.loads(figures.read_text())["rows"]
    measured = [(r["model"], r["door"], r["shape"], r["contender"]) for r in rows if r["model"]]
    assert len(measured) == 2 * 3
    assert ("simple", "grpc", "8 × 8", "baseline") in measured
    assert all(r["requests"] > 0 and r["rate_s"]["median"] > 0 for r in rows)
    assert all(r["floor_us"] is not None for r in rows if r["model"])
    assert "| simple | grpc | 64 × 1 | h2load | this one |" in page.read_text()


@pytest.mark.long
def test_a_quick_run_with_large_tensors_over_http(tmp_path, capsys):
    need("wrk")
    figures = tmp_path / "figures.json"
    assert main(["--quick", "--only=gap", "--doors=http binary", f"--json={figures}"]) == 0, capsys.readouterr().err
    rows = json.loads(figures.read_text())["rows"]
    assert {(r["model"], r["generator"]) for r in rows} == {("gap", "wrk"), (None, "wrk")}


@pytest.mark.long
def test_without_strangers_the_own_generator_takes_their_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    figures = tmp_path / "figures.json"
    arguments = ["--quick", "--only=simple", "--doors=http json", f"--json={figures}"]
    assert main(arguments) == 0, capsys.readouterr().err
    rows = json.loads(figures.read_text())["rows"]
    assert {r["generator"] for r in rows} == {OWN}
    assert "apt-get install" in capsys.readouterr().out
