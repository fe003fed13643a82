"""Which metrics and labels an expression in PromQL speaks of.

No parser: enough to hold our rules to what is exported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SUFFIXES = ("_bucket", "_sum", "_count")

_OURS = re.compile(r"\b((?:nv|tensorquay|process)_[a-z0-9_]+)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*\"[^\"]*\"")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_LEFT = re.compile(r"\bgroup_(?:left|right)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Spoken:
    """Metrics with the labels they are matched by, and the labels that answers are grouped by."""

    metrics: dict[str, frozenset[str]]
    grouped_by: frozenset[str]


def spoken(expression: str) -> Spoken:
    """What `expression` speaks of."""
    metrics: dict[str, frozenset[str]] = {}
    for name, matchers in _OURS.findall(expression):
        metrics[name] = metrics.get(name, frozenset()) | frozenset(_MATCHER.findall(matchers))
    groups = [*_GROUPING.findall(expression), *_LEFT.findall(expression)]
    return Spoken(metrics, frozenset(label.strip() for group in groups for label in group.split(",") if label.strip()))


def exported(page: str) -> dict[str, frozenset[str]]:
    """Sample name → its labels' names, from a page of metrics."""
    found: dict[str, set[str]] = {}
    for line in page.splitlines():
        sample = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+", line)
        if sample and not line.startswith("#"):
            labels = re.findall(r'(\w+)="', sample[2] or "")
            found.setdefault(sample[1], set()).update(labels)
    return {name: frozenset(labels) for name, labels in found.items()}
