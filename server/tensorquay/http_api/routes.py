"""Paths of the V2 protocol: which are hot, and which category of access each belongs to.

Full-path matches without a trailing slash, as Triton's; a version is digits only, anything else is no route (404).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?(?:/(infer|ready))")

HOT_HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A hot route of one model: `action` is "infer" or "ready"; `version` is "" when the path names none."""

    model: str
    version: str
    action: str


def match_model(path: str) -> ModelRoute | None:
    """The hot model route that `path` (percent-encoded) is, or None."""
    found = _MODEL.fullmatch(path)
    if found is None:
        return None
    name, version, action = found.groups()
    return ModelRoute(unquote(name) if "%" in name else name, version or "", action)


_CATEGORIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"/v2/models/[^/]+(/versions/[0-9]+)?/(infer|generate|generate_stream)"), "inference"),
    (re.compile(r"(?s)/v2/health/.*|/v2/models/[^/]+(/versions/[0-9]+)?/ready"), "health"),
    (
        re.compile(r"/v2/models/[^/]+(/versions/[0-9]+)?/(config|provenance|verification|optimization|report)"),
        "model-config",
    ),
    (re.compile(r"/v2/models(/[^/]+(/versions/[0-9]+)?)?/stats|/v2/live(/now)?"), "statistics"),
    (re.compile(r"/v2(/models/[^/]+)?/trace/setting"), "trace"),
    (re.compile(r"/v2/logging"), "logging"),
    (re.compile(r"(?s)/v2/repository/.*"), "model-repository"),
    (re.compile(r"(?s)/v2/(system|cuda)sharedmemory.*"), "shared-memory"),
    (re.compile(r"/v2(/models(/[^/]+(/versions/[0-9]+)?)?)?"), "metadata"),
)


def spellings(path: str) -> tuple[str, ...]:
    """`path` as it came, by which hot routes are found, and as the application reads it. Rules hold for both."""
    return (path,) if "%" not in path else (path, unquote(path))


def category_of(path: str) -> str | None:
    """The access category (`--http-restricted-api`) of `path`, or None for paths outside the V2 protocol."""
    for pattern, category in _CATEGORIES:
        if pattern.fullmatch(path):
            return category
    return None
