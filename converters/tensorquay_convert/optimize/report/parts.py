"""The tables of the page: variants, passes, gate, timings, what was not tried. Pure: values in, markup out."""

from __future__ import annotations

from collections.abc import Sequence

from tensorquay_convert.optimize.report import views, words
from tensorquay_convert.optimize.report.views import Row
from tensorquay_convert.optimize.results import Judgement, Outcome, OutputAgreement, Timing, Trial, Verdict
from tensorquay_convert.report import html

MAX_VARIANTS = 100
MAX_POINTS = 6
"""Points with a column; the table of timings has all."""
MAX_ROWS = 400
_MAX_NAMES = 6
_EMPTY = '<td class="n"></td>'


def variants(outcome: Outcome, rows: Sequence[Row]) -> str:
    """Every variant that was begun, below the baseline: speed, times, answers, size, what became of it."""
    points = views.points(outcome)[:MAX_POINTS]
    begun = [each for each in rows if views.tried(each)]
    found = [_baseline(outcome, begun, points)]
    for row in begun[:MAX_VARIANTS]:
        trial = row.trial
        spread = words.between(trial.score_low, trial.score_high)
        found.append([
            html.number_cell(row.number),
            _name(row),
            _verdict(row),
            _stacked("n", words.times(trial.score), spread),
            *(_times(views.at(trial.timings, point)) for point in points),
            _stacked("n", *views.answers(trial.judgement)),
            html.number_cell(views.max_error(trial.judgement)),
            html.number_cell(words.size(trial.bytes)),
            _stacked("n", _nodes(trial), _providers(trial)),
        ])  # fmt: skip
    head = ("", "variant", "verdict", views.scored_by(outcome), *points, "answers", "max error", "size", "nodes")
    left = len(begun) - MAX_VARIANTS
    more = f"<p>{words.counted(left, 'more variant')} in optimization.json.</p>" if left > 0 else ""
    caption = "At each point: median of one run, below it the 99th percentile and rows per second"
    # The baseline is the first row.
    won = {at + 1 for at, row in enumerate(begun[:MAX_VARIANTS]) if row.won}
    table = html.table(head, found, caption, won)
    return f"<section><h2>Variants</h2>{html.wide(table, 'Table of variants')}{more}</section>"


def passes(rows: Sequence[Row]) -> str:
    """What each pass of each variant did."""
    found = [
        [
            html.cell(row.label),
            html.cell(each.name),
            _stacked("t", each.summary if each.changed else f"changed nothing: {each.summary}", "; ".join(each.notes)),
            html.cell(_few([f"{count:,} {name}" for name, count in each.fused.items()])),
            html.number_cell(f"{each.quantized:,}" if each.quantized else ""),
            html.cell(_few(list(each.kept))),
            html.number_cell(words.duration(each.seconds)),
        ]
        for row in rows
        for each in row.trial.passes
    ]
    head = ("variant", "pass", "what it did", "fused", "quantized", "kept in FP32", "took")
    return _section("What each pass did", head, found, "Passes in the order they were applied")


def gate(rows: Sequence[Row]) -> str:
    """Every output of every judged variant, and what failed."""
    judged = [(row, judgement) for row in rows if (judgement := row.trial.judgement) is not None]
    found = [
        [
            html.cell(row.label),
            html.cell(each.name),
            *map(
                html.number_cell,
                (
                    words.exact(each.cosine), words.exact(each.min_cosine), words.small(each.max_error),
                    words.small(each.mean_error), words.share(each.relative_error, 3), words.share(each.top1, 2),
                ),
            ),
            html.said_cell(_what_failed(each, judgement), "" if judgement.failed else "passed"),
        ]
        for row, judgement in judged
        for each in judgement.outputs
    ]  # fmt: skip
    rules = list(dict.fromkeys(each.rule for _, each in judged if each.rule))
    asked = f"<p>Asked: {html.text('; '.join(rules[:4]), 1200)}.</p>" if rules else ""
    failed = [f"{row.label}: {said}" for row, judgement in judged for said in judgement.failed]
    wrong = ""
    if failed:
        shown = [
            *failed[:MAX_VARIANTS],
            *([f"{len(failed) - MAX_VARIANTS} more"] if len(failed) > MAX_VARIANTS else []),
        ]
        wrong = f"<h3>What failed the gate</h3>{html.bullets(shown)}"
    head = (
        "variant", "output", "cosine", "worst row", "max error", "mean error", "relative", "top-1 same", "gate",
    )  # fmt: skip
    samples = max((each.samples for _, each in judged), default=0)
    caption = f"Against the model before, over {words.counted(samples, 'sample')}"
    return _section("The gate", head, found, caption, before=asked, after=wrong)


def timings(outcome: Outcome, rows: Sequence[Row]) -> str:
    """Every timing of every variant, the baseline against itself first."""
    found = [['<td class="t">the baseline against itself</td>', *_timing(each)] for each in outcome.noise]
    found += [
        [html.cell(row.label), *_timing(each)] for row in rows for each in row.trial.timings
    ]  # fmt: skip
    head = (
        "variant", "at", "× baseline", "bounds", "p50", "p99", "baseline p50", "baseline p99", "rows/s", "sittings",
    )  # fmt: skip
    caption = (
        "Medians over sittings, each a process that runs baseline and variant by turns. Bounds: where one more sitting "
        "is expected, with 95 %"
    )
    return _section("Timings", head, found, caption, folded=True)


def not_tried(rows: Sequence[Row]) -> str:
    """Variants that were left out, and why."""
    found = [
        [
            html.number_cell(row.number),
            html.cell(row.name),
            html.cell(row.trial.variant.family.value),
            _reason(row.trial),
        ]
        for row in rows
        if not views.tried(row)
    ]
    return _section("Not tried", ("", "variant", "family", "why"), found, "")


def _section(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str,
    *, before: str = "", after: str = "", folded: bool = False,
) -> str:  # fmt: skip
    """A section with one table; nothing without rows."""
    if not rows:
        return f"<section><h2>{title}</h2>{before}{after}</section>" if after else ""
    left = len(rows) - MAX_ROWS
    more = f"<p>{words.counted(left, 'more row')} in optimization.json.</p>" if left > 0 else ""
    table = html.wide(html.table(head, rows[:MAX_ROWS], caption), f"Table: {title}")
    if folded:
        table = f"<details><summary>{words.counted(len(rows), 'row')}</summary>{table}</details>"
    return f"<section><h2>{title}</h2>{before}{table}{more}{after}</section>"


def _baseline(outcome: Outcome, begun: Sequence[Row], points: Sequence[str]) -> list[str]:
    """The model as it came, timed against itself; else as the variants found it."""
    band = views.noise(outcome)
    spread = words.between(*band) if band is not None else ""
    trial = views.baseline(outcome)
    times = [views.baseline_at(outcome, begun, point) for point in points]
    return [
        _EMPTY,
        html.cell(views.baseline_name(outcome)),
        '<td class="t">baseline</td>',
        _stacked("n", "1.00 ×", spread),
        *(_times(each, baseline=True) for each in times),
        html.cell(views.baseline_metric(begun)),
        _EMPTY,
        html.number_cell(words.size(outcome.subject.bytes)),
        _stacked("n", f"{outcome.subject.nodes:,}", _providers(trial) if trial is not None else ""),
    ]


def _what_failed(output: OutputAgreement, judgement: Judgement) -> str:
    if output.problem:
        return output.problem
    if output.nonfinite:
        return f"{output.nonfinite:,} NaN or infinite"
    # The gate's sentences name the output that they are about.
    return "failed" if any(f"'{output.name}'" in each for each in judgement.failed) else ""


def _times(timing: Timing | None, *, baseline: bool = False) -> str:
    if timing is None:
        return _EMPTY
    p50, p99 = (timing.baseline_p50, timing.baseline_p99) if baseline else (timing.p50, timing.p99)
    rows = views.rows_per_second(timing, baseline=baseline)
    below = " · ".join(each for each in (words.duration(p99), f"{rows}/s" if rows else "") if each)
    return _stacked("n", words.duration(p50), below)


def _timing(timing: Timing) -> list[str]:
    found = (
        timing.point, words.times(timing.ratio), words.between(timing.low, timing.high), words.duration(timing.p50),
        words.duration(timing.p99), words.duration(timing.baseline_p50), words.duration(timing.baseline_p99),
        words.digits(timing.items_s), f"{timing.sittings:,}",
    )  # fmt: skip
    return [html.number_cell(each) for each in found]


def _name(row: Row) -> str:
    family = row.trial.variant.family.value
    return f'<td class="t">{html.text(row.name, 120)}<br><small>{html.text(family)}</small></td>'


def _verdict(row: Row) -> str:
    trial = row.trial
    kind = {Verdict.WON: "ok", Verdict.INACCURATE: "no", Verdict.FAILED: "no"}.get(trial.verdict, "")
    why = f"<br><small>{html.text(trial.reason, 300)}</small>" if trial.reason else ""
    return f'<td class="t why"><span class="{kind}">{html.text(trial.verdict.value)}</span>{why}</td>'


def _reason(trial: Trial) -> str:
    return f'<td class="t why">{html.text(trial.reason)}</td>'


def _nodes(trial: Trial) -> str:
    parts = []
    if count := views.fused(trial):
        parts.append(f"{count:,} fused")
    if count := views.quantized(trial):
        parts.append(f"{count:,} quantized")
    return ", ".join(parts)


def _providers(trial: Trial) -> str:
    return _few([f"{count:,} {name.removesuffix('ExecutionProvider')}" for name, count in trial.nodes.items()])


def _stacked(kind: str, first: str = "", *below: str) -> str:
    """A cell with lines below in small."""
    lines = "".join(f"<br><small>{html.text(each)}</small>" for each in below if each)
    return f'<td class="{kind}">{html.text(first, 400)}{lines}</td>'


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
