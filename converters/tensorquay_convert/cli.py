"""`tensorquay import`: the command line of imports. Words what happened; decides nothing.

Exit codes are `errors.ExitCode`, and 130 or 143 when a signal ended it.
"""

from __future__ import annotations

import json
import re
import shlex
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
    repository_of,
    show,
    with_options,
)
from tensorquay_convert.importing import Destination, ImportResult, Running, import_source
from tensorquay_convert.isolation import DEFAULT_TIMEOUT_S, Limits
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob, SourceKind, Tolerance
from tensorquay_convert.optimize_cli import DATA, TIME_BUDGET, optimize
from tensorquay_convert.progress import Silence

if TYPE_CHECKING:
    from rich.table import Table

_INPUT = re.compile(r"(?P<name>.+):(?P<dtype>[a-z]+[0-9]*)\[(?P<shape>[^\[\]]*)\]")
_DYNAMIC = re.compile(r"(?P<tensor>.+):(?P<axis>[0-9]{1,3})=(?P<name>[A-Za-z_][A-Za-z0-9_.-]{0,63})")
_AXIS = re.compile(r"[0-9]{1,12}|[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "bfloat16", "string",
}  # fmt: skip


def _read_inputs(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[DeclaredInput, ...]:
    found = []
    for text in texts:
        match = _INPUT.fullmatch(text)
        if match is None or match["dtype"] not in _DTYPES:
            raise click.BadParameter(f"'{text}': expected NAME:DTYPE[AXIS,…], as in image:float32[batch,3,224,224]")
        axes = [axis.strip() for axis in match["shape"].split(",")] if match["shape"].strip() else []
        wrong = [axis for axis in axes if _AXIS.fullmatch(axis) is None]
        if wrong:
            raise click.BadParameter(f"'{text}': '{wrong[0]}' is neither a size nor the name of an axis")
        shape = tuple(int(axis) if axis.isdigit() else axis for axis in axes)
        found.append(DeclaredInput(match["name"], match["dtype"], shape))
    return tuple(found)


def _read_dynamic(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[DynamicAxis, ...]:
    found = []
    for text in texts:
        match = _DYNAMIC.fullmatch(text)
        if match is None:
            raise click.BadParameter(f"'{text}': expected INPUT:AXIS=NAME, as in input_ids:1=seq")
        found.append(DynamicAxis(match["tensor"], int(match["axis"]), match["name"]))
    return tuple(found)


def _read_kind(_ctx: click.Context, _option: click.Parameter, text: str | None) -> SourceKind | None:
    return None if text is None else SourceKind(text)


_OPTIONS: tuple[Callable[..., Any], ...] = (
    click.argument("source"),
    click.option("--name", help="Name of the model in the repository; not needed with --output or --dry-run."),
    click.option(
        "--version",
        type=click.IntRange(1, 2**63 - 1),
        help="Publish as this version; else the highest there is, plus 1.",
    ),
    REPOSITORY,
    click.option(
        "--output", type=click.Path(path_type=Path), help="Write the version's folder here, into no repository."
    ),
    click.option("--dry-run", is_flag=True, help="Convert and prove, and keep nothing."),
    click.option("--optimize", is_flag=True, help="Then optimise it: the winner becomes the version after it."),
    *DATA,
    TIME_BUDGET,
    click.option(
        "--kind",
        type=click.Choice([kind.value for kind in SourceKind]),
        callback=_read_kind,
        help="What the source is, instead of finding out.",
    ),
    click.option("--weights", metavar="FILE", help="Weights for a factory: safetensors, or a state dict."),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME:DTYPE[AXIS,…]",
        callback=_read_inputs,
        help="An input, where the source does not tell, as in image:float32[batch,3,224,224]; repeatable.",
    ),
    click.option("--output-name", "outputs", multiple=True, metavar="NAME", help="Keep this output; repeatable."),
    click.option(
        "--dynamic",
        multiple=True,
        metavar="INPUT:AXIS=NAME",
        callback=_read_dynamic,
        help="A dynamic axis, as in input_ids:1=seq; repeatable.",
    ),
    click.option("--static", is_flag=True, help="Keep every axis as it is, the batch too."),
    click.option(
        "--example",
        "examples",
        multiple=True,
        metavar="FILE",
        help="Inputs for the proof (npz, npy, json, images); repeatable.",
    ),
    click.option(
        "--signature",
        default="",
        metavar="NAME",
        help="Signature of a SavedModel; else serving_default, or the only one.",
    ),
    click.option("--opset", type=click.IntRange(7, 99), help="ONNX operator set; else the exporter's own."),
    click.option(
        "--max-batch", type=click.IntRange(1, 65536), default=32, show_default=True, help="Largest batch of the proof."
    ),
    click.option("--atol", type=click.FloatRange(0), help="Largest absolute error; else by dtype."),
    click.option("--rtol", type=click.FloatRange(0), help="Largest relative error; else by dtype."),
    click.option("--min-cosine", type=click.FloatRange(-1, 1), help="Least cosine of an output with the source's."),
    click.option("--min-top1", type=click.FloatRange(0, 1), help="Least share of rows with the same largest entry."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the proof's made-up inputs."),
    click.option("--trust-pickle", is_flag=True, help="Read a pickle, which runs the code in it."),
    click.option("--untrusted", is_flag=True, help="Refuse what runs code; pass no secrets to the worker."),
    click.option("--python", default="", metavar="PATH", help="Interpreter that has the framework."),
    MEMORY_LIMIT,
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.001),
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        help="Longest time of conversion and proof together.",
    ),
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for report, provenance and log, also of an import that fails.",
    ),
    *OUTPUT,
)


@click.command(
    "import",
    short_help="Convert a trained model to ONNX, prove it, publish it.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@with_options(_OPTIONS)
@click.pass_context
def import_model(ctx: click.Context, /, **given: Any) -> None:
    """Convert SOURCE to ONNX, prove that it answers alike, and publish it into a model repository.

    SOURCE is a file or folder of PyTorch (.pt2, TorchScript), Hugging Face, TensorFlow (SavedModel, .keras, .h5,
    frozen .pb, .tflite), scikit-learn (.skops), XGBoost, LightGBM or ONNX; or file.py:factory, package.module:factory.
    """
    if given["name"] is None:
        if given["output"] is None and not given["dry_run"]:
            raise click.UsageError("--name is missing: under which name is the model to be served?")
        given["name"] = Path(given["source"].rpartition(":")[2] or given["source"]).stem or "model"
    if given["optimize"] and (given["output"] is not None or given["dry_run"]):
        raise click.UsageError("--optimize publishes into a repository: it does not go with --output or --dry-run")
    unused = [name for name in ("data", "labels", "max_drop") if given[name]]
    if unused and not given["optimize"]:
        raise click.UsageError(f"--{unused[0].replace('_', '-')} goes with --optimize")
    code = _run(given)
    ctx.exit(_optimize(given) if code == 0 and given["optimize"] else code)


def _run(given: Mapping[str, Any]) -> int:
    def work(listener: Silence) -> Callable[[], None]:
        result = import_source(_job(given), _destination(given), _running(given), listener)

        def tell() -> None:
            if given["as_json"]:
                click.echo(json.dumps(result.to_json(), ensure_ascii=False))
            elif not given["quiet"]:
                _show(result, given)

        return tell

    return carry_out("import", given, work)


def _optimize(given: Mapping[str, Any]) -> int:
    """What was just imported, further: a second result, on a line of its own with `--json`. The import stands."""
    arguments = [
        str(given["name"]),
        f"--repository={repository_of(given)}",
        f"--time-budget={given['time_budget']}s",
        f"--seed={given['seed']}",
        f"--progress={given['progress']}",
        *(f"--data={each}" for each in given["data"]),
        *((f"--labels={given['labels']}",) if given["labels"] else ()),
        *((f"--max-drop={given['max_drop']}",) if given["max_drop"] is not None else ()),
        *((f"--version={given['version']}",) if given["version"] is not None else ()),
        *((f"--memory-limit={given['memory_limit']}",) if given["memory_limit"] is not None else ()),
        *(("--quiet",) if given["quiet"] else ()),
        *(("--json",) if given["as_json"] else ()),
    ]
    outcome = optimize.main(arguments, prog_name="tensorquay optimize", standalone_mode=False)
    return outcome if isinstance(outcome, int) else 0


def _job(given: Mapping[str, Any]) -> ImportJob:
    same = (
        "source", "kind", "weights", "inputs", "outputs", "dynamic", "static", "examples", "signature", "opset",
        "max_batch", "seed", "trust_pickle",
    )  # fmt: skip
    tolerance = Tolerance(given["atol"], given["rtol"], given["min_cosine"], given["min_top1"])
    return ImportJob(**{name: given[name] for name in same}, tolerance=tolerance)


def _destination(given: Mapping[str, Any]) -> Destination:
    return Destination(
        given["name"], repository_of(given), given["version"], given["output"], given["dry_run"], given["report"]
    )


def _running(given: Mapping[str, Any]) -> Running:
    return Running(
        given["python"], Limits(given["timeout"], given["memory_limit"]), given["untrusted"], tuple(sys.argv)
    )


def _show(result: ImportResult, given: Mapping[str, Any]) -> None:
    """The result for people: what it was, how it was made, how well it is proven, where it lies."""
    out = console()
    proof = result.proof
    inputs = "your inputs and seeded ones" if proof["real_inputs"] else "seeded inputs"
    sizes = [f"{axis} {', '.join(map(str, found))}" for axis, found in proof["axes"].items()]

    def everything() -> None:
        facts(
            out,
            source=[str(given["source"]), result.shown],
            export=[f"{result.exporter}, operator set {result.opset}", *result.attempts, *result.notes],
            proof=["; ".join([f"equal on {proof['cases']} cases, {inputs}", *sizes]), *proof["notes"]],
        )
        out.print()
        out.print(_errors(proof["outputs"]))
        out.print()
        facts(out, took=[f"{result.seconds:.1f} s, {result.peak_rss_bytes / (1 << 20):.0f} MiB at most"])
        if result.path is None:
            facts(out, kept=["nothing, it was a dry run"])
        else:
            facts(out, kept=[str(result.path), f"with its report {result.report}"])
        if result.path is not None and result.version is not None:
            facts(out, next=[f"tensorquay serve {shlex.quote(str(result.path.parent.parent))}"])

    show(out, everything)


def _errors(outputs: Sequence[Mapping[str, Any]]) -> Table:
    """The worst of each output over all cases."""
    from rich.table import Table  # noqa: PLC0415 - only who reads the result needs it

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("output", overflow="fold")
    for head in ("largest error", "relative", "allowed", "cosine", "same top-1"):
        table.add_column(head, justify="left" if head == "allowed" else "right", no_wrap=True)
    for each in outputs:
        exact = each["atol"] == each["rtol"] == 0
        table.add_row(
            plain(each["name"]),
            _number(each["max_absolute"], ".2g"),
            _number(each["max_relative"], ".2g"),
            "exact" if exact else f"{each['atol']:.2g} + {each['rtol']:.2g}·|x|",
            _number(each["min_cosine"], ".6f"),
            _number(each["min_top1"], ".2%"),
        )
    return table


def _number(value: float | str | None, digits: str) -> str:
    return "" if value is None else value if isinstance(value, str) else format(value, digits)
