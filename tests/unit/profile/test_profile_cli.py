"""The command line hands on exactly what was given, and shows what was found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from tests.unit.profile.made import profile

from tensorquay_convert import command_line, profile_cli
from tensorquay_convert.errors import BadSource
from tensorquay_convert.isolation import Limits
from tensorquay_convert.profile import command, record
from tensorquay_convert.profile.command import Asked, ProfileResult

Call = Callable[..., tuple[int, Asked]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command with a profile that is already there; exit code and what was asked."""
    monkeypatch.delenv(command_line.REPOSITORY_VARIABLE, raising=False)

    def run(*arguments: str, snippet: str = "") -> tuple[int, Asked]:
        seen: list[Asked] = []

        def measure(asked: Asked, _listener: Any) -> ProfileResult:
            seen.append(asked)
            found = profile("a\x1b[31mb", snippet=snippet)
            return ProfileResult(found, record.record(found, at="", command=()), asked.report, asked.trace)

        monkeypatch.setattr(command, "profile", measure)
        code = profile_cli.profile.main(list(arguments), standalone_mode=False)
        return code or 0, seen[0]

    return run


def test_everything_that_can_be_said_arrives(call: Call) -> None:
    code, asked = call(
        *("digits", "--repository", "repo", "--version", "3", "--data", "a.npz", "--data", "x=b.npy"),
        *("--batch", "8,1,8", "--threads", "2,1", "--provider", "cuda", "--size", "seq=128", "--sizes", "n=3"),
        *("--seconds", "1m", "--seed", "5"),
        *("--report", "r", "--trace", "t.json", "--timeout", "2m", "--memory-limit", "1GiB", "--quiet"),
    )  # fmt: skip
    assert code == 0
    assert asked == Asked(
        "digits", Path("repo"), 3, ("a.npz", "x=b.npy"), (1, 8), (1, 2), "cuda", {"seq": 128, "n": 3}, 60.0, 5,
        Path("r"), Path("t.json"), Limits(120.0, 1 << 30), tuple(sys.argv),
    )  # fmt: skip


def test_what_is_not_said_has_the_default_of_python(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    _, asked = call("digits")
    assert asked == Asked("digits", command=tuple(sys.argv))
    assert "model   a�[31mb version 3" in capsys.readouterr().out


def test_the_repository_of_the_environment(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command_line.REPOSITORY_VARIABLE, "elsewhere")
    assert call("digits", "--quiet")[1].repository == Path("elsewhere")


def test_shown_for_people(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    call("digits", "--report", "r", snippet="max_batch_size = 4\n\n[execution]\nintra_op_threads = 1\n")
    out = capsys.readouterr().out
    for said in (
        "Batch sizes and threads", "Operators, batch 4, 1 thread", "node_0_1", "best    batch 4, 1 thread: 400 items/s",
        "advice  a reason", "set     in the model's config.toml:\n        max_batch_size = 4\n        [execution]\n",
        "where   cpu: 1 node, 80.0 % of the time\n        cuda: 1 node, 20.0 % of the time",
        "run     3 nodes in the file, 2 in the graph that runs", "report  r",
    ):  # fmt: skip
        assert said in out
    assert not any(line != line.rstrip() for line in out.splitlines())


def test_for_programs_and_for_nobody(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    call("digits", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["result"], told["report"], told["profile"]["schema"]) == ("profiled", None, "tensorquay.profile/1")
    call("digits", "--quiet")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "wrong",
    [
        ("--threads", "0"),
        ("--threads", "2000"),
        ("--batch", "0"),
        ("--batch", "a"),
        ("--size", "seq"),
        ("--size", "seq=0"),
        ("--seconds", "0"),
        ("--provider", "tpu"),
        ("--version", "0"),
        ("--memory-limit", "x"),
        ("--timeout", "-1"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Call, wrong: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        call("digits", *wrong)


def test_a_failure_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_asked: Asked, _listener: Any) -> ProfileResult:
        raise BadSource("no such thing", remedy="make one")

    monkeypatch.setattr(command, "profile", fail)
    assert profile_cli.profile.main(["digits"], standalone_mode=False) == 3
    assert capsys.readouterr().err == "tensorquay profile: no such thing\n  make one\n"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("profile_cli", {"numpy", "onnx", "onnxruntime", "pydantic", "rich"}),
        ("profile.command", {"onnx", "onnxruntime", "rich"}),
    ],
)
def test_the_users_process_does_without_the_runtime(module: str, absent: set[str]) -> None:
    code = f"import sys, tensorquay_convert.{module}; print(*sorted(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not absent & set(ended.stdout.split())
