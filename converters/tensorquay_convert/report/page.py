"""The report of an import as one HTML page a person can read: no script, no other file, nothing fetched.

Every name and text in it may come from a stranger's model: all of it goes through `html.py`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensorquay_convert.proof.summary import number, verdict
from tensorquay_convert.proof.verification import Case, Comparison, Verification
from tensorquay_convert.report import html, plots

MAX_OUTPUTS = 12
"""Outputs with plots; the tables have all of them."""
MAX_ROWS = 400


def render(provenance: Mapping[str, Any], verification: Verification) -> str:
    """The page.

    Args: provenance: what `provenance.json` holds; whatever is missing in it is left out.
    """
    model = html.text(provenance.get("model") or "a model")
    source = provenance.get("source")
    shown = source.get("shown", "") if isinstance(source, Mapping) else ""
    body = [
        f"<h1>Import of {model}</h1>",
        f'<p class="sub">{html.text(shown)}{" · " if shown else ""}{html.text(provenance.get("imported_at", ""))}</p>',
        _verdict(verification),
        _what_is_wrong(verification),
        _plots(verification),
        _axes(verification),
        _cases(verification),
        _notes(verification),
        _provenance(provenance, verification),
    ]
    title = f"Import of {provenance.get('model') or 'a model'}: {'passed' if verification.passed else 'refused'}"
    return html.document(title, body)


def _verdict(verification: Verification) -> str:
    kind, word = ("passed", "Passed") if verification.passed else ("failed", "Refused")
    return (
        f'<section class="verdict {kind}" aria-label="Verdict"><strong>{word}</strong>'
        f"{html.sentence(verdict(verification))}</section>"
    )


def _what_is_wrong(verification: Verification) -> str:
    if verification.passed:
        return ""
    parts = [
        "<section><h2>What is wrong</h2>",
        html.bullets(each[:1].upper() + each[1:] for each in verification.problems),
    ]
    if verification.culprit is not None:
        culprit = verification.culprit
        sure = "confirmed" if culprit.confirmed else "likely"
        parts.append(
            f"<h3>Where it comes from ({sure})</h3><p><code>{html.text(culprit.node)}</code> "
            f"({html.text(culprit.operator)})</p><p>{html.sentence(culprit.sentence, 1500)}</p>"
        )
        if culprit.source_line:
            parts.append(f"<p>In the model's source: <code>{html.text(culprit.source_line)}</code></p>")
    if verification.advice:
        parts.append(f"<h3>What to try</h3><p>{html.sentence(verification.advice)}</p>")
    return "".join(parts) + "</section>"


def _plots(verification: Verification) -> str:
    names = list(dict.fromkeys(each.output for case in verification.cases for each in case.comparisons))
    if not names:
        return ""
    wrong = {each.output for case in verification.cases for each in case.comparisons if not each.within}
    names.sort(key=lambda name: name not in wrong)
    samples = {each.output: each for each in verification.samples}
    parts = [
        "<section><h2>How far the outputs are off</h2>"
        '<p class="sub keys"><span><span class="key round"></span>within its tolerance</span> '
        '<span><span class="key diamond"></span>out of it</span> '
        '<span><span class="key tick"></span>the tolerance</span></p>'
    ]
    for at, name in enumerate(names[:MAX_OUTPUTS]):
        parts.append(
            f'<h3>{html.text(name)}</h3><figure class="wide" tabindex="0" aria-label="Errors by case">'
            f"{plots.errors(name, verification.cases, f'errors-{at}')}<figcaption>Largest absolute error in each case"
            "</figcaption></figure>"
        )
        sample = samples.get(name)
        if sample is not None:
            case = html.text(sample.case, 80)
            parts.append(
                f'<div class="plots"><figure>{plots.scatter(sample, f"scatter-{at}")}<figcaption>Case “{case}”, the '
                f"worst one: equal values lie on the line</figcaption></figure><figure>"
                f"{plots.histogram(sample, f'histogram-{at}')}<figcaption>Case “{case}”: entries by their error, "
                "from this power of ten up (heights by square root)"
                "</figcaption></figure></div>"
            )
    if len(names) > MAX_OUTPUTS:
        parts.append(f"<p>{len(names) - MAX_OUTPUTS} more outputs are in the table only.</p>")
    return "".join(parts) + "</section>"


def _axes(verification: Verification) -> str:
    if not verification.axes:
        return ""
    rows = [
        [
            html.cell(axis.name),
            html.cell(", ".join(axis.tensors)),
            html.cell(", ".join(map(str, axis.sizes)) or "none"),
            html.said_cell(axis.problem, "dynamic")
            if axis.dynamic or axis.problem
            else html.cell("not shown to be dynamic"),
        ]
        for axis in verification.axes
    ]
    head = ("axis", "inputs and outputs", "sizes with right answers", "")
    listing = html.wide(html.table(head, rows, "Each was run at these sizes"), "Table of dynamic axes")
    return f"<section><h2>Dynamic axes</h2>{listing}</section>"


def _cases(verification: Verification) -> str:
    rows = []
    for case in verification.cases:
        if not case.comparisons:
            said = (
                f'<td class="t">{html.text(case.problem)}</td>'
                if case.outside
                else html.said_cell(case.problem or "not run", "")
            )
            rows.append([_case(case), *['<td class="n"></td>'] * 7, said])
        rows += [[_case(case), *_compared(each)] for each in case.comparisons]
    left = len(rows) - MAX_ROWS
    head = ("case", "output", "shape", "max abs error", "allowed", "max rel error", "cosine", "top-1", "")
    caption = f"{len(verification.cases)} cases; seed {verification.seed}; {verification.runtime}"
    more = f"<p>{left} more rows are in verification.json.</p>" if left > 0 else ""
    table = html.wide(html.table(head, rows[:MAX_ROWS], caption), "Table of cases")
    return f"<section><h2>Cases</h2>{table}{more}</section>"


def _case(case: Case) -> str:
    sizes = ", ".join(f"{axis}={size}" for axis, size in case.sizes.items())
    small = f"<br><small>{html.text(sizes, 200)}</small>" if sizes else ""
    return f'<td class="t">{html.text(case.name, 120)}{small}</td>'


def _compared(each: Comparison) -> list[str]:
    there = each.expected_there
    allowed = each.atol + (each.rtol * abs(there) if isinstance(there, float) and math.isfinite(there) else 0.0)
    numbers = (
        number(each.max_absolute),
        number(allowed) if not math.isnan(each.max_absolute) else "",
        number(each.max_relative),
        "" if each.cosine is None else f"{each.cosine:.6f}",
        "" if each.top1 is None else f"{each.top1:.1%}",
    )
    shape = "×".join(map(str, each.shape)) or "scalar"
    cells = "".join(f'<td class="n">{html.text(value)}</td>' for value in numbers)
    return [
        html.cell(each.output),
        f'<td class="n">{html.text(shape)}</td>',
        cells,
        html.said_cell(each.problem, "within"),
    ]


def _notes(verification: Verification) -> str:
    inputs = (
        "Inputs of your own were among the cases."
        if verification.real_inputs
        else "All inputs were drawn from a seed: give real ones with --example for a proof on your own data."
    )
    return f"<section><h2>Notes</h2>{html.bullets([inputs, *verification.notes])}</section>"


def _provenance(provenance: Mapping[str, Any], verification: Verification) -> str:
    facts: list[tuple[str, Any]] = []
    for part in ("source", "conversion", "environment", "resources", "settings"):
        value = provenance.get(part)
        if isinstance(value, Mapping):
            facts += [(f"{part}: {key}", each) for key, each in value.items() if each not in (None, "", [], {})]
    for part in ("tensorquay", "schema", "command"):
        if provenance.get(part):
            facts.append((part, provenance[part]))
    facts.append(("proof took", f"{verification.seconds:.1f} s"))
    listed = html.facts((name.replace("_", " "), html.values(value)) for name, value in facts)
    files = provenance.get("files")
    table = ""
    if isinstance(files, Sequence) and not isinstance(files, str | bytes):
        rows = [
            [html.cell(each.get("path", "")), f'<td class="n">{html.text(each.get("bytes", ""))}</td>',
             f'<td class="t"><code>{html.text(each.get("sha256", ""))}</code></td>']
            for each in files if isinstance(each, Mapping)
        ][:MAX_ROWS]  # fmt: skip
        if rows:
            listing = html.table(("file", "bytes", "SHA-256"), rows, "")
            table = f"<h3>Files</h3>{html.wide(listing, 'Table of files')}"
    return f"<section><h2>Provenance</h2>{listed}{table}</section>"
