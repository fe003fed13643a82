"""The result for a terminal: a table's cells and lines of text, without any markup. Pure; the command line draws them.

All texts are plain: a name from a stranger's model may hold whatever a terminal or a markup would obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tensorquay_convert.optimize.report import views, words
from tensorquay_convert.optimize.report.serving import config_toml
from tensorquay_convert.optimize.report.views import Row
from tensorquay_convert.optimize.results import Outcome, Timing
from tensorquay_convert.report.html import plain

MAX_ROWS = 60
MAX_POINTS = 8
_MAX_CELL = 60
_MAX_LINES = 20


def table(outcome: Outcome) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headers, and a row for each variant that was begun, the winner first, below the baseline.

    A cell has one line for each point where its values differ by point (`at`, p50, p99, items/s, × baseline).
    """
    rows = views.rows(outcome)
    points = views.points(outcome)[:MAX_POINTS]
    begun = [each for each in rows if views.tried(each)]
    headers = (
        "variant", "verdict", views.scored_by(outcome), "at", "p50", "p99", "items/s", "× there", "answers",
        "max error", "size", "fused, quantized",
    )  # fmt: skip
    found = [_baseline(outcome, begun, points), *(_row(each, points) for each in begun[:MAX_ROWS])]
    return headers, tuple(found)


def lines(outcome: Outcome) -> tuple[str, ...]:
    """What is said beside the table: the result, warnings, noise, why each variant did not win, settings."""
    rows = views.rows(outcome)
    begun = [each for each in rows if views.tried(each)]
    found = [plain(outcome.sentence)] if outcome.sentence else []
    found += [f"warning: {plain(each)}" for each in _bounded(views.warnings(outcome))]
    band = views.noise(outcome)
    if band is not None:
        found.append(f"noise: ± {words.share(band[1] - 1)}, from the model against itself")
    left = len(begun) - MAX_ROWS
    if left > 0:
        found.append(f"{words.counted(left, 'more variant')} in the report")
    found += _bounded([_why(row) for row in rows if row.trial.reason or not views.tried(row)])
    settings = config_toml(outcome.settings) if outcome.winner else ""
    if settings:
        found += ["settings to serve it with, in config.toml:"]
        found += [f"  {plain(each)}" for each in settings.splitlines()]
    return tuple(found)


def _row(row: Row, points: Sequence[str]) -> tuple[str, ...]:
    trial = row.trial
    timings = [found for each in points if (found := views.at(trial.timings, each)) is not None]
    return (
        plain(row.name, _MAX_CELL),
        trial.verdict.value,
        words.times(trial.score),
        _lines(plain(each.point, 30) for each in timings),
        _lines(words.duration(each.p50) for each in timings),
        _lines(words.duration(each.p99) for each in timings),
        _lines(words.digits(each.items_s) for each in timings),
        _lines(_ratio(each) for each in timings),
        _lines(plain(each, _MAX_CELL) for each in views.answers(trial.judgement)),
        views.max_error(trial.judgement),
        words.size(trial.bytes),
        f"{views.fused(trial):,}, {views.quantized(trial):,}" if trial.passes else "",
    )


def _baseline(outcome: Outcome, begun: Sequence[Row], points: Sequence[str]) -> tuple[str, ...]:
    timings = [found for each in points if (found := views.baseline_at(outcome, begun, each)) is not None]
    return (
        plain(views.baseline_name(outcome), _MAX_CELL),
        "baseline",
        "1.00 ×",
        _lines(plain(each.point, 30) for each in timings),
        _lines(words.duration(each.baseline_p50) for each in timings),
        _lines(words.duration(each.baseline_p99) for each in timings),
        _lines(views.rows_per_second(each, baseline=True) for each in timings),
        "",
        plain(views.baseline_metric(begun), _MAX_CELL),
        "",
        words.size(outcome.subject.bytes),
        "",
    )


def _ratio(timing: Timing) -> str:
    bounds = words.between(timing.low, timing.high)
    return f"{words.times(timing.ratio)} ({bounds})" if bounds else words.times(timing.ratio)


def _why(row: Row) -> str:
    reason = plain(row.trial.reason, 200) or "no reason was kept"
    return f"{row.trial.verdict.value}: {plain(row.name, 120)}: {reason}"


def _lines(cells: Iterable[str]) -> str:
    return "\n".join(cells)


def _bounded(items: Sequence[str]) -> list[str]:
    found = list(items)
    return found if len(found) <= _MAX_LINES else [*found[:_MAX_LINES], f"{len(found) - _MAX_LINES} more in the report"]
