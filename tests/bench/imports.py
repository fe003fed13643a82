"""What an import takes, for each kind of source: `python -m tests.bench.imports`, beside the frameworks.

Small trained models are made, then imported by the real product: a worker, the conversion, the whole proof, the
published version. Time and memory are what the import itself tells. See docs/performance.md, section 8.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.bench import import_report
from tests.bench.environment import cpu_ticks, describe, stolen_share
from tests.bench.import_models import MODELS, OBJECT, ROOT, imported_file, made_file
from tests.bench.report import replaced

from tensorquay_convert.errors import CommandFailed, FrameworkMissing
from tensorquay_convert.importing import Destination, Running, import_source
from tensorquay_convert.job import ImportJob
from tensorquay_convert.progress import Silence

Say = Callable[[str], None]

_PACKAGES = (
    "onnx", "onnxruntime", "numpy", "torch", "transformers", "tensorflow", "tensorflow-cpu", "keras", "jax", "jax2onnx",
    "scikit-learn", "skl2onnx", "skops", "xgboost", "xgboost-cpu", "lightgbm",
)  # fmt: skip
_MAKING_SECONDS = 900.0
_WIDE = 200


class NoResult(Exception):
    """A model could not be made: this bench is at fault, not an import."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Returns: 0, or 1 when something did not add up."""
    parser = _parser()
    given = parser.parse_args(arguments)
    only = given.only.split(",") if given.only else list(MODELS)
    if not set(only) <= set(MODELS):
        parser.error(f"--only: expected some of {', '.join(MODELS)}")
    if given.markdown:
        # Before anything is measured: it would be lost.
        try:
            replaced(given.markdown.read_text(), "", import_report.BEGIN, import_report.END)
        except (OSError, ValueError) as error:
            parser.error(f"--markdown: {error}")
    try:
        document = measure([name for name in MODELS if name in only], _say)
    except NoResult as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    if given.markdown:
        section = import_report.markdown(document)
        page = replaced(given.markdown.read_text(), section, import_report.BEGIN, import_report.END)
        given.markdown.write_text(page)
    # A table that is cut at a terminal's edge is of no use in a file.
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False)
    console.print(import_report.table(document))
    for line in (*(f"{name}: {why}" for name, why in import_report.absences(document)), ""):
        console.print(line, soft_wrap=True)
    for line in import_report.surroundings(document):
        console.print(line, soft_wrap=True)
    return 1 if any("failed" in row for row in document["rows"]) else 0


def measure(names: Sequence[str], say: Say) -> dict[str, Any]:
    """Import each once. Raises: NoResult."""
    environment, before = describe(_PACKAGES), cpu_ticks()
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        if (why := MODELS[name].missing()) is not None:
            rows[name] = {"name": name, "skipped": why}
            say(f"{name}: skipped, {why}")
    wanted = [name for name in names if name not in rows]
    with tempfile.TemporaryDirectory(prefix="bench-imports-") as kept:
        folder, repository = Path(kept, "models"), Path(kept, "repository")
        folder.mkdir()
        repository.mkdir()
        for family in dict.fromkeys(MODELS[name].family for name in wanted):
            mine = [name for name in wanted if MODELS[name].family == family]
            say(f"making {', '.join(mine)}")
            _in_a_process(folder, "--make", ",".join(mine))
            for name in mine:
                say(f"{name}: importing")
                rows[name] = _imported(name, folder, repository)
                say(f"{name}: {_told(rows[name])}")
    environment["stolen_percent"] = round(100 * stolen_share(before, cpu_ticks()), 1)
    return {"environment": environment, "rows": [rows[name] for name in names]}


def _imported(name: str, folder: Path, repository: Path) -> dict[str, Any]:
    made = json.loads(made_file(folder, name).read_text())
    if name == OBJECT:
        _in_a_process(folder, "--import-object", str(repository))
        return row(name, made["model"], json.loads(imported_file(folder).read_text()))
    to = Destination(name, repository, report=folder / f"{name}-report")
    try:
        result = import_source(ImportJob.from_json(made["job"]), to, Running(), Silence())
    except FrameworkMissing as missing:
        return {"name": name, "skipped": str(missing)}
    except CommandFailed as failure:
        return row(name, made["model"], {"result": "failed", "sentence": failure.sentence})
    return row(name, made["model"], result.to_json())


def row(name: str, model: str, result: dict[str, Any]) -> dict[str, Any]:
    """One line of the document, from what `tensorquay import --json` would print."""
    if result["result"] == "failed":
        return {"name": name, "model": model, "failed": result["sentence"]}
    proof = result["proof"]
    return {
        "name": name,
        "model": model,
        "shown": result["shown"],
        "exporter": result["exporter"],
        "seconds": result["seconds"],
        "peak_bytes": result["peak_rss_bytes"],
        "proof_seconds": proof["seconds"],
        "cases": proof["cases"],
        "max_absolute": proof["max_absolute"],
    }


def _told(row: dict[str, Any]) -> str:
    if "seconds" not in row:
        return row.get("failed") or row["skipped"]
    return f"{row['seconds']:.1f} s, {row['peak_bytes'] / 2**20:.0f} MiB"


def _in_a_process(folder: Path, *arguments: str) -> None:
    """Raises: NoResult with the end of what it printed."""
    command = [sys.executable, "-m", "tests.bench.import_models", str(folder), *arguments]
    what = " ".join(arguments)
    try:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_MAKING_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoResult(f"{what}: took more than {_MAKING_SECONDS:g} s") from error
    if ended.returncode:
        raise NoResult(f"{what}: ended with {ended.returncode}:\n{_end(ended.stdout.decode(errors='replace'))}")


def _end(text: str) -> str:
    return "\n".join(text.splitlines()[-20:])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.imports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="SOURCES", help=f"some of {','.join(MODELS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="replace the results in docs/performance.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
