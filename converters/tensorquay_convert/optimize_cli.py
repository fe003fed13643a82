"""`tensorquay optimize`: the command line of optimisations. Words what happened; decides nothing.

Exit codes are `errors.ExitCode`, and 130 or 143 when a signal ended it. That nothing is faster is a result: 0.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
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
from tensorquay_convert.optimize.goals import GateRules, Goals, Metric, Objective
from tensorquay_convert.optimize.variants import Family
from tensorquay_convert.progress import Silence

if TYPE_CHECKING:
    from tensorquay_convert.optimize.command import Asked, OptimizeResult

_SHARE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<percent>%?)")
_SIZE = re.compile(r"(?P<axis>[A-Za-z_][A-Za-z0-9_.-]{0,63})=(?P<sizes>[0-9]{1,7}(?:,[0-9]{1,7}){0,7})")
_FAMILIES = [each.value for each in Family if each is not Family.BASELINE]


def read_share(_ctx: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """A callback: "0.5%" as 0.005."""
    if text is None:
        return None
    match = _SHARE.fullmatch(text.strip())
    value = float(match["number"]) / (100 if match["percent"] else 1) if match is not None else -1.0
    if not 0 <= value <= 1:
        raise click.BadParameter(f"'{text}': expected a share, as in 0.5% or 0.005")
    return value


def _read_axes(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = _SIZE.fullmatch(text)
        sizes = tuple(sorted({int(each) for each in match["sizes"].split(",")})) if match is not None else (0,)
        if match is None or 0 in sizes:
            raise click.BadParameter(f"'{text}': expected AXIS=SIZE,…, as in seq=16,128")
        found[match["axis"]] = sizes
    return found


def _lower(kind: type[Objective] | type[Metric]) -> Callable[..., Any]:
    def read(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Any:
        return None if text is None else kind(text)

    return read


DATA = (
    click.option("--data", multiple=True, metavar="FILE", help="Samples (npz, npy, json, images); repeatable."),
    click.option("--labels", default="", metavar="FILE", help="One label for each sample (npy, npz, txt, csv)."),
    click.option(
        "--max-drop", metavar="SHARE", callback=read_share, help="Most that the metric may lose.  [default: 0.5%]"
    ),
)
TIME_BUDGET = click.option(
    "--time-budget",
    default="5m",
    show_default=True,
    callback=read_seconds,
    metavar="TIME",
    help="Time after which no new variant is begun.",
)
_OPTIONS: tuple[Callable[..., Any], ...] = (
    click.argument("model"),
    REPOSITORY,
    click.option("--version", type=click.IntRange(1, 2**63 - 1), help="Version of the model; else the highest."),
    *DATA,
    click.option("--min-cosine", type=click.FloatRange(-1, 1), help="Least mean cosine of an output.  [default: 0.99]"),
    click.option(
        "--metric",
        type=click.Choice([each.value for each in Metric]),
        callback=_lower(Metric),
        help="What --labels judge by; else top1 for classes, rmse for numbers.",
    ),
    click.option("--judge", "output_name", default="", metavar="OUTPUT", help="The output that labels are about."),
    click.option(
        "--batch",
        "batches",
        default="1,8,32",
        show_default=True,
        callback=read_sizes,
        metavar="N,…",
        help="Batch sizes that the server will use.",
    ),
    click.option(
        "--size",
        "sizes",
        multiple=True,
        callback=_read_axes,
        metavar="AXIS=N,…",
        help="Sizes of another dynamic axis, as in seq=16,128; repeatable.",
    ),
    click.option(
        "--objective",
        type=click.Choice([each.value for each in Objective]),
        default=Objective.BALANCED.value,
        show_default=True,
        callback=_lower(Objective),
        help="Which batches count; balanced: all, and none may lose.",
    ),
    click.option(
        "--provider",
        type=click.Choice(["cpu", "cuda", "tensorrt"]),
        default="cpu",
        show_default=True,
        help="Execution provider to run on.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(0, 1024),
        default=0,
        show_default=True,
        help="Threads of a run; 0: all usable processors.",
    ),
    click.option(
        "--only", multiple=True, type=click.Choice(_FAMILIES), help="Try only variants of this kind; repeatable."
    ),
    TIME_BUDGET,
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of drawn samples and splits."),
    click.option("--name", default="", help="Publish under this name; else the model's own, as its next version."),
    click.option(
        "--output", type=click.Path(path_type=Path), help="Write the version's folder here, into no repository."
    ),
    click.option("--dry-run", is_flag=True, help="Measure and report, and keep nothing."),
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for report and record, also when nothing is published.",
    ),
    MEMORY_LIMIT,
    *OUTPUT,
)


@click.command(
    "optimize",
    short_help="Make a model faster here, keep it only if it is measured and right.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@with_options(_OPTIONS)
@click.pass_context
def optimize(ctx: click.Context, /, **given: Any) -> None:
    """Try fusion, quantization, half precision and runtime settings on MODEL, and publish the fastest that is right.

    MODEL is the name of a model in the repository, NAME:VERSION, or an .onnx file. Every variant is timed against the
    model on this machine and judged by its answers; the winner becomes the next version, the model itself is never
    touched. When none is faster, it says so and leaves the model as it was.
    """

    def work(listener: Silence) -> Callable[[], None]:
        # They bring numpy and pydantic, which `--help` does not need.
        from tensorquay_convert.optimize.command import optimize as carry  # noqa: PLC0415

        result = carry(_asked(given), listener)

        def tell() -> None:
            if given["as_json"]:
                click.echo(json.dumps(result.to_json(), ensure_ascii=False))
            elif not given["quiet"]:
                show_result(result)

        return tell

    ctx.exit(carry_out("optimize", given, work))


def _asked(given: Mapping[str, Any]) -> Asked:
    from tensorquay_convert.optimize.command import Asked  # noqa: PLC0415 - idem

    goals = Goals(
        gate=GateRules(given["max_drop"], given["min_cosine"], given["metric"], given["output_name"]),
        time_budget_s=given["time_budget"],
        **{name: given[name] for name in ("objective", "batches", "sizes", "provider", "threads", "seed", "only")},
    )
    same = ("model", "version", "data", "labels", "name", "output", "dry_run", "report")
    return Asked(
        repository=repository_of(given),
        goals=goals,
        memory_bytes=given["memory_limit"],
        command=tuple(sys.argv),
        **{name: given[name] for name in same},
    )


def show_result(result: OptimizeResult) -> None:
    """The table, what is worth knowing, and where the result lies; for people."""
    from rich.table import Table  # noqa: PLC0415 - only who reads the result needs it

    from tensorquay_convert.optimize.report import console as words  # noqa: PLC0415 - idem

    out = console()
    heads, rows = words.table(result.outcome)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(plain(head), justify="left" if place in {0, len(heads) - 1} else "right", overflow="fold")
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))

    def everything() -> None:
        out.print(table)
        out.print()
        for line in words.lines(result.outcome):
            out.print(plain(line))
        facts(out, took=[f"{result.outcome.seconds:.0f} s"])
        if result.path is not None:
            facts(out, kept=[str(result.path), f"with its report {result.report}"])
        elif result.report is not None:
            facts(out, report=[str(result.report)])

    show(out, everything)
