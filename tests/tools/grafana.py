"""Grafana's JSON of a dashboard, of which only what differs from panel to panel has to be said.

Shapes are those of Grafana 12 (schema version 41). A panel is a dictionary; `dashboard` lays them out and numbers them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

COLUMNS = 24
"""Width of Grafana's grid."""

SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
"""Whatever Prometheus is chosen at the top of the dashboard."""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and what its series are called. `now`: only the present value; `buckets`: a histogram's."""

    expr: str
    legend: str = ""
    now: bool = False
    buckets: bool = False

    def target(self, letter: str, *, table: bool) -> Json:
        """As a panel has it."""
        form = "heatmap" if self.buckets else "table" if table else "time_series"
        return {
            "refId": letter,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "format": form,
            "instant": self.now,
            "range": not self.now,
        }


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side: their widths fill the grid. `height` in rows of the grid, 30 pixels each."""

    height: int
    panels: Sequence[tuple[int, Json]]


@dataclass(frozen=True, slots=True)
class Row:
    """A part of the dashboard under one title."""

    title: str
    lines: Sequence[Line]


def steps(*bounds: tuple[float, str], first: str = "green") -> Json:
    """Thresholds: `first` below the lowest bound, then the colour that stands with each."""
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}, *({"color": color, "value": bound} for bound, color in bounds)],
    }


def stat(
    title: str, description: str, queries: Sequence[Query], *, unit: str = "short", thresholds: Json | None = None
) -> Json:
    """One big number with its course behind it."""
    plain = steps(first="text")
    return _panel(
        "stat",
        (title, description),
        queries,
        defaults={"unit": unit, "noValue": "–", "thresholds": thresholds or plain, "color": {"mode": "thresholds"}},
        options={
            "colorMode": "value",
            "graphMode": "none" if queries[0].now else "area",
            "textMode": "value",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
            "wideLayout": True,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    most: float | None = None,
    thresholds: Json | None = None,
    stacked: bool = False,
    bars: bool = False,
    limits: Sequence[str] = (),
) -> Json:
    """Curves over time, from 0; `limits`: legends that are drawn as a dashed red line."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 0 if bars else 1,
        "fillOpacity": 80 if bars else 30 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked or bars else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
    }
    bounds: Json = {"min": 0} | ({} if most is None else {"max": most})
    return _panel(
        "timeseries",
        (title, description),
        queries,
        defaults={"unit": unit, "custom": custom, "thresholds": thresholds or steps(), **bounds},
        options={
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        overrides=[
            {
                "matcher": {"id": "byRegexp", "options": f"/^{legend}/"},
                "properties": [
                    {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
                    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
                ],
            }
            for legend in limits
        ],
    )


def heatmap(title: str, description: str, queries: Sequence[Query], *, unit: str) -> Json:
    """A classic histogram over time; `unit` of what the buckets bound."""
    return _panel(
        "heatmap",
        (title, description),
        queries,
        defaults={"custom": {"scaleDistribution": {"type": "linear"}, "hideFrom": _NOT_HIDDEN}},
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "fill": "dark-orange",
                "reverse": False,
                "scale": "exponential",
                "exponent": 0.5,
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "unit": unit},
        },
    )


def states(title: str, description: str, queries: Sequence[Query], *, names: Mapping[int, Sequence[str]]) -> Json:
    """Which state when; `names`: number → what it is called, and its colour."""
    mapped = {str(number): {"index": number, "text": text, "color": color} for number, (text, color) in names.items()}
    return _panel(
        "state-timeline",
        (title, description),
        queries,
        defaults={
            "mappings": [{"type": "value", "options": mapped}],
            "color": {"mode": "thresholds"},
            "thresholds": steps(first="text"),
            "custom": {"fillOpacity": 80, "lineWidth": 0, "hideFrom": _NOT_HIDDEN},
        },
        options={
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.9,
            "perPage": 20,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def bars(title: str, description: str, queries: Sequence[Query], *, unit: str, most: float | None = None) -> Json:
    """A horizontal bar for each series, as it is now."""
    return _panel(
        "bargauge",
        (title, description),
        queries,
        defaults={
            "unit": unit,
            "min": 0,
            "color": {"mode": "fixed", "fixedColor": "blue"},
            "thresholds": steps(first="text"),
        }
        | ({} if most is None else {"max": most}),
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "namePlacement": "auto",
            "showUnfilled": True,
            "sizing": "auto",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "maxVizHeight": 300,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def table(title: str, description: str, queries: Sequence[Query], *, hidden: Sequence[str] = ()) -> Json:
    """The labels of each series, as they are now."""
    made = _panel(
        "table",
        (title, description),
        queries,
        defaults={"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}},
        options={"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
    )
    made["transformations"] = [
        {"id": "organize", "options": {"excludeByName": dict.fromkeys(["Time", "Value", *hidden], True)}}
    ]
    return made


def values_of(name: str, label: str, description: str, expression: str) -> Json:
    """A variable: one or several of the values that `expression` finds, or all, also what has no such label."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": SOURCE,
        "definition": expression,
        "query": {"query": expression, "refId": "PrometheusVariableQueryEditor-VariableQuery", "qryType": 1},
        "refresh": 2,
        "sort": 7,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
    }


def source_variable() -> Json:
    """The variable that chooses the data source; Grafana's default one first."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes the servers.",
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
        "options": [],
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def marks(name: str, expression: str, text: str, color: str) -> Json:
    """Vertical lines in every panel at the times when `expression` has a value."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        # Grafana takes the query from here; older versions from "expr".
        "target": {"refId": "Anno", "expr": expression, "interval": "15s"},
        "expr": expression,
        "step": "15s",
        "titleFormat": name,
        "textFormat": text,
        "tagKeys": "",
        "useValueForTime": False,
    }


def dashboard(
    *,
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    variables: Sequence[Json],
    annotations: Sequence[Json],
) -> Json:
    """All of it; panels are numbered and placed in the order of `rows`."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["tensorquay"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 41,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": list(variables)},
        "annotations": {"list": list(annotations)},
        "links": [],
        "panels": _placed(rows),
    }


_NOT_HIDDEN = {"legend": False, "tooltip": False, "viz": False}


def _panel(
    kind: str,
    says: tuple[str, str],
    queries: Sequence[Query],
    *,
    defaults: Json,
    options: Json,
    overrides: Sequence[Json] = (),
) -> Json:
    title, description = says
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": [
            query.target(letter, table=kind == "table") for letter, query in zip("ABCDEFGH", queries, strict=False)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
    }


def _placed(rows: Sequence[Row]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed.append({"id": len(placed) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place})
        placed[-1]["panels"] = []
        y += 1
        for line in row.lines:
            x = 0
            for width, panel in line.panels:
                place = {"x": x, "y": y, "w": width, "h": line.height}
                placed.append({"id": len(placed) + 1, "gridPos": place, **panel})
                x += width
            if x != COLUMNS:
                raise ValueError(f"row '{row.title}': a line is {x} wide, the grid {COLUMNS}")
            y += line.height
    return placed
