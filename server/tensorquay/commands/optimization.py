"""What `tensorquay models show` says about how a model was optimised, out of its `optimization.json`.

The file is whoever's wrote the repository: what is missing in it or of another type is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensorquay.commands.output import table

_MOST = 16
_MANY = 1e12


def rows(record: Mapping[str, Any], report: str) -> list[list[str]]:
    """Name and value of what is worth a line, in order.

    Args: report: where the page for people is.
    """
    winner = _text(record, "winner")
    trial = next((each for each in _tables(record, "trials") if _text(_table(each, "variant"), "name") == winner), {})
    machine, data = _table(record, "machine"), _table(record, "data")
    found = [
        ("optimised", winner or "nothing was faster"),
        ("result", _text(record, "sentence")),
        *((f"at {name}", value) for name, value in _times(trial if winner else {})),
        ("gate", _gate(_table(trial, "judgement")) if winner else ""),
        ("judged on", _data(data)),
        ("measured on", _machine(machine)),
        ("made from", _baseline(_table(record, "baseline"))),
        ("at", _text(record, "at")),
        ("warnings", "; ".join(str(each) for each in _list(record, "warnings"))),
        ("report", report),
    ]
    return [[name, value] for name, value in found if value]


def shown(record: Mapping[str, Any], report: str) -> Any:
    """The rows as a table to print."""
    return table("optimization", "value", rows=rows(record, report))


def _times(trial: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the winner gained at each point, with the bounds of the measurement."""
    found = []
    for timing in _tables(trial, "timings"):
        ratio, low, high = (_number(timing, name) for name in ("ratio", "low", "high"))
        if ratio is None:
            continue
        spread = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
        before, after = _number(timing, "baseline_p50"), _number(timing, "p50")
        median = f", median {_ms(before)} → {_ms(after)}" if before is not None and after is not None else ""
        found.append((_text(timing, "point") or f"batch {timing.get('batch')}", f"{ratio:.2f} ×{spread}{median}"))
    return found


def _gate(judgement: Mapping[str, Any]) -> str:
    rule = _text(judgement, "rule")
    if not rule:
        return ""
    value, before = _number(judgement, "metric_value"), _number(judgement, "metric_baseline")
    metric = ""
    if value is not None and before is not None:
        metric = f"; {_text(judgement, 'metric') or 'metric'} {value:.4g}, {before:.4g} before"
    cosines = [_number(each, "cosine") for each in _tables(judgement, "outputs")]
    worst = min((each for each in cosines if each is not None), default=None)
    return f"{rule}{metric}" + (f"; least mean cosine {worst:.5f}" if worst is not None else "")


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    count = _number(data, "judging")
    samples = f"{count:.0f} samples" if count is not None else "samples"
    if data.get("real") is not True:
        return f"{samples} that were drawn: accuracy was not judged on real data"
    return f"{samples} of its owner's" + (", with labels" if data.get("labels") is True else "")


def _machine(machine: Mapping[str, Any]) -> str:
    processors = _number(machine, "processors")
    runtime = _text(machine, "onnxruntime")
    parts = [
        _text(machine, "gpu"),
        _text(machine, "cpu"),
        f"{processors:.0f} processors" if processors else "",
        ", ".join(str(each) for each in _list(machine, "features")),
        f"ONNX Runtime {runtime}" if runtime else "",
    ]
    return "; ".join(each for each in parts if each)


def _baseline(baseline: Mapping[str, Any]) -> str:
    version, sha256 = baseline.get("version"), _text(baseline, "sha256")
    number = f"version {version}" if isinstance(version, int) else ""
    return ", ".join(each for each in (number, f"sha256 {sha256}" if sha256 else "") if each)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _table(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _list(record: Mapping[str, Any], name: str) -> Sequence[object]:
    value = record.get(name)
    return value[:_MOST] if isinstance(value, list) else []


def _tables(record: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    value = record.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(record: Mapping[str, Any], name: str) -> float | None:
    """A number that can be shown."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _MANY and math.isfinite(value) else None


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
