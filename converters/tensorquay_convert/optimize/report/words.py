"""Numbers as people read them: times, sizes, ratios. Pure; nothing for what was not measured."""

from __future__ import annotations

import math

_UNITS = ("B", "kB", "MB", "GB", "TB")


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def duration(seconds: float | None) -> str:
    """Three digits: "68.1 µs", "1.83 ms", "2.04 s"; minutes for long ones: "3 min 4 s"."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if 119.5 <= seconds < 1e9:
        return f"{round(seconds) // 60:,} min {round(seconds) % 60} s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= size * 0.9995:
            return f"{digits(seconds / size)} {unit}"
    return f"{digits(seconds * 1e6)} µs"


def size(count: int | None) -> str:
    """Bytes by powers of a thousand: "1.47 MB"."""
    if count is None:
        return ""
    exact = int(count)
    for unit in _UNITS[:-1]:
        if abs(exact) < 1000 ** (_UNITS.index(unit) + 1):
            share = exact / 1000 ** _UNITS.index(unit)
            return f"{exact} B" if unit == "B" else f"{digits(share)} {unit}"
    # Whole division first: a float has an end, an integer has none.
    return f"{exact // 1000**4:,} TB"


def digits(value: float) -> str:
    """Three digits that count, never an exponent below a million million."""
    if not math.isfinite(value):
        return ""
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    if abs(value) >= 1e12:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.9995 else f"{value:.{2 if abs(value) < 10 else 1}f}"


def ratio(value: float) -> str:
    """How many times: two places, three digits for the slowest."""
    return f"{value:.2f}" if 0.1 <= abs(value) < 10 and math.isfinite(value) else digits(value)


def times(value: float | None) -> str:
    """ "2.31 ×"."""
    return "" if value is None or not math.isfinite(value) else f"{ratio(value)} ×"


def between(low: float | None, high: float | None) -> str:
    """ "2.25 to 2.38"; nothing unless both are known."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{ratio(low)} to {ratio(high)}"


def share(value: float | None, places: int = 1) -> str:
    """A share in percent."""
    return "" if value is None or not math.isfinite(value) else f"{value * 100:.{places}f} %"


def exact(value: float | None) -> str:
    """A cosine or a metric: six digits; what is below 1 is never shown as 1."""
    if value is None or not math.isfinite(value):
        return ""
    said = f"{value:.6g}"
    return ">0.999999" if said == "1" and value < 1 else said


def small(value: float | None) -> str:
    """An error: three digits, powers of ten where it is small."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "infinite"
    return "0" if value == 0 else f"{value:.3g}" if 0.001 <= abs(value) < 1e4 else f"{value:.2e}"


def counted(count: int, one: str, many: str = "") -> str:
    """ "1 variant", "3 variants"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
