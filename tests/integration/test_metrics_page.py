"""The page of a real server: what is on it is declared and documented, and the utilization says how loaded it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.support import graphs
from tests.support.observing import page, samples, value
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until
from tests.tools.metrics_reference import metrics_reference

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
