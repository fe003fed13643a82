"""The optimize command as the server runs it: bounded, last in line for the processors, and gone when nobody waits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tensorquay.config.model import OptimizationConfig
from tensorquay.core.errors import Unavailable
from tensorquay.optimizing import command
from tensorquay.optimizing.command import (
    OptimizeLimits,
    OptimizeTask,
    Outcome,
    Result,
    arguments,
    outcome,
    run_optimize,
)
from tensorquay.running import command as running

NO_VERSION = Outcome(Result.FAILED, "it names no version that it has published (s)", lasting=False)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a Python script in the place of the interpreter: it is called with the command's arguments."""

    def install(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(running.sys, "executable", str(path))

    return install


def task(**changes: Any) -> OptimizeTask:
    return OptimizeTask("m", Path("/models"), 3, OptimizationConfig(**changes))


def test_what_the_configuration_says_is_on_the_command_line() -> None:
    goals = OptimizationConfig(
        objective="latency", max_drop=0.005, min_cosine=0.99, metric="top1", time_budget_s=90, batches=(8, 1)
    )
    whole = OptimizeTask("-m", Path("/models"), 3, goals, Path("/models/m/d.npz"), Path("/models/m/l.npy"), Path("/r"))
    assert list(arguments(whole, OptimizeLimits(2, 1000))) == [
        *("optimize", "--repository=/models", "--version=3", "--json", "--progress=json"),
        *("--time-budget=90", "--objective=latency", "--data=/models/m/d.npz", "--labels=/models/m/l.npy"),
        *("--max-drop=0.5%", "--min-cosine=0.99", "--metric=top1", "--batch=1,8", "--report=/r", "--memory-limit=1000"),
        *("--", "-m"),
    ]
    assert list(arguments(task(), OptimizeLimits()))[5:] == ["--time-budget=300", "--objective=balanced", "--", "m"]


def test_the_real_command_takes_these_options() -> None:
    """The two are strangers; only what one says and the other reads keeps them together."""
    from tensorquay_convert.optimize_cli import optimize

    goals = OptimizationConfig(
        objective="latency", max_drop=0.005, min_cosine=0.99, metric="top1", time_budget_s=90.5, batches=(8, 1)
    )
    whole = OptimizeTask("m", Path("/models"), 3, goals, Path("/models/m/d.npz"), Path("/models/m/l.npy"), Path("/r"))
    context = optimize.make_context("optimize", list(arguments(whole, OptimizeLimits(2, 1 << 30)))[1:])
    found = context.params
    assert found["model"] == "m"
    assert found["max_drop"] == pytest.approx(0.005)
    assert (found["version"], found["time_budget"], found["batches"]) == (3, 90.5, (1, 8))
    assert found["memory_limit"] == 1 << 30


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (0, {"result": "kept", "sentence": "nothing is faster"}, Outcome(Result.KEPT, "nothing is faster")),
        (0, {"result": "optimized", "sentence": "s", "version": 4}, Outcome(Result.OPTIMIZED, "s", 4)),
        (0, {"result": "optimized", "sentence": "s", "version": None}, NO_VERSION),
        (0, {"result": "optimized", "sentence": "s", "version": True}, NO_VERSION),
        (0, {"result": "optimized", "sentence": "s", "version": 0}, NO_VERSION),
        (5, {"sentence": "no such operator", "remedy": "wait"}, Outcome(Result.FAILED, "no such operator; wait")),
        (4, {"sentence": "no onnxscript"}, Outcome(Result.FAILED, "no onnxscript", lasting=False)),
        (8, {"sentence": "no space left"}, Outcome(Result.FAILED, "no space left", lasting=False)),
        (-9, {}, Outcome(Result.FAILED, "it ended without saying why (exit status -9)", lasting=False)),
        (0, {}, Outcome(Result.FAILED, "it ended without saying why (exit status 0)", lasting=False)),
        (3, {"sentence": "a\x1b[31m"}, Outcome(Result.FAILED, "a\\x1b[31m")),
    ],
)
def test_how_it_ended(status: int, said: dict[str, Any], expected: Outcome) -> None:
    assert outcome(status, said) == expected


async def test_it_runs_when_nobody_else_wants_to_and_knows_no_secrets(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    # The first line is read when the server has had its turn, so that the script is as slow as an interpreter.
    fake(
        f"""
while os.getpriority(os.PRIO_PROCESS, 0) != 19 or len(os.sched_getaffinity(0)) != 1:
    time.sleep(0.001)
seen = [sys.argv[1:4], sorted(os.environ), os.sched_getscheduler(0) == os.SCHED_IDLE,
        open("/proc/self/oom_score_adj").read().strip()]
json.dump(seen, open({str(tmp_path / "seen")!r}, "w"))
print(json.dumps({{"text": "trying static int8"}}), file=sys.stderr)
print(json.dumps({{"result": "kept", "sentence": "nothing is faster"}}))
"""
    )
    said: list[str] = []
    ended = await run_optimize(task(), OptimizeLimits(processors=1), said.append)
    assert ended == Outcome(Result.KEPT, "nothing is faster")
    assert said == ["trying static int8"]
    called, variables, idle, score = json.loads((tmp_path / "seen").read_text())
    assert called == ["-P", "-m", "tensorquay_convert"]
    assert "AWS_SECRET_ACCESS_KEY" not in variables
    assert idle
    assert score == "1000"
    assert len(os.sched_getaffinity(0)) >= 1


async def test_what_was_started_before_the_server_had_its_turn_is_restrained_too(tmp_path: Path) -> None:
    grandchild = "import os, time; open('there', 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(600)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tmp_path, start_new_session=True)
    try:
        while not (tmp_path / "there").exists() or not (tmp_path / "there").read_text():
            await asyncio.sleep(0.001)
        running._restrain(process.pid, running.Allowance(1.0, background=True, processors=1))
        for pid in (process.pid, int((tmp_path / "there").read_text())):
            assert os.getpriority(os.PRIO_PROCESS, pid) == 19
            assert os.sched_getscheduler(pid) == os.SCHED_IDLE
            assert len(os.sched_getaffinity(pid)) == 1
        running._restrain(2**22 + 1, running.Allowance(1.0, background=True))  # one that ended already
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_one_that_does_not_end_is_killed_with_its_children(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_GRACE_S", 1.0)
    fake(
        f"""
child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    )
    ended = await run_optimize(task(time_budget_s=2.0), OptimizeLimits(), lambda _: None)
    assert ended == Outcome(Result.FAILED, "it took longer than 3 s", lasting=False)
    await _gone(int((tmp_path / "child").read_text()))


async def test_an_interpreter_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="the optimize could not be started"):
        await run_optimize(task(), OptimizeLimits(), lambda _: None)


async def _gone(pid: int) -> None:
    """Wait until `pid` runs no more; a zombie that nobody reaps here counts as gone."""
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.001)
