"""The Prometheus text format 0.0.4, written directly, and only families that are declared.

prometheus_client appends "_total" to every counter's name, and Triton's names have none; dashboards ask for Triton's.
Label names are sorted, whole numbers have no fraction: byte for byte what tritonserver's own exporter writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tensorquay.core.errors import InvariantViolation
from tensorquay.telemetry.families import FAMILIES, Family, Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels: TypeAlias = Mapping[str, str]


class Page:
    """One answer to a scrape, built family by family.

    Args: declared: what may be written, by name.
    """

    def __init__(self, declared: Mapping[str, Family] = FAMILIES) -> None:
        self._declared = declared
        self._written: set[str] = set()
        self._parts: list[bytes] = []

    def family(self, name: str, samples: Iterable[tuple[Labels, float]]) -> None:
        """A counter or gauge; nothing at all is written when there are no samples.

        Raises: InvariantViolation for a family that is not declared, was written already, or has other labels.
        """
        family = self._begin(name)
        lines = []
        for labels, value in samples:
            check_labels(family, labels)
            lines.append(f"{name}{labels_text(labels)} {number(value)}")
        self._end(family, lines)

    def lines(self, name: str, lines: Sequence[str]) -> None:
        """A family whose samples are lines already; the caller has checked their labels.

        Raises: InvariantViolation for a family that is not declared or was written already.
        """
        self._end(self._begin(name), lines)

    def encode(self) -> bytes:
        """The page."""
        return b"".join(self._parts)

    def _begin(self, name: str) -> Family:
        family = self._declared.get(name)
        if family is None:
            raise InvariantViolation(f"the metric family {name} is not declared")
        if name in self._written:
            raise InvariantViolation(f"the metric family {name} is written twice; Prometheus refuses such a page")
        self._written.add(name)
        return family

    def _end(self, family: Family, lines: Sequence[str]) -> None:
        if lines:
            head = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind.value}\n"
            # Family by family: of a page of megabytes this would hold up the loop, done at once.
            self._parts.append((head + "\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))


def check_labels(family: Family, labels: Labels) -> None:
    """Nothing, if `labels` are those that `family` declares, and maybe metric tags, which begin with "_".

    Raises: InvariantViolation otherwise.
    """
    own = {name for name in labels if not name.startswith("_")}
    if own != {*family.labels}:
        raise InvariantViolation(f"{family.name}: expected labels {sorted(family.labels)}, got {sorted(own)}")


def histogram_names(family: Family) -> tuple[str, str, str]:
    """The names of a histogram's buckets, sum and count.

    Raises: InvariantViolation when it is none.
    """
    if family.kind is not Kind.HISTOGRAM:
        raise InvariantViolation(f"{family.name} is a {family.kind.value}, no histogram")
    return f"{family.name}_bucket", f"{family.name}_sum", f"{family.name}_count"


def number(value: float) -> str:
    """A sample's value: no fraction when there is none."""
    if isinstance(value, int):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def labels_text(labels: Labels) -> str:
    """`{name="value",…}`, names sorted, values escaped; empty for none."""
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(labels[name])}"' for name in sorted(labels))
    return "{" + inside + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
