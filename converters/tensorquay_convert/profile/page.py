"""A profile as one HTML page a person can read: no script, no other file, nothing fetched.

Names come from strangers' models: all of them go through `report.html`, which escapes them. The whole of what is shown
is in `profile.json`; what is too long here is cut, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorquay_convert.optimize.report import words
from tensorquay_convert.profile import plots
from tensorquay_convert.profile.results import Advice, Cell, Operators, Pick, Profile
from tensorquay_convert.report import html

MOST_ROWS = 60


def render(record: Mapping[str, Any], found: Profile) -> str:
    """The page. `record`: what `profile.json` holds; of it only the head is used."""
    model = found.subject.name if found.version is None else f"{found.subject.name}, version {found.version}"
    shown = [record.get("at"), found.machine.cpu, f"ONNX Runtime {found.machine.onnxruntime}", found.provider]
    body = [
        f"<h1>Profile of {html.text(model, 200)}</h1>",
        f'<p class="sub">{html.text(" · ".join(str(each) for each in shown if each))}</p>',
        _verdict(found.advice),
        _mind(found),
        _best(found),
        _curve(found),
        _operators(found.operators),
        _nodes(found.operators),
        _placements(found.operators),
        _memory(found),
        _facts(record, found),
    ]
    return html.document(f"Profile of {model}", body)


def _verdict(advice: Advice) -> str:
    best = advice.throughput
    strong = "Worth setting" if advice.snippet else "Nothing to set"
    said = "".join(f"<p>{html.sentence(each)}</p>" for each in advice.sentences)
    snippet = "".join(f"<p><code>{html.text(line)}</code></p>" for line in advice.snippet.splitlines() if line)
    return (
        f'<section class="verdict {"passed" if advice.snippet else "same"}" aria-label="Verdict">'
        f"<strong>{strong}: {html.text(words.digits(best.items_s))} items/s</strong>{snippet}{said}</section>"
    )


def _mind(found: Profile) -> str:
    said = [*found.left_out, *found.notes]
    return f"<section><h2>Mind this</h2>{html.bullets(said)}</section>" if said else ""


def _best(found: Profile) -> str:
    advice = found.advice
    rows = [
        _pick_row("most items/s, with the smallest batch and fewest threads that reach 95 % of it", advice.throughput),
        _pick_row("shortest time for the smallest batch", advice.latency),
    ]
    if advice.default is not None:
        rows.append(_pick_row("the default, largest batch", advice.default))
    head = ("", "batch", "threads", "items/s", "one run takes", "of the best")
    return f"<section><h2>What is best here</h2>{html.wide(html.table(head, rows, ''), 'What is best')}</section>"


def _pick_row(what: str, pick: Pick) -> list[str]:
    return [
        html.cell(what), html.number_cell(_batch(pick.batch)), html.number_cell(pick.threads),
        html.number_cell(words.digits(pick.items_s)), html.number_cell(words.duration(pick.p50_s)),
        html.number_cell(words.share(pick.share, 0)),
    ]  # fmt: skip


def _curve(found: Profile) -> str:
    cells = found.curve.cells
    figures = ""
    for drawn, said in (
        (plots.throughput(cells, "throughput"), "Items per second; the lines up and down span the rounds"),
        (plots.latency(cells, "latency"), "Time of one run: median, and up to the 99th percentile"),
    ):
        if drawn:
            figures += html.wide(f"<figure>{drawn}<figcaption>{html.text(said)}</figcaption></figure>", said)
    head = ("batch", "threads", "items/s", "from round to round", "p50", "p99", "runs")
    table = html.table(head, [_cell_row(each) for each in cells[:MOST_ROWS]], f"Measured in {found.curve.order}")
    return f"<section><h2>Batch sizes and threads</h2>{figures}{html.wide(table, 'Batch sizes and threads')}</section>"


def _cell_row(cell: Cell) -> list[str]:
    spread = f"{words.digits(cell.low)} to {words.digits(cell.high)}"
    values = (
        _batch(cell.batch), cell.threads, words.digits(cell.items_s), spread, words.duration(cell.p50_s),
        words.duration(cell.p99_s), f"{cell.runs:,}",
    )  # fmt: skip
    return [html.number_cell(each) for each in values]


def _batch(batch: int) -> str:
    return str(batch) if batch else "none"


def _operators(found: Operators) -> str:
    rows = [
        [
            html.cell(each.operator), html.cell(each.provider), html.number_cell(each.nodes),
            html.number_cell(each.in_file), html.number_cell(words.digits(each.calls / found.runs)),
            html.number_cell(words.duration(each.seconds / found.runs)), html.number_cell(words.share(each.share)),
            html.number_cell(f"{words.digits(each.call_us)} µs"),
        ]
        for each in found.operators[:MOST_ROWS]
    ]  # fmt: skip
    head = ("operator", "on", "nodes", "in the file", "calls a run", "time a run", "share", "a call")
    caption = f"{found.point}, {words.counted(found.threads, 'thread')}, {words.counted(found.runs, 'warm run')}"
    said = [
        f"this is the graph that runs, after the runtime's own fusions: {words.counted(found.nodes_in_file, 'node')} "
        f"in the file, "
        f"{sum(each.nodes for each in found.operators)} that run",
        overhead(found),
        *found.notes,
    ]
    if found.gone:
        gone = ", ".join(f"{count} {name}" for name, count in list(found.gone.items())[:20])
        said.append(f"fused into others, or computed when the model is loaded: {gone}")
    drawn = html.wide(f"<figure>{plots.icicle(found, 'icicle')}</figure>", "Where a run's time goes")
    return (
        f"<section><h2>Where the time goes</h2>{drawn}{html.wide(html.table(head, rows, caption), 'Operators')}"
        f"{html.bullets(said)}</section>"
    )


def overhead(found: Operators) -> str:
    """What profiling costs, in words."""
    bounds = f"{words.share(found.overhead_low)} to {words.share(found.overhead_high)}"
    return (
        f"profiling itself adds {words.share(found.overhead)} to a run ({bounds}): {words.duration(found.run_s)} "
        f"instead of {words.duration(found.plain_run_s)}; {words.share(found.outside)} of a profiled run is in no node"
    )


def _nodes(found: Operators) -> str:
    rows = [
        [
            html.cell(each.node), html.cell(each.operator), html.cell(each.provider), html.cell(", ".join(each.shapes)),
            html.number_cell(words.duration(each.seconds / found.runs)), html.number_cell(words.share(each.share)),
            html.number_cell(f"{words.digits(each.call_us)} µs"), html.number_cell(words.size(each.output_bytes)),
        ]
        for each in found.nodes[:MOST_ROWS]
    ]  # fmt: skip
    more = len(found.nodes) + found.nodes_left_out - len(rows)
    caption = f"The longest first; {more} more are in profile.json" if more else "The longest first"
    head = ("node", "operator", "on", "inputs", "time a run", "share", "a call", "output")
    return f"<section><h2>Nodes</h2>{html.wide(html.table(head, rows, caption), 'Nodes')}</section>"


def _placements(found: Operators) -> str:
    rows = [
        [
            html.cell(each.provider), html.number_cell(each.nodes), html.number_cell(words.share(each.node_share)),
            html.number_cell(words.share(each.time_share)),
        ]
        for each in found.placements
    ]  # fmt: skip
    table = html.table(("provider", "nodes", "share of the nodes", "share of the time"), rows, "")
    return f"<section><h2>What runs where</h2>{html.wide(table, 'What runs where')}</section>"


def _memory(found: Profile) -> str:
    memory = found.memory
    rows = [[html.cell(name), html.number_cell(words.size(now)), html.number_cell(words.size(peak))]
            for name, now, peak in memory_rows(found)]  # fmt: skip
    table = html.table(("resident memory", "then", "at most so far"), rows, "In a process that does nothing else")
    said = f"<p>Loading took {html.text(words.duration(memory.load_s))} from files that were in the system's cache.</p>"
    gpu = "<p>Memory on the GPU is not in these numbers.</p>" if memory.gpu else ""
    return f"<section><h2>Memory</h2>{html.wide(table, 'Memory')}{said}{gpu}</section>"


def memory_rows(found: Profile) -> list[tuple[str, int | None, int | None]]:
    """What, bytes then, bytes at most so far."""
    memory = found.memory
    return [
        ("before the model is loaded", memory.before_bytes, None),
        ("loaded", memory.loaded_bytes, memory.loading_peak_bytes),
        *((f"after a run, {each.point}", each.after_bytes, each.peak_bytes) for each in memory.points),
    ]


def _facts(record: Mapping[str, Any], found: Profile) -> str:
    subject, machine = found.subject, found.machine
    pairs = [
        ("file", f"<code>{html.text(found.path)}</code>, {html.text(words.size(subject.bytes))}"),
        ("SHA-256", f"<code>{html.text(subject.sha256)}</code>"),
        ("weights", html.text(f"{words.size(subject.fp32_weight_bytes)} in FP32")),
        ("operator set", html.text(subject.opset)),
        ("inputs", html.values([f"{name}: {shape}" for name, shape in subject.inputs.items()])),
        ("outputs", html.values([f"{name}: {shape}" for name, shape in subject.outputs.items()])),
        ("processor", html.text(f"{machine.cpu}, {machine.processors} usable, {' '.join(machine.features)}")),
        ("GPU", html.text(" ".join(each for each in (machine.gpu, machine.driver) if each))),
        ("providers", html.values(list(machine.providers))),
        ("Tensorquay", html.text(record.get("tensorquay", ""))),
        ("command", html.values(list(record.get("command", ())))),
        ("took", html.text(words.duration(found.seconds))),
    ]
    return f"<section><h2>What was measured</h2>{html.facts([(a, b) for a, b in pairs if b])}</section>"
