"""The page of a real server: what is on it is declared and documented, and the utilization says how loaded it is."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.support import ask, graphs
from tests.support.load import Load
from tests.support.observing import page, samples, value
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until
from tests.tools.metrics_reference import metrics_reference

from tensorquay.config.resources import usable_cores
from tensorquay.telemetry.container import Container
from tensorquay.telemetry.families import FAMILIES

Serve = Callable[..., RunningServer]

_NARROW = """
max_batch_size = 1
[batching]
queue = { max_queue_size = 1 }
[execution]
inline = "never"
"""


def test_page_declaration_and_reference_name_the_same_families(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")
    model, _ = graphs.write_external(tmp_path / "repo" / "big" / "1")
    server = serve([repo.root], "--frontends=1", "--auto-optimize=true", "--log-info=false")
    text = page(server)
    written = {line.split()[2]: line.split(maxsplit=3)[3] for line in text.splitlines() if line.startswith("# HELP")}
    assert all(FAMILIES[name].help == said for name, said in written.items())
    found = Container().read()
    unknown_here = {
        name
        for name, known in {
            "tensorquay_container_cpu_seconds_total": found.cpu_seconds,
            "tensorquay_container_cpu_periods_total": found.cpu_periods,
            "tensorquay_container_cpu_throttled_periods_total": found.cpu_throttled_periods,
            "tensorquay_container_cpu_throttled_seconds_total": found.cpu_throttled_seconds,
            "tensorquay_container_cpu_limit_cores": found.cpu_limit_cores,
            "tensorquay_container_memory_bytes": found.memory_bytes,
            "tensorquay_container_memory_limit_bytes": found.memory_limit_bytes,
        }.items()
        if known is None
    }
    switched_off = {name for name, family in FAMILIES.items() if family.present == "with --trace-mode opentelemetry"}
    assert set(FAMILIES) - unknown_here - switched_off == set(written)
    documented = {
        line.split("`")[1] for line in metrics_reference().splitlines() if line.startswith(("| `nv_", "| `te", "| `pr"))
    }
    assert documented == set(FAMILIES)
    # As Prometheus reads it, kinds and labels are those declared.
    for family in text_string_to_metric_families(text):
        declared = FAMILIES.get(family.name) or FAMILIES[f"{family.name}_total"]
        assert family.type == declared.kind.value, family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(declared.labels), sample
    of_it = {"model": "big", "version": "1"}
    there = samples(server)
    size = sum(path.stat().st_size for path in model.parent.iterdir())
    assert value(there, "tensorquay_model_bytes", **of_it) == size
    assert value(there, "tensorquay_provider_node_share", provider="CPUExecutionProvider", **of_it) == 1
    assert value(there, "tensorquay_frontends") == 1


def test_the_utilization_is_zero_when_idle_and_passes_one_when_requests_are_turned_away(
    tmp_path: Path, serve: Serve
) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("slow", {1: graphs.working()}, _NARROW)
    for number in range(5):
        repo.model(f"idle{number}", {1: graphs.scale(1.0)})
    server = serve([repo.root], "--log-info=false")
    assert value(samples(server), "tensorquay_utilization") == 0, "loading is no load"

    path, turns = "/v2/models/slow/infer", 30_000
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [turns, 1]}]}).encode()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        assert client.post(path, content=body).status_code == 200
    assert 0 < value(samples(server), "tensorquay_utilization") < 1

    done = threading.Event()

    def ask() -> int:
        refused = 0
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            while not done.is_set():
                refused += client.post(path, content=body).status_code == 503
        return refused

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            until(lambda: value(samples(server), "tensorquay_utilization") > 1.5, "more is asked for than can be done")
        finally:
            done.set()
        refused = sum(each.result() for each in asking)
    assert refused > 0
    counted = value(samples(server), "tensorquay_rejected_total", model="slow", version="1", reason="queue_full")
    assert counted == refused


def test_models_that_share_the_cores_are_told_together(tmp_path: Path, serve: Serve) -> None:
    """Under real load: no version of several fills its instances, the CPU is what they fill."""
    repo = Repo(tmp_path / "repo")
    names = [f"m{number}" for number in range(4)]
    for name in names:
        repo.model(name, {1: graphs.working()}, '[execution]\ninline = "never"\nintra_op_threads = 1\n')
    server = serve([repo.root])
    began_s, cores = value(samples(server), "process_start_time_seconds"), usable_cores()
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(Load(server, name, http=1, grpc=0, width=2, lead=5_000))
        before_s = value(samples(server), "process_cpu_seconds_total")

        def told() -> tuple[float, float]:
            found = samples(server)
            used_s = value(found, "process_cpu_seconds_total") - before_s
            # Reckoned over more time than the gauge looks back: never more than what it has to tell.
            return used_s / (cores * (time.time() - began_s)), value(found, "tensorquay_utilization")

        least, utilization = until(lambda: (seen := told())[0] > 0.15 / cores and seen, "the server has worked")
        assert utilization >= 0.9 * least


def test_what_is_refused_is_told_until_nobody_wants_it_any_more(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("once", {1: b"no model"})
    repo.model("unread", {1: b"no model"}, **{"config.pbtxt": "max_batch_size: many"})
    server = serve([repo.root], "--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false")

    def failed(model: str, version: str) -> float:
        return value(samples(server), "tensorquay_model_failed", model=model, version=version)

    assert failed("once", "1") == failed("unread", "") == 1
    repo.file("once/1/model.onnx", graphs.scale(2.0))
    assert ask.post(server, "/v2/repository/models/once/load", b"{}").status == 200
    assert failed("once", "1") == 0
    repo.model("twice", {1: b"no model"})
    assert ask.post(server, "/v2/repository/models/twice/load", b"{}").status == 400
    assert failed("twice", "1") == 1
    for name in ("twice", "unread"):
        assert ask.post(server, f"/v2/repository/models/{name}/unload", b"{}").status == 200
    assert failed("twice", "1") == 0, "nobody wants it"
    assert ("tensorquay_model_failed", frozenset({("model", "unread"), ("version", "")})) not in samples(server)
