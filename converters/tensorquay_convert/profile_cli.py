"""`tensorquay profile`: the command line of profiles. Words what was found; decides nothing.

Exit codes are `errors.ExitCode`, and 130 or 143 when a signal ended it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensorquay_convert.command_line import (
    EXIT_CODES,
    MEMORY_LIMIT,
    OUTPUT,
    REPOSITORY,
    carry_out,
    console,
    facts,
    plain,
    read_seconds,
    read_sizes,
    repository_of,
    show,
    with_options,
)
from tensorquay_convert.progress import Silence

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tensorquay_convert.profile.command import Asked, ProfileResult
    from tensorquay_convert.profile.results import Operators, Profile

_SIZE = re.compile(r"(?P<axis>[A-Za-z_][A-Za-z0-9_.-]{0,63})=(?P<size>[0-9]{1,7})")
_MOST_THREADS = 1024
_MOST_OPERATORS = 15
_MOST_NODES = 10


def _read_axes(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        match = _SIZE.fullmatch(text)
        if match is None or int(match["size"]) == 0:
            raise click.BadParameter(f"'{text}': expected AXIS=SIZE, as in seq=128")
        found[match["axis"]] = int(match["size"])
    return found


def _read_threads(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
    found = read_sizes(ctx, option, text)
    if any(each > _MOST_THREADS for each in found):
        raise click.BadParameter(f"'{text}': expected at most {_MOST_THREADS} threads")
    return found


_OPTIONS: tuple[Callable[..., Any], ...] = (
    click.argument("model"),
    REPOSITORY,
    click.option("--version", type=click.IntRange(1, 2**63 - 1), help="Version of the model; else the highest."),
    click.option("--data", multiple=True, metavar="FILE", help="Inputs (npz, npy, json, images); repeatable."),
    click.option(
        "--batch",
        "batches",
        default="1,2,4,8,16,32",
        show_default=True,
        callback=read_sizes,
        metavar="N,…",
        help="Batch sizes to measure.",
    ),
    click.option(
        "--threads",
        callback=_read_threads,
        metavar="N,…",
        help="Thread counts to measure; else 1 to the usable processors (powers of two above 8).",
    ),
    click.option(
        "--provider",
        type=click.Choice(["cpu", "cuda", "tensorrt"]),
        default="cpu",
        show_default=True,
        help="Execution provider to run on.",
    ),
    click.option(
        "--size",
        "--sizes",
        "sizes",
        multiple=True,
        callback=_read_axes,
        metavar="AXIS=N",
        help="The size of another dynamic axis, as in seq=128; repeatable.",
    ),
    click.option(
        "--seconds",
        default="20s",
        show_default=True,
        callback=read_seconds,
        metavar="TIME",
        help="Time for measuring; loading comes on top.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of drawn inputs, and of the order."),
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for profile.html, profile.json and trace.json.",
    ),
    click.option(
        "--trace",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File for the trace (Chrome's format, for Perfetto).",
    ),
    click.option(
        "--timeout",
        default="15m",
        show_default=True,
        callback=read_seconds,
        metavar="TIME",
        help="Longest time of all of it.",
    ),
    MEMORY_LIMIT,
    *OUTPUT,
)


@click.command(
    "profile",
    short_help="Measure where a model's time goes, and which batch size and threads are best.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@with_options(_OPTIONS)
@click.pass_context
def profile(ctx: click.Context, /, **given: Any) -> None:
    """Measure MODEL on this machine: time by operator and node, what runs where, memory, batch sizes, thread counts.

    MODEL is an ONNX file, a folder of one, or NAME or NAME:VERSION of the repository. Nothing in it is changed.
    """
    ctx.exit(carry_out("profile", given, lambda listener: _work(given, listener)))


def _work(given: Mapping[str, Any], listener: Silence) -> Callable[[], None]:
    # `--help` must not wait for the runtime.
    from tensorquay_convert.profile import command  # noqa: PLC0415

    result = command.profile(_asked(given), listener)
    if given["as_json"]:
        return lambda: click.echo(json.dumps(result.to_json(), ensure_ascii=False))
    return (lambda: None) if given["quiet"] else lambda: _show(result)


def _asked(given: Mapping[str, Any]) -> Asked:
    from tensorquay_convert.isolation import Limits  # noqa: PLC0415 - idem
    from tensorquay_convert.profile.command import Asked  # noqa: PLC0415

    same = ("model", "version", "data", "batches", "threads", "provider", "sizes", "seconds", "seed", "report", "trace")
    return Asked(
        **{name: given[name] for name in same}, repository=repository_of(given),
        limits=Limits(given["timeout"], given["memory_limit"]), command=tuple(sys.argv),
    )  # fmt: skip


def _show(result: ProfileResult) -> None:
    """The profile for people: what is best, where the time goes, what it takes, and what to set."""
    from tensorquay_convert.optimize.report import words  # noqa: PLC0415 - only who reads the result needs it

    found, out = result.profile, console()
    subject, operators = found.subject, found.operators

    def print_all() -> None:
        version = "" if found.version is None else f" version {found.version}"
        facts(
            out,
            model=[f"{subject.name}{version}: {words.size(subject.bytes)}, operator set {subject.opset}, {found.path}"],
            on=[f"{found.machine.cpu or 'this machine'}, {found.machine.processors} usable, {found.provider}, "
                f"ONNX Runtime {found.machine.onnxruntime}"],
        )  # fmt: skip
        _section(out, "Batch sizes and threads", _curve(found))
        _section(
            out, f"Operators, {operators.point}, {words.counted(operators.threads, 'thread')}", _by_operator(found)
        )
        _section(out, "Nodes", _by_node(operators))
        _section(out, "Memory", _memory(found))
        out.print()
        facts(out, **_remarks(result))

    show(out, print_all)


def _remarks(result: ProfileResult) -> dict[str, Sequence[str]]:
    """What is told in words, under its names; nothing where there is nothing to tell."""
    from tensorquay_convert.optimize.report import words  # noqa: PLC0415 - idem
    from tensorquay_convert.profile.page import overhead  # noqa: PLC0415

    found = result.profile
    operators, best, quick = found.operators, found.advice.throughput, found.advice.latency
    at = f"batch {best.batch}, " if best.batch else ""
    snippet = [line for line in found.advice.snippet.splitlines() if line]
    where = [
        f"{each.provider}: {words.counted(each.nodes, 'node')}, {words.share(each.time_share)} of the time"
        for each in operators.placements
    ]
    said = {
        "load": [
            f"{words.duration(found.memory.load_s)} from files in the system's cache; "
            f"{words.size(found.subject.fp32_weight_bytes)} of weights in FP32"
        ],
        "where": where,
        "run": [
            f"{words.counted(operators.nodes_in_file, 'node')} in the file, "
            f"{sum(each.nodes for each in operators.operators)} in the graph that runs",
            overhead(operators),
            *operators.notes,
        ],
        "note": [*found.left_out, *found.notes],
        "best": [
            f"{at}{words.counted(best.threads, 'thread')}: {words.digits(best.items_s)} items/s, "
            f"{words.duration(best.p50_s)} a run",
            f"alone, {words.counted(quick.threads, 'thread')}: {words.duration(quick.p50_s)}",
        ],
        "advice": list(found.advice.sentences),
        "set": ["in the model's config.toml:", *snippet] if snippet else [],
        "report": [str(each) for each in (result.report, result.trace) if each is not None],
    }
    return {name: lines for name, lines in said.items() if lines}


def _section(out: Console, title: str, table: Table) -> None:
    out.print()
    out.print(plain(title, "bold"))
    out.print(table)


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    from rich.table import Table  # noqa: PLC0415 - idem

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in left:
        table.add_column(head, overflow="fold")
    for head in right:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(plain(str(each)) for each in cells))


def _curve(found: Profile) -> Table:
    from tensorquay_convert.optimize.report import words  # noqa: PLC0415 - idem

    table = _table((), ("batch", "threads", "items/s", "rounds", "p50", "p99", ""))
    best = (found.advice.throughput.batch, found.advice.throughput.threads)
    for each in found.curve.cells:
        spread = f"{words.digits(each.low)} to {words.digits(each.high)}"
        mark = "best" if (each.batch, each.threads) == best else ""
        _row(
            table, each.batch or "none", each.threads, words.digits(each.items_s), spread, words.duration(each.p50_s),
            words.duration(each.p99_s), mark,
        )  # fmt: skip
    return table


def _by_operator(found: Profile) -> Table:
    from tensorquay_convert.optimize.report import words  # noqa: PLC0415 - idem

    operators = found.operators
    table = _table(("operator", "on"), ("nodes", "in the file", "calls", "total", "share", "a call"))
    for each in operators.operators[:_MOST_OPERATORS]:
        _row(
            table, each.operator, each.provider, each.nodes, each.in_file, each.calls, words.duration(each.seconds),
            words.share(each.share), f"{words.digits(each.call_us)} µs",
        )  # fmt: skip
    rest = operators.operators[_MOST_OPERATORS:]
    if rest:
        _row(
            table, f"{len(rest)} others", "", sum(each.nodes for each in rest), "", sum(each.calls for each in rest),
            words.duration(sum(each.seconds for each in rest)), words.share(sum(each.share for each in rest)), "",
        )  # fmt: skip
    return table


def _by_node(operators: Operators) -> Table:
    from tensorquay_convert.optimize.report import words  # noqa: PLC0415 - idem

    table = _table(("node", "operator", "on", "inputs"), ("total", "share", "a call"))
    for each in operators.nodes[:_MOST_NODES]:
        _row(
            table, each.node, each.operator, each.provider, ", ".join(each.shapes), words.duration(each.seconds),
            words.share(each.share), f"{words.digits(each.call_us)} µs",
        )  # fmt: skip
    return table


def _memory(found: Profile) -> Table:
    from tensorquay_convert.optimize.report import words  # noqa: PLC0415 - idem
    from tensorquay_convert.profile.page import memory_rows  # noqa: PLC0415

    table = _table(("resident",), ("then", "at most so far"))
    for name, now, peak in memory_rows(found):
        _row(table, name, words.size(now), words.size(peak))
    return table
