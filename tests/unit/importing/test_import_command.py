"""The import command as the server runs it: whatever it does, one sentence comes back and no process stays."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from pathlib import Path

import psutil
import pytest

from tensorquay.core.errors import ModelFailed, Unavailable
from tensorquay.importing import command
from tensorquay.importing.command import ImportLimits, ImportTask, run_import
from tensorquay.running import command as running


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a Python script in the place of the interpreter: it is called with the command's arguments."""

    def install(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(running.sys, "executable", str(path))

    return install


async def run(tmp_path: Path, limits: ImportLimits | None = None) -> list[str]:
    said: list[str] = []
    await run_import(task(tmp_path), limits or ImportLimits(20.0), said.append)
    return said


def task(tmp_path: Path) -> ImportTask:
    return ImportTask(Path("/models/m/1/m.pt2"), ["--kind=pt2"], tmp_path / "out", tmp_path / "report")


async def test_progress_is_passed_on_and_everything_else_is_not(fake, tmp_path):
    fake(
        """
print(json.dumps({"event": "step", "text": "/models/m/1/m.pt2: exporting"}), file=sys.stderr)
print("Warning: something of a framework", file=sys.stderr)
sys.stderr.buffer.write(b"\\xff\\xfe{\\n" + b"x" * 3_000_000 + b"\\n")
print(json.dumps(["text"]), file=sys.stderr)
print(json.dumps({"event": "step", "text": "m.pt2: exporting"}), file=sys.stderr)
print(json.dumps({"event": "step", "text": "y" * 1000}), file=sys.stderr)
print("noise"); print(json.dumps({"ok": True}))
"""
    )
    assert await run(tmp_path) == ["m.pt2: exporting", "y" * 200]


async def test_the_command_sees_its_limits_and_none_of_the_secrets(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TENSORQUAY_HTTP_PORT", "1")
    fake(f"json.dump([sys.argv[1:], sorted(os.environ)], open({str(tmp_path / 'seen')!r}, 'w'))")
    await run(tmp_path, ImportLimits(90.5, 1000, Path("/usr/bin/python3")))
    import json

    arguments, variables = json.loads((tmp_path / "seen").read_text())
    assert arguments == [
        *("-P", "-m", "tensorquay_convert", "import", "/models/m/1/m.pt2", f"--output={tmp_path / 'out'}"),
        *(f"--report={tmp_path / 'report'}", "--kind=pt2", "--untrusted", "--json", "--progress=json"),
        *("--timeout=90.5", "--memory-limit=1000", "--python=/usr/bin/python3"),
    ]
    assert not {"AWS_SECRET_ACCESS_KEY", "TENSORQUAY_HTTP_PORT"} & set(variables)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            'print(json.dumps({"sentence": "no PyTorch", "remedy": "pip install it"})); sys.exit(4)',
            "no PyTorch; pip install it",
        ),
        ('print(json.dumps({"sentence": "\'/models/m/1/m.pt2\' is corrupt"})); sys.exit(3)', "'m.pt2' is corrupt"),
        (
            'print(json.dumps({"sentence": "not equal", "remedy": "look; the report is in \'/r/x.html\'", '
            '"facts": {"report": "/r/x.html"}})); sys.exit(6)',
            "not equal; look; its report is where the server's log says",
        ),
        ('print("[]"); sys.exit(1)', "exit status 1"),
        ('print(json.dumps({"sentence": None, "facts": 3})); sys.exit(1)', "exit status 1"),
        ("os.kill(os.getpid(), 9)", "exit status -9"),
        ("os.close(1); os.close(2); sys.exit(7)", "exit status 7"),
    ],
)
async def test_a_failure_is_the_commands_own_sentence(fake, tmp_path, script, sentence):
    fake(script)
    with pytest.raises(ModelFailed, match=re.escape(sentence)):
        await run(tmp_path)


async def test_a_command_that_does_not_end_is_killed_with_its_children(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_GRACE_S", 0.0)
    fake(
        f"""
child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
print(json.dumps({{"text": "started"}}), file=sys.stderr, flush=True)
time.sleep(600)
"""
    )
    with pytest.raises(ModelFailed, match="longer than 3 s"):
        await run(tmp_path, ImportLimits(3.0))
    await _gone(int((tmp_path / "child").read_text()))


async def test_cancelling_kills_the_command_and_its_children(fake, tmp_path):
    fake(
        f"""
child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
print(json.dumps({{"text": "started"}}), file=sys.stderr, flush=True)
time.sleep(600)
"""
    )
    started = asyncio.Event()
    running = asyncio.create_task(run_import(task(tmp_path), ImportLimits(600.0), lambda _: started.set()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await _gone(int((tmp_path / "child").read_text()))


async def test_an_interpreter_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(running.sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="could not be started"):
        await run(tmp_path)


async def _gone(pid: int) -> None:
    """Wait until `pid` runs no more; a zombie that nobody reaps here counts as gone."""
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        os.kill(pid, 0)
        await asyncio.sleep(0.001)
