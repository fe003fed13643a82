"""A real Prometheus in a process of its own that scrapes what a test gives it, and answers over its HTTP interface."""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.container.engine import free_ports
from tests.support.waiting import until

INTERVAL_S = 0.5
"""Between two scrapes of a target, and between two looks at the rules."""

STEP_S = 0.5


@dataclass(frozen=True)
class Target:
    """Who is scraped: "host:port", under which job, with which labels beside `instance`."""

    job: str
    address: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, and its values that are numbers."""

    labels: dict[str, str]
    values: tuple[float, ...]


class Prometheus:
    """Asks a running one. Wrong PromQL fails with Prometheus' own words."""

    def __init__(self, address: str, log: Path) -> None:
        self._client = httpx.Client(base_url=f"http://{address}/api/v1", timeout=30, trust_env=False)
        self._log = log

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()

    def now(self, expression: str) -> list[Series]:
        """Its value now."""
        found = self._ask("query", query=expression)
        if found["resultType"] == "scalar":
            return [_series({}, [found["result"]])]
        return [_series(each["metric"], [each["value"]]) for each in found["result"]]

    def over(self, expression: str, start: float, end: float) -> list[Series]:
        """Its values over a time, as a panel draws them."""
        found = self._ask("query_range", query=expression, start=start, end=end, step=STEP_S)
        return [_series(each["metric"], each["values"]) for each in found["result"]]

    def label_values(self, label: str, selector: str) -> list[str]:
        """What `label_values(selector, label)` of Grafana gives."""
        values: list[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return values

    def seconds(self) -> float:
        """Its clock."""
        return self.now("time()")[0].values[0]

    def sees(self, expression: str, what: str) -> list[Series]:
        """Wait until `expression` has a value, and give it."""
        return until(lambda: self.now(expression), f"Prometheus sees {what}: {expression}")

    def _ask(self, path: str, **parameters: str | float) -> Any:
        answer = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", f"{answer.get('error')}\n{parameters}\n{self._log.read_text()[-1000:]}"
        return answer["data"]


def _series(labels: dict[str, str], points: list[Any]) -> Series:
    numbers = (float(text) for _, text in points)
    return Series(labels, tuple(number for number in numbers if math.isfinite(number)))


def program() -> str:
    """Where it is; skips, loudly, where there is none."""
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus): NO query of a board was run")
    return found


@contextlib.contextmanager
def prometheus(folder: Path, targets: Sequence[Target], groups: Sequence[dict[str, Any]]) -> Iterator[Prometheus]:
    """A Prometheus with its data in `folder` until the end of the block."""
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": list(groups)}))
    scraped = [
        {"job_name": each.job, "static_configs": [{"targets": [each.address], "labels": each.labels}]}
        for each in targets
    ]
    interval = f"{INTERVAL_S * 1000:.0f}ms"
    settings = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["rules.yml"],
        "scrape_configs": scraped,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    (port,) = free_ports(1)
    address, log = f"127.0.0.1:{port}", folder / "prometheus.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [
                program(),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: _ready(process, address, log), "Prometheus is ready")
        running = Prometheus(address, log)
        try:
            yield running
        finally:
            running.close()
    finally:
        process.terminate()
        process.wait(30)


def _ready(process: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{address}/-/ready", trust_env=False).status_code == 200
    return False
