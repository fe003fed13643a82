"""What a dashboard has to show: a server under load on which everything happens once that can go well or wrong.

Every step waits until Prometheus has seen its effect, so nothing depends on how fast this machine is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.boards.prometheus import Prometheus
from tests.support import ask, graphs
from tests.support.http_raw import RawAnswer, RawConnection, request
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

MOST_REQUESTS = 12
QUEUE = 2
ROWS = 16

_FULL_BATCHES = f"max_batch_size = {ROWS}\n[batching]\nmax_queue_delay_us = 3_600_000_000\n"
_OPTIMIZED = '[optimization]\nbackground = "always"\ntime_budget_s = 60\n'

_STAND_IN = """#!{python}
import json, os, shutil, sys, time
arguments = sys.argv[1:]
if arguments[:3] != ["-P", "-m", "tensorquay_convert"]:
    os.execv({python!r}, [{python!r}, *arguments])
while not os.path.exists({go_on!r}):
    time.sleep(0.02)
given = dict(each.lstrip("-").partition("=")[::2] for each in arguments if "=" in each)
text = " ".join(arguments)
if "spoilt" in text:
    print(json.dumps({{"sentence": "the stand-in spoils it", "remedy": "none"}}))
    sys.exit(5)
if "import" in arguments:
    os.mkdir(given["output"])
    shutil.copy({model!r}, os.path.join(given["output"], "model.onnx"))
    print(json.dumps({{"ok": True}}))
else:
    print(json.dumps({{"result": "kept", "sentence": "nothing is faster"}}))
"""
"""Imports and optimises in the place of tensorquay_convert, once it may; what is named "spoilt" fails."""

_SITE = """
import os, sys
for file in os.environ["JOIN"].split(":"):
    if file:
        with open(file, "w") as stream:
            stream.write(str(os.getpid()))
os.environ["JOIN"] = ""
sys.executable = {stand_in!r}
"""
"""Puts the server into its groups of the kernel before it looks at them."""


@contextlib.contextmanager
def limits() -> Iterator[list[Path]]:
    """Control groups with a limit on CPU and one on memory, to be joined through these files; none where we may not."""
    made: list[Path] = []
    root, name = Path("/sys/fs/cgroup"), f"tensorquay-test-{os.getpid()}"
    wanted = {
        "cpu": ("cpu.cfs_quota_us", "150000"),
        "cpuacct": ("", ""),
        "memory": ("memory.limit_in_bytes", str(4 << 30)),
    }
    try:
        for controller, (file, limit) in wanted.items():
            folder = root / controller / name
            folder.mkdir()
            made.append(folder)
            if file:
                (folder / file).write_text(limit)
    except OSError:
        _remove(made)
        made = []
    if not made and (root / "cgroup.controllers").exists():
        # One hierarchy for both (v2).
        folder = root / name
        try:
            folder.mkdir()
            made.append(folder)
            (folder / "cpu.max").write_text("150000 100000")
            (folder / "memory.max").write_text(str(4 << 30))
        except OSError:
            _remove(made)
            made = []
    try:
        yield [folder / "cgroup.procs" for folder in made]
    finally:
        until(lambda: _remove(made), "the control groups are empty")


def _remove(folders: list[Path]) -> bool:
    for folder in list(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()
            folders.remove(folder)
    return not folders


class Stage:
    """The repository, the server with its metrics on `port`, and the stand-in for imports and optimisations."""

    def __init__(self, folder: Path, groups: list[Path], port: int) -> None:
        self.repo = Repo(folder / "repo")
        self.repo.model("steady", {1: graphs.scale(1.0)})
        self.repo.model("folds", {1: graphs.reshape()})
        self.repo.model("waits", {1: graphs.working()}, f"{_FULL_BATCHES}[batching.queue]\nmax_queue_size = {QUEUE}\n")
        self.repo.model("fills", {1: graphs.working()}, _FULL_BATCHES)
        self.go_on = folder / "go-on"
        (folder / "imported.onnx").write_bytes(graphs.scale(5.0).SerializeToString())
        stand_in = folder / "python"
        stand_in.write_text(
            _STAND_IN.format(python=sys.executable, go_on=str(self.go_on), model=str(folder / "imported.onnx"))
        )
        stand_in.chmod(0o755)
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITE.format(stand_in=str(stand_in)))
        self.server: RunningServer = start(
            [self.repo.root],
            *("--model-control-mode=poll", "--repository-poll-secs=0.1", "--settle-secs=0", "--frontends=1"),
            f"--metrics-port={port}",
            *(f"--max-inflight-requests={MOST_REQUESTS}", f"--import-cache={folder / 'cache'}"),
            env={
                "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])),
                "JOIN": ":".join(map(str, groups)),
            },
        )

    def play(self, seen: Prometheus) -> None:
        """All of it."""
        seen.sees('sum(rate(tensorquay_request_seconds_count{job="plain"}[60s])) >= 0', "two scrapes")
        with Load(self.server, "steady", http=1, grpc=1) as load:
            self._wrong(seen)
            self._crowd(seen)
            self._drops(seen)
            load.more(2)
        load.check({1.0, 3.0}, refusals=True)

    def _wrong(self, seen: Prometheus) -> None:
        """Requests that fail before a model, in the frame of one, and inside one."""
        folded = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]},'
        folded += b' {"name": "shape", "datatype": "INT64", "shape": [2], "data": [2, 2]}]}'
        for model, body in {
            "nobody": ask.infer_body(ask.sequence([[1]])),
            "steady": b"{no JSON",
            "waits": ask.infer_body(ask.sequence([[1, 2, 3]])),
            "folds": folded,
        }.items():
            answer = ask.post(self.server, f"/v2/models/{model}/infer", body)
            assert answer.status >= 400, answer
        seen.sees("sum(tensorquay_refused_requests_total) > 0", "refusals")
        seen.sees('sum(nv_inference_request_failure{model="folds"}) > 0', "a failed run")

    def _crowd(self, seen: Prometheus) -> None:
        """Queues that fill, a full model, a full server, and clients that leave."""
        row = ask.sequence([[0, 1]])
        with ThreadPoolExecutor(MOST_REQUESTS) as pool:
            held = [pool.submit(ask.infer, self.server, "waits", row) for _ in range(QUEUE - 1)]
            leaver = RawConnection(self.server.http)
            leaver.send(request("/v2/models/waits/infer", ask.infer_body(row)))
            until(lambda: ask.pending(self.server, "waits") == QUEUE, "its queue is full")
            refused = ask.infer(self.server, "waits", row)
            assert refused.status == 503, refused
            until(lambda: self._held(pool, held), "the server is full")
            seen.sees("sum(tensorquay_admission_rejected_total) > 0", "refusals at the door")
            seen.sees(_lasting("tensorquay_queue_oldest_seconds"), "somebody waiting")
            seen.sees('tensorquay_rejected_total{reason="queue_full"} > 0', "a full queue")
            leaver.reset()
            seen.sees('nv_inference_request_failure{reason="CANCELED"} > 0', "that somebody left")
            self._let_go(held)

    def _held(self, pool: ThreadPoolExecutor, held: list[Future[RawAnswer]]) -> bool:
        """One more request that waits; true when the server takes no more."""
        waiting = ask.pending(self.server, "fills")
        more = pool.submit(ask.infer, self.server, "fills", ask.sequence([[0, 1]]))
        until(lambda: more.done() or ask.pending(self.server, "fills") > waiting, "it waits or is refused")
        if more.done():
            return more.result().status == 429
        held.append(more)
        return False

    def _let_go(self, held: list[Future[RawAnswer]]) -> None:
        for model in ("waits", "fills"):
            rest = ROWS - ask.pending(self.server, model)
            until(lambda: self._filled(model, rest), f"the batch of {model} is full")  # noqa: B023  asked at once
        for each in held:
            assert each.result().status == 200

    def _filled(self, model: str, rows: int) -> bool:
        """Whether the request that fills the batch was taken: the server may still be as full as it can be."""
        return ask.infer(self.server, model, ask.sequence([[0, 1]] * rows)).status == 200

    def _drops(self, seen: Prometheus) -> None:
        """Versions that are good and bad; sources and wishes that end well and badly."""
        self.repo.version("steady", 2, graphs.scale(3.0))
        seen.sees('tensorquay_model_swaps_total{result="swapped"} > 0', "a swap")
        self.repo.version("steady", 3, b"no model")
        seen.sees('tensorquay_model_swaps_total{result="failed"} > 0', "a swap that failed")
        for name in ("brought", "spoilt"):
            folder = self.repo.model(name, {})
            made = folder.parent.parent / f"{name}.zip"
            _looks_like_an_export(made, name)
            (folder / "making").mkdir()
            made.rename(folder / "making" / "model.pt2")
            (folder / "making").rename(folder / "1")
        for name in ("kept", "spoilt-too"):
            self.repo.model(name, {1: graphs.scale(2.0)}, _OPTIMIZED)
        seen.sees(_lasting("tensorquay_imports_running"), "an import")
        seen.sees(_lasting("tensorquay_optimizations_running"), "an optimisation")
        self.go_on.touch()
        for result in ("imported", "failed"):
            seen.sees(f'tensorquay_imports_total{{result="{result}"}} > 0', f"that an import {result}")
        for result in ("kept", "failed"):
            seen.sees(f'tensorquay_optimizations_total{{result="{result}"}} > 0', f"that an optimisation {result}")
        seen.sees('ALERTS{alertname="TensorquayOptimizationFailed", alertstate="firing"}', "the last of its alerts")


def _lasting(gauge: str) -> str:
    """Above 0 in both jobs, and for so long that a panel's steps cannot all miss it."""
    return f"count(max by (job) (min_over_time({gauge}[2s])) > 0) == 2"


def _looks_like_an_export(path: Path, text: str) -> None:
    """Looks like a PyTorch export as far as anybody can tell without PyTorch."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/archive_version", "0")
        archive.writestr("model/models/model.json", f'{{"{text}": 0}}')
        archive.writestr("model/version", "0\n")
