"""A served model that asks for it is optimised beside serving, and the result serves in its place.

The optimize command is a stand-in that publishes what a test gave it: what the real one finds depends on the machine.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import onnxruntime
import psutil
import pytest
from tests.support.serving import RunningServer

from optimized import optimization
from tensorquay.config.machine import cpu_facts

REPOSITORY = Path(__file__).parents[2] / "model_repo"
DEADLINE_S = 60.0
POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.2", "--settle-secs=0", "--log-verbose=1")

COMMAND = """#!{python}
import json, os, shutil, subprocess, sys, time
arguments = sys.argv[1:]
assert arguments[:4] == ["-P", "-m", "tensorquay_convert", "optimize"], arguments
open({begun!r}, "a").write(f"{{os.getpid()}}\\n")
if {hangs}:
    subprocess.Popen([{python!r}, "-c", "import time; time.sleep(600)"])
    time.sleep(600)
given = dict(each.lstrip("-").partition("=")[::2] for each in arguments if "=" in each)
name, version = arguments[-1], int(given["version"])
model = os.path.join(given["repository"], name)
stage = os.path.join(model, ".optimize-stage")
shutil.copytree(os.path.join(model, str(version)), stage)
record = json.load(open({record!r}))
record["baseline"] = {{"version": version, "sha256": "", "file": "model.onnx"}}
json.dump(record, open(os.path.join(stage, "optimization.json"), "w"))
open(os.path.join(stage, "report.html"), "w").write("<p>measured</p>")
os.rename(stage, os.path.join(model, str(version + 1)))
print(json.dumps({{"text": "publishing"}}), file=sys.stderr, flush=True)
print(json.dumps({{"result": "optimized", "sentence": "it is faster", "version": version + 1}}))
"""

Serve = Callable[..., RunningServer]


def wait(holds: Callable[[], object], server: RunningServer) -> None:
    """Until `holds`; the deadline only bounds a failure."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, server.told()


class Place:
    """A repository with one model, and an environment in which the server's interpreter is the stand-in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / "models"
        self.begun = root / "begun"
        shutil.copytree(REPOSITORY / "simple", self.repository / "simple")
        facts = cpu_facts()
        machine = {"cpu": facts.name, "features": list(facts.features), "onnxruntime": onnxruntime.__version__}
        self.machine = machine

    @property
    def model(self) -> Path:
        return self.repository / "simple"

    def command(self, *, hangs: bool = False) -> None:
        record = self.root / "record.json"
        record.write_text(json.dumps(optimization(machine=self.machine, settings={"graph_optimization": "basic"})))
        path = self.root / "python"
        path.write_text(COMMAND.format(python=sys.executable, begun=str(self.begun), record=str(record), hangs=hangs))
        path.chmod(0o755)
        (self.root / "site").mkdir()
        (self.root / "site/sitecustomize.py").write_text(f"import sys\nsys.executable = {str(path)!r}\n")

    def asks(self, background: str) -> None:
        config = f'[optimization]\nbackground = "{background}"\ntime_budget_s = 60\n'
        for file in self.model.glob("config.*"):
            file.unlink()
        (self.model / "config.toml").write_text(config)

    def start(self, serve: Serve, *flags: str) -> RunningServer:
        return serve(
            [self.repository],
            *(*flags, f"--import-cache={self.root / 'cache'}"),
            env={"PYTHONPATH": str(self.root / "site")},
        )

    def runs(self) -> int:
        return len(self.begun.read_text().splitlines()) if self.begun.exists() else 0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def versions(server: RunningServer) -> list[str]:
    return httpx.get(f"{server.url}/v2/models/simple").json().get("versions", [])  # type: ignore[no-any-return]


def test_a_polling_server_serves_what_it_optimised(place: Place, serve: Serve) -> None:
    place.command()
    place.asks("always")
    server = place.start(serve, *POLL)
    wait(lambda: versions(server) == ["2"], server)
    told = httpx.get(f"{server.url}/v2/models/simple").json()["properties"]
    assert told["optimized"].startswith("static int8, minmax; 1.7 ×")
    assert "notes" not in told
    record = httpx.get(f"{server.url}/v2/models/simple/optimization").json()
    assert record["baseline"]["version"] == 1
    report = httpx.get(f"{server.url}/v2/models/simple/versions/2/report")
    assert report.text == "<p>measured</p>"
    assert "sandbox" in report.headers["content-security-policy"]
    config = httpx.get(f"{server.url}/v2/models/simple/config").json()
    assert config["optimization"]["graph"]["level"] == -1, "basic, as the record advises"
    wait(lambda: "version 2 is published: it is loaded at the next look" in server.told(), server)
    assert server.stop() == 0, server.told()
    again = place.start(serve, *POLL)
    assert versions(again) == ["2"]
    assert again.stop() == 0, again.told()
    assert place.runs() == 1, "what was optimised here is left as it is"


def test_a_stale_version_is_said_and_optimised_again_from_what_it_came_from(place: Place, serve: Serve) -> None:
    shutil.copytree(place.model / "1", place.model / "2")
    elsewhere = optimization(machine={"cpu": "Other CPU", "features": ["made_up"], "onnxruntime": "0.1"})
    (place.model / "2/optimization.json").write_text(json.dumps(elsewhere))
    place.command()
    place.asks("never")
    server = place.start(serve)
    notes = httpx.get(f"{server.url}/v2/models/simple").json()["properties"]["notes"]
    assert "was optimised on Other CPU and may not be the fastest here" in notes
    assert notes.endswith("tensorquay optimize simple")
    assert notes in server.told(), "the log has it too"
    assert server.stop() == 0
    assert place.runs() == 0
    # The result may take no number that is there: the stand-in publishes 2 from 1 only.
    (place.model / "2").rename(place.model / "3")
    place.asks("stale")
    server = place.start(serve, *POLL)
    wait((place.model / "2/optimization.json").exists, server)
    assert server.stop() == 0, server.told()


def test_a_server_that_ends_takes_its_optimisation_along(place: Place, serve: Serve) -> None:
    place.command(hangs=True)
    place.asks("always")
    server = place.start(serve)
    wait(lambda: len(psutil.Process(server.pid).children(recursive=True)) >= 2, server)
    begun = psutil.Process(server.pid).children(recursive=True)
    wait(lambda: all(each.nice() == 19 for each in begun), server)
    assert server.stop(signal.SIGTERM) == 0, server.told()
    _, alive = psutil.wait_procs(begun, timeout=DEADLINE_S)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    assert "the background optimisation was stopped; nothing was published" in server.told()


def test_switched_off_nothing_is_optimised(place: Place, serve: Serve) -> None:
    place.command()
    place.asks("always")
    server = place.start(serve, "--auto-optimize=false")
    assert versions(server) == ["1"]
    assert server.stop() == 0
    assert place.runs() == 0
    assert "which is switched off here" in server.told()


def test_a_model_that_was_not_optimised_has_no_optimization(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/v2/models/digits/optimization")
    assert answer.status_code == 404
    assert "not optimised with 'tensorquay optimize'" in answer.json()["error"]
