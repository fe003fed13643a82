"""PromQL as a person would have it run: Grafana's variables filled in, windows and bounds made fit for a short test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.k8s.rendering import K8S, ROOT, component_file, documents

Json = dict[str, Any]

DASHBOARD: Json = json.loads((ROOT / "docker/grafana/dashboards/tensorquay.json").read_text())

WINDOW = "60s"
"""Stands for every window: what has happened in the scene is still to be seen at its end, however slow a machine is."""

ALL = dict.fromkeys(("job", "pod", "instance", "model", "version"), ".*")
"""What Grafana puts in the place of variables when All is chosen."""

_WINDOW = re.compile(r"\[\d+[smhd]\]")
_BOUND = re.compile(r"(==|>=|<=|>|<)\s*-?[\d.]+(?![\d.]*[\w(\[{])")


@dataclass(frozen=True)
class Panel:
    """A query of a panel. `now`: only its present value is drawn."""

    title: str
    letter: str
    expr: str
    now: bool

    def __str__(self) -> str:
        return f"{self.title} {self.letter}"


def panels() -> list[Json]:
    """Every panel but the titles of rows."""
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def panel_queries() -> Iterator[Panel]:
    """Every query of every panel, and of the marks in all of them."""
    for panel in panels():
        for target in panel["targets"]:
            yield Panel(panel["title"], target["refId"], target["expr"], target["instant"])
    for mark in DASHBOARD["annotations"]["list"]:
        yield Panel(mark["name"], "mark", mark["expr"], now=False)


def filled(expression: str, variables: Mapping[str, str]) -> str:
    """As Grafana sends it."""
    done = expression.replace("$__rate_interval", WINDOW)
    for name, value in variables.items():
        done = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", lambda _: value, done)  # noqa: B023  used at once
    assert "$" not in done, done
    return done


def groups() -> list[Json]:
    """The alerts, as the operator's resource groups them."""
    (rule,) = documents((K8S / "components/prometheus-operator/prometheusrule.yaml").read_text())
    found: list[Json] = rule["spec"]["groups"]
    return found


def rules() -> list[Json]:
    """Every alert."""
    return [rule for group in groups() for rule in group["rules"]]


def short(expression: str) -> str:
    """With a window that a test can wait for."""
    return _WINDOW.sub(f"[{WINDOW}]", expression)


def unbounded(expression: str) -> str:
    """With bounds that every number is above or below of: what an alert looks at, healthy or not."""
    return _BOUND.sub(lambda found: "> -Inf", expression)


def hurried() -> list[Json]:
    """The alerts with short windows and without a pause before they fire."""
    return [
        {
            **group,
            "rules": [
                {key: short(value) if key == "expr" else value for key, value in rule.items() if key != "for"}
                for rule in group["rules"]
            ],
        }
        for group in groups()
    ]


def scaling_queries() -> dict[str, str]:
    """What both autoscalers ask Prometheus."""
    asked = {
        f"KEDA {trigger['name']}": trigger["metadata"]["query"]
        for trigger in component_file("keda/scaledobject.yaml")["spec"]["triggers"]
    }
    for rule in component_file("hpa/prometheus-adapter-rules.yaml")["rules"]:
        query = rule["metricsQuery"]
        for template, value in {
            "<<.Series>>": rule["seriesQuery"].partition("{")[0],
            "<<.LabelMatchers>>": 'namespace="tensorquay",pod=~"a|b"',
            "<<.GroupBy>>": "pod",
        }.items():
            query = query.replace(template, value)
        assert "<<" not in query
        asked[f"adapter {rule['name']['as']}"] = query
        asked[f"adapter {rule['name']['as']}, which pods"] = rule["seriesQuery"]
    return asked
