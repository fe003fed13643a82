"""The measurements for people: tables for a terminal and for docs/performance.md. Pure: a document in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BEGIN, END = "<!-- tests.bench writes between these lines -->", "<!-- end of what tests.bench writes -->"

_HEADS = (
    "model",
    "door",
    "in flight",
    "served /s",
    "raw /s",
    "served / raw",
    "p50 ms",
    "p99 ms",
    "server CPU µs",
    "client CPU µs",
    "rows per batch",
)
_RAW_HEADS = (
    "model",
    "batch",
    "spinning",
    "ms per batch",
    "raw /s",
    "CPU µs per row",
    "server's max batch",
    "server MiB",
    "peak MiB",
)
_LEFT_ALIGNED = 2


def table(document: dict[str, Any]) -> str:
    """The tables, aligned for a terminal."""
    return "\n\n".join(
        (
            _aligned(_HEADS, served_rows(document)),
            _aligned(_RAW_HEADS, raw_rows(document)),
            *_surroundings(document),
        )
    )


def markdown(document: dict[str, Any]) -> str:
    """The tables and what they were measured on, as Markdown."""
    return "\n\n".join(
        (
            "\n".join(_surroundings(document)),
            piped(_HEADS, served_rows(document)),
            "Raw ONNX Runtime at its best batch size, and the server's memory (resident when loaded, and at its peak):",
            piped(_RAW_HEADS, raw_rows(document)),
        )
    )


def replaced(page: str, section: str, begin: str = BEGIN, end: str = END) -> str:
    """`page` with what stands between the markers replaced by `section`.

    Raises: ValueError when the markers are not there, once each and in order.
    """
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended or begin in rest or end in after:
        raise ValueError(f"the page needs the lines '{begin}' and '{end}' once, in this order")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def served_rows(document: dict[str, Any]) -> list[list[str]]:
    """One row per model and door, then one request at a time, then the floors."""
    rows = [
        [model["name"], *_door(door)] for model in document["models"] for door in (*model["doors"], *model["single"])
    ]
    return rows + [["–", *_door(door)] for door in document["floors"]]


def raw_rows(document: dict[str, Any]) -> list[list[str]]:
    """One row per model."""
    return [
        [
            model["name"],
            str(model["raw"]["batch"]),
            "yes" if model["raw"]["spinning"] else "no",
            number(model["raw"]["run_ms"]["median"]),
            with_range(model["raw"]["items_s"]),
            number(model["raw"]["cpu_us"]["median"]),
            str(model["max_batch_size"]),
            number(model["resident_bytes_before"] / 2**20),
            number(model["peak_bytes"] / 2**20),
        ]
        for model in document["models"]
    ]


def number(value: float) -> str:
    """Three significant digits, no exponent, thousands separated; whole numbers from 100 on."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _door(door: dict[str, Any]) -> list[str]:
    raw = door.get("of_raw")
    # The rate that fits the ratio beside it: raw varies from round to round, and so does served.
    raw_s = "–" if raw is None else number(door["rate_s"]["median"] / raw["median"])
    batches = door.get("rows_per_batch")
    return [
        door["door"],
        str(door["in_flight"]),
        with_range(door["rate_s"]),
        raw_s,
        "–" if raw is None else f"{_percent(raw['median'])} ({_percent(raw['low'])}–{_percent(raw['high'])})",
        number(door["p50_ms"]["median"]),
        number(door["p99_ms"]["median"]),
        number(door["server_cpu_us"]["median"]),
        number(door["load_cpu_us"]["median"]),
        "–" if batches is None else number(batches["median"]),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def with_range(figure: dict[str, Any]) -> str:
    """The median, and the extremes where there is more than one value."""
    if len(figure["all"]) == 1:
        return number(figure["median"])
    return f"{number(figure['median'])} ({number(figure['low'])}–{number(figure['high'])})"


def _surroundings(document: dict[str, Any]) -> list[str]:
    where, how = document["environment"], document["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    return [
        f"{where['when']}; {where['cpu']}, {where['cores']} cores ({where['budget']}), {where['system']}; "
        f"Python {where['python']}, {packages}.",
        f"Load average before: {', '.join(map(str, where['load_average_before']))}; "
        f"taken by other machines of the host: {where['stolen_percent']} % of the time. "
        f"{how['threads']} threads for both sides, {how['rounds']} rounds of {how['seconds']:g} s.",
    ]


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if place < _LEFT_ALIGNED else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def piped(heads: Sequence[str], rows: Sequence[Sequence[str]], left_aligned: int = _LEFT_ALIGNED) -> str:
    """A Markdown table."""
    rule = ["---" if place < left_aligned else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))
