"""`tensorquay doctor` as a person runs it: exit codes, both forms, and installations that are really broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import graphs
from tests.support.repo import Repo

from tensorquay.cli import main
from tensorquay.commands.doctor import children, report
from tensorquay.commands.doctor.bounded import findings_of
from tensorquay.commands.doctor.findings import Finding, Level, ok, problem

FREE = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    made = Repo(tmp_path / "repo")
    made.model("scale", {1: graphs.scale(2.0)})
    return made.root


def run(*arguments: object, **environment: str) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TENSORQUAY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "tensorquay", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        env=clean | environment,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout + ended.stderr


def by_check(text: str) -> dict[str, dict[str, Any]]:
    return {each["check"]: each for each in json.loads(text)["findings"]}


def test_a_healthy_machine(repo: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, text = run(repo, *FREE)
    assert code == 0, text
    assert "1 of 1 model can be served: scale" in text
    assert text.strip().splitlines()[-1].startswith("nothing stands in the server's way: 0 problems, ")
    assert "\x1b" not in text, "no colours for a pipe"
    assert sorted(tmp_path.rglob("*")) == before, "nothing was made"


def test_for_programs_and_with_everything_broken(repo: Path, tmp_path: Path) -> None:
    """Two runtimes, a package that crashes, one that fails, a model that is none, settings that are wrong."""
    (repo / "bad/1").mkdir(parents=True)
    (repo / "bad/1/model.onnx").write_bytes(b"no model")
    broken = tmp_path / "packages"
    (broken / "onnxruntime_gpu-1.22.0.dist-info").mkdir(parents=True)
    (broken / "onnxruntime_gpu-1.22.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.22.0\n"
    )
    (broken / "uvloop.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (broken / "httptools.py").write_text("raise ImportError('libhttp.so.9: cannot open shared object file')\n")
    path = os.pathsep.join(filter(None, (str(broken), os.environ.get("PYTHONPATH"))))

    code, text = run("--json", repo, *FREE, PYTHONPATH=path)

    assert code == 1
    said = json.loads(text)
    assert (said["ok"], said.keys()) == (False, {"ok", "version", "counts", "findings"})
    assert said["counts"]["problem"] == sum(each["level"] == "problem" for each in said["findings"])
    found = by_check(text)
    assert {each["section"] for each in found.values()} <= report.TITLES.keys()
    assert "both installed" in found["packages.runtime"]["text"]
    assert found["packages.uvloop"]["text"] == "importing 'uvloop' fails: the interpreter was ended by SIGSEGV"
    assert "libhttp.so.9" in found["packages.httptools"]["text"]
    assert found["repository.model"]["text"].startswith("model 'bad' version 1: ")
    assert all(
        each["remedy"]
        for each in found.values()
        if each["check"].startswith("packages.") and each["level"] == "problem"
    )


def test_wrong_settings_are_findings_and_the_rest_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("htp_port = 1\n")
    assert main(["doctor", "--json", f"--config={file}", "--threads=many"]) == 1
    found = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["check"] == "settings.refused"]
    assert [each["text"] for each in found] == [
        "server.toml line 1: unknown setting 'htp_port', did you mean 'http_port'?",
        "--threads: expected a valid integer, unable to parse string as an integer, got 'many'",
    ]


@pytest.mark.parametrize(
    ("absent", "arguments", "said"),
    [
        ("pydantic", ["doctor"], "'doctor' cannot be loaded"),
        ("pydantic", ["check", "x"], "'tensorquay doctor' says which"),
        ("orjson", ["serve"], "'tensorquay doctor' says what to do"),
    ],
)
def test_a_package_that_is_missing_is_a_sentence(
    repo: Path, tmp_path: Path, absent: str, arguments: list[str], said: str
) -> None:
    (tmp_path / f"{absent}.py").write_text(f"raise ImportError('No module named {absent}')\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, "-m", "tensorquay", *arguments, *([str(repo)] if arguments == ["serve"] else [])],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert ended.returncode == 1
    assert f"No module named {absent}" in ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-such-option"]) == 2
    assert main(["doctor", "--timeout=0"]) == 2
    assert main(["doctor", "--cache-config=local,size=1"]) == 2, "what 'serve' refuses"


def test_every_setting_is_taken_and_the_useful_ones_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--http-port" in shown
    assert "--max-queue-requests" not in shown


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No children: what they would say is not what the test is about."""

    def ended(*arguments: object, **named: object) -> children.Ended:
        return children.Ended("", "", "was not run")

    monkeypatch.setattr(children, "run", ended)


# -- what keeps the doctor alive


def test_a_probe_that_hangs_is_given_up() -> None:
    go = threading.Event()

    def probe() -> Iterator[Finding]:
        yield ok("storage.first", "as it should be")
        go.wait(60)

    found = findings_of("storage", probe, timeout_s=0.05)
    go.set()
    assert [each.level for each in found] == [Level.OK, Level.PROBLEM]
    assert "took more than 0.05 s" in found[1].text


def test_a_probe_that_breaks_is_a_finding() -> None:
    def probe() -> Iterator[Finding]:
        yield ok("clock.wall", "as it should be")
        raise RuntimeError("what nobody expected")

    found = findings_of("clock", probe, timeout_s=30)
    assert [each.level for each in found] == [Level.OK, Level.PROBLEM]
    assert found[1].text == "looking at clock failed: RuntimeError: what nobody expected"


def test_a_child_that_hangs_is_killed_with_what_it_started() -> None:
    waits = "import threading; threading.Event().wait()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{waits}'])"
    ended = children.run([sys.executable, "-c", code], timeout_s=1.0)
    assert ended.late
    assert ended.why == "did not end within 1 s"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("print('[1]')", ""),
    ],
)
def test_how_children_end(code: str, why: str) -> None:
    ended = children.run([sys.executable, "-c", code], timeout_s=60)
    assert ended.why == why
    assert ended.document() == (None if why else [1])


def test_a_child_that_talks_without_end_is_heard_out_and_costs_little_memory() -> None:
    code = "import sys; [each.write('x' * 2**20) for each in (sys.stdout, sys.stderr) for _ in range(32)]"
    tracemalloc.start()
    ended = children.run([sys.executable, "-c", code], timeout_s=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(ended.output), len(ended.errors), ended.why) == (4 * 2**20, 4 * 2**20, "")
    assert peak < 30 * 2**20


def test_an_interpreter_that_is_not_there() -> None:
    assert children.ask("versions", timeout_s=30, python="/no/such/python").why.startswith("cannot be run: ")


def test_another_interpreter_needs_nothing_of_ours() -> None:
    said = children.ask("versions", "click", "no-such-thing", timeout_s=60, python=sys.executable).document()
    assert said["versions"]["no-such-thing"] == ""
    assert said["versions"]["click"]


def test_the_report_without_colours_and_with_hostile_text(capsys: pytest.CaptureFixture[str]) -> None:
    report.show([ok("ports.http", "fine"), problem("repository.model", "model '\x1b[31m[bold]x': bad\u2028", "do")])
    assert capsys.readouterr().out == (
        "Ports\n  ok       fine\n\nModel repository\n"
        "  problem  model '\\x1b[31m[bold]x': bad\\u2028\n           -> do\n\n"
        "the server will not work as it should: 1 problem, 0 warnings, 0 notes, 1 as they should be\n"
    )
