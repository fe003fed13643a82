"""The Prometheus text format 0.0.4, written directly.

prometheus_client appends "_total" to every counter's name, and Triton's names have none; dashboards ask for Triton's.
Label names are sorted, whole numbers have no fraction: byte for byte what tritonserver's own exporter writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bucketed:
    """A histogram: cumulative (upper bound, count) pairs, the last bound infinite, and the sum."""

    buckets: tuple[tuple[float, int], ...]
    total: float


class Page:
    """One answer to a scrape, built family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, help_text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        """A counter or gauge; nothing at all is written when there are no samples."""
        lines = [f"{name}{_labels(labels)} {number(value)}" for labels, value in samples]
        if lines:
            self._header(name, kind, help_text)
            self._lines += lines

    def histogram(self, name: str, help_text: str, samples: Iterable[tuple[Labels, Bucketed]]) -> None:
        """A classic histogram."""
        first = True
        for labels, value in samples:
            if first:
                self._header(name, "histogram", help_text)
                first = False
            for bound, count in value.buckets:
                le = "+Inf" if math.isinf(bound) else number(bound)
                self._lines.append(f"{name}_bucket{_labels({**labels, 'le': le})} {count}")
            self._lines.append(f"{name}_sum{_labels(labels)} {number(value.total)}")
            self._lines.append(f"{name}_count{_labels(labels)} {value.buckets[-1][1]}")

    def raw(self, text: str) -> None:
        """Text that is in the format already."""
        self._lines.append(text.rstrip("\n"))

    def encode(self) -> bytes:
        """The page."""
        return ("\n".join(self._lines) + "\n").encode("utf-8", "backslashreplace")

    def _header(self, name: str, kind: str, help_text: str) -> None:
        self._lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def number(value: float) -> str:
    """A sample's value: no fraction when there is none."""
    if isinstance(value, int):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(labels[name])}"' for name in sorted(labels))
    return "{" + inside + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
