"""What a running server says about itself: its statistics, and its metrics page as Prometheus reads it."""

from __future__ import annotations

import re
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.support.serving import RunningServer

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def statistics(server: RunningServer, model: str, version: str = "") -> dict[str, Any]:
    """The statistics of one version, as the endpoint gives them."""
    path = f"/v2/models/{model}{f'/versions/{version}' if version else ''}/stats"
    (found,) = httpx.get(server.url + path, trust_env=False).json()["model_stats"]
    stats: dict[str, Any] = found
    return stats


def failures(server: RunningServer, model: str) -> int:
    """Requests to `model` that failed or left."""
    count: int = statistics(server, model)["inference_stats"]["fail"]["count"]
    return count


def page(server: RunningServer) -> str:
    """The metrics page."""
    response = httpx.get(f"http://{server.metrics}/metrics", trust_env=False)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return response.text


def samples(server: RunningServer) -> Samples:
    """Every sample of the page by name and labels; read by prometheus_client's own parser, each series once."""
    found: Samples = {}
    text = page(server)
    written = {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser appends "_total" to counters that have none; what the page says counts.
            name = sample.name if sample.name in written else sample.name.removesuffix("_total")
            key = (name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is on the page twice"
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return found[name, frozenset(labels.items())]


def waits(server: RunningServer, model: str, version: str = "1") -> bool:
    """Whether exactly one request waits in the queue of `model`."""
    line = f'nv_inference_pending_request_count{{model="{model}",version="{version}"}} 1'
    return line in page(server).splitlines()
