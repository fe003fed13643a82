"""The report of an optimisation as one HTML page a person can read: no script, no other file, nothing fetched.

Every name and text in it may come from a stranger's model: all of it goes through `report.html`, which escapes it.
The whole of what is shown is in `optimization.json`; what is too long here is cut, and said to be.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorquay_convert.optimize.report import parts, plots, record, views, words
from tensorquay_convert.optimize.report.serving import config_toml
from tensorquay_convert.optimize.report.views import Loss, Row
from tensorquay_convert.optimize.results import Outcome
from tensorquay_convert.report import html

MAX_NOTES = 40
_MAX_OPERATORS = 20
_MAX_TENSORS = 20


def render(described: Mapping[str, Any], outcome: Outcome | None = None) -> str:
    """The page.

    Args:
        described: what `optimization.json` holds; what is missing in its head is left out.
        outcome: what it describes, where that is at hand; else it is read from `described`.
    Raises: ValueError when `described` is no record, and is needed.
    """
    return _page(described, record.read(described) if outcome is None else outcome)


def _page(described: Mapping[str, Any], outcome: Outcome) -> str:
    rows = views.rows(outcome)
    won = views.winner(rows)
    loss = views.loss(outcome)
    model = described.get("model") or outcome.subject.name or "a model"
    shown = [described.get("at"), outcome.machine.cpu, f"ONNX Runtime {outcome.machine.onnxruntime}"]
    body = [
        f"<h1>Optimization of {html.text(model, 200)}</h1>",
        f'<p class="sub">{html.text(" · ".join(str(each) for each in shown if each))}</p>',
        _verdict(outcome, won),
        _warnings(outcome),
        _glance(outcome, rows, won),
        parts.variants(outcome, rows),
        _front(outcome, rows, loss),
        _curves(outcome, rows),
        _sensitivity(outcome),
        parts.passes(rows),
        parts.gate(rows),
        parts.timings(outcome, rows),
        _data(outcome),
        _serving(outcome, won),
        parts.not_tried(rows),
        _machine(outcome),
        _provenance(described, outcome),
    ]
    return html.document(f"Optimization of {model}: {_result(outcome, won)}", body)


def _result(outcome: Outcome, won: Row | None) -> str:
    if won is not None:
        return f"{won.name} won"
    return f"{outcome.winner} won" if outcome.winner else "left as it was"


def _verdict(outcome: Outcome, won: Row | None) -> str:
    sentence = html.sentence(outcome.sentence.rstrip(".")) if outcome.sentence else ""
    if won is None and not outcome.winner:
        return f'<section class="verdict same" aria-label="Verdict"><strong>Left as it was</strong>{sentence}</section>'
    name = html.text(won.name if won is not None else outcome.winner, 200)
    score = words.times(won.trial.score) if won is not None else ""
    than = "smaller" if views.by_size(outcome) else "as fast"
    return (
        f'<section class="verdict passed" aria-label="Verdict"><strong>{name}'
        f"{f': {html.text(score)} {than}' if score else ''}</strong>{sentence}</section>"
    )


def _warnings(outcome: Outcome) -> str:
    found = views.warnings(outcome)
    if not found:
        return ""
    strong = "Mind this" if outcome.data.real else "Accuracy was not judged on real data"
    said = f"<p>{html.sentence(found[0].rstrip('.'))}</p>" if len(found) == 1 else html.bullets(_bounded(found))
    return f'<section class="verdict warn" aria-label="Warnings"><strong>{strong}</strong>{said}</section>'


def _glance(outcome: Outcome, rows: Sequence[Row], won: Row | None) -> str:
    pairs: list[tuple[str, str]] = []
    if won is not None:
        trial = won.trial
        bounds = words.between(trial.score_low, trial.score_high)
        speed = " ".join(each for each in (words.times(trial.score), f"({bounds})" if bounds else "") if each)
        pairs.append((views.scored_by(outcome), html.text(speed)))
        metric = views.metric(trial.judgement)
        if trial.judgement is not None and metric:
            metric += f", was {words.exact(trial.judgement.metric_baseline)}"
        pairs.append(
            ("answers", html.text(", ".join(each for each in (metric, *views.likeness(trial.judgement)) if each)))
        )
        if trial.bytes is not None:
            pairs.append(("size", html.text(f"{words.size(trial.bytes)}, was {words.size(outcome.subject.bytes)}")))
    band = views.noise(outcome)
    if band is not None:
        pairs.append(
            ("noise", html.text(f"± {words.share(band[1] - 1)}: on this machine, less than that means nothing"))
        )
    begun = sum(views.tried(each) for each in rows)
    left = f", {len(rows) - begun} not tried" if begun < len(rows) else ""
    pairs.append(("variants", html.text(f"{begun} tried{left}; it took {words.duration(outcome.seconds) or '0 s'}")))
    pairs = [(name, said) for name, said in pairs if said]
    return f"<section><h2>At a glance</h2>{html.facts(pairs)}</section>"


def _front(outcome: Outcome, rows: Sequence[Row], loss: Loss) -> str:
    drawn = plots.front(outcome, rows, loss, "front")
    if not drawn:
        return ""
    said = (
        "Scores by the objective with their bounds, numbers as in the table. Loss is that of the worst output; the "
        "gate may ask for more than this line"
    )
    what = "Size and accuracy" if views.by_size(outcome) else "Speed and accuracy"
    return _figure(what, plots.keys(noise=not views.by_size(outcome)), drawn, said)


def _curves(outcome: Outcome, rows: Sequence[Row]) -> str:
    drawn = plots.curves(outcome, rows, "curves")
    if not drawn:
        return ""
    said = "The best variants at each batch, with their bounds. Grey: noise, from the baseline against itself"
    left = len(views.points(outcome)) - plots.MAX_POINTS
    more = f"; {words.counted(left, 'more point')} in the table of timings" if left > 0 else ""
    return _figure("At each batch", "", drawn, said + more)


def _sensitivity(outcome: Outcome) -> str:
    drawn = plots.sensitivity(outcome.sensitivity, "sensitivity")
    if not drawn:
        return ""
    left = len(outcome.sensitivity) - plots.MAX_LAYERS
    kept = sum(not each.quantized for each in outcome.sensitivity)
    more = f"; the {left} that cost least are in optimization.json" if left > 0 else ""
    said = f"{words.counted(len(outcome.sensitivity), 'node')}, {kept} kept in FP32 by mixed precision (hollow){more}"
    return _figure("Sensitivity by layer", "", drawn, said)


def _figure(title: str, before: str, drawn: str, said: str) -> str:
    return (
        f'<section><h2>{title}</h2>{before}<figure class="wide" tabindex="0" aria-label="Plot: {title}">{drawn}'
        f"<figcaption>{html.text(said)}</figcaption></figure></section>"
    )


def _data(outcome: Outcome) -> str:
    data = outcome.data
    where = "files of yours" if data.real else "drawn from a seed, not real"
    pairs = [
        ("inputs", where),
        ("labels", "given" if data.labels else "none"),
        ("judged on", words.counted(data.judging, "sample")),
        ("calibrated on", f"{words.counted(data.calibration, 'other sample')}" if data.calibration else "nothing"),
        ("timed at", ", ".join(each.name for each in data.points[:_MAX_TENSORS]) or "nothing"),
    ]
    notes = html.bullets(_bounded(data.notes)) if data.notes else ""
    return f"<section><h2>Data</h2>{html.facts((a, html.text(b)) for a, b in pairs)}{notes}</section>"


def _serving(outcome: Outcome, won: Row | None) -> str:
    if won is None and not outcome.winner:
        return ""
    lines = config_toml(outcome.settings).splitlines()
    if not lines:
        said = "<p>Nothing has to be set: it was measured with what a server does by itself.</p>"
    else:
        block = "\n".join(html.text(each) for each in lines)
        said = f'<p>In the model’s <code>config.toml</code>:</p><pre tabindex="0"><code>{block}</code></pre>'
    return f"<section><h2>Settings to serve it with</h2>{said}</section>"


def _machine(outcome: Outcome) -> str:
    machine = outcome.machine
    pairs = [
        ("processor", machine.cpu),
        ("features", " ".join(machine.features)),
        ("processors", str(machine.processors)),
        ("ONNX Runtime", machine.onnxruntime),
        ("providers", ", ".join(machine.providers)),
        ("GPU", machine.gpu),
        ("driver", machine.driver),
    ]
    found = html.facts((name, html.text(said)) for name, said in pairs if said)
    note = "What is faster here may not be on another machine: measure again where it will serve."
    return f"<section><h2>Machine</h2>{found}<p>{note}</p></section>"


def _provenance(described: Mapping[str, Any], outcome: Outcome) -> str:
    subject = outcome.subject
    head = ("schema", "tensorquay", "at", "baseline")
    pairs = [(name, html.values(described[name])) for name in head if described.get(name)]
    command = described.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str | bytes) and command:
        pairs.append(("command", f"<code>{html.text(shlex.join(str(each) for each in command), 2000)}</code>"))
    pairs += [
        ("model", html.text(f"opset {subject.opset}, {words.counted(subject.nodes, 'node')}, {_weight(outcome)}")),
        ("SHA-256", f"<code>{html.text(subject.sha256)}</code>" if subject.sha256 else ""),
        ("operators", html.text(_most(subject.operators))),
        ("quantized already", html.text(_most(subject.quantized))),
        ("inputs", html.text(_tensors(subject.inputs), 2000)),
        ("outputs", html.text(_tensors(subject.outputs), 2000)),
        ("batch", "requests can be stacked" if subject.batched else "no batch axis: each request runs by itself"),
        ("asked for", html.values(_given(outcome.goals))),
    ]
    notes = html.bullets(_bounded(subject.notes)) if subject.notes else ""
    found = html.facts((name, said) for name, said in pairs if said)
    return f"<section><h2>Provenance</h2>{found}{notes}</section>"


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not asked for."""
    found = {name: _given(each) if isinstance(each, Mapping) else each for name, each in asked.items()}
    return {name: each for name, each in found.items() if each not in (None, "", [], (), {})}


def _weight(outcome: Outcome) -> str:
    subject = outcome.subject
    beside = ", weights beside the file" if subject.external_data else ""
    return f"{words.size(subject.bytes)} of which {words.size(subject.fp32_weight_bytes)} are weights in FP32{beside}"


def _most(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    more = f" and {len(ordered) - _MAX_OPERATORS} more kinds" if len(ordered) > _MAX_OPERATORS else ""
    return ", ".join(f"{count:,} {name}" for name, count in ordered[:_MAX_OPERATORS]) + more


def _tensors(tensors: Mapping[str, str]) -> str:
    found = [f"{name}: {said}" for name, said in tensors.items()]
    more = f"; {len(found) - _MAX_TENSORS} more" if len(found) > _MAX_TENSORS else ""
    return "; ".join(found[:_MAX_TENSORS]) + more


def _bounded(items: Iterable[str]) -> list[str]:
    found = list(items)
    return (
        found
        if len(found) <= MAX_NOTES
        else [*found[:MAX_NOTES], f"{len(found) - MAX_NOTES} more in optimization.json"]
    )
