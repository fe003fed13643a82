"""Served against raw throughput: `python -m tests.bench`, from the root of a clone. See docs/performance.md."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench.cases import CASES, DOORS
from tests.bench.report import markdown, replaced, table
from tests.bench.suite import MeasurementFailed, Settings, measure, narrowed, with_in_flight

from tensorquay.config.resources import cpu_budget


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Returns: 0, or 1 when something could not be measured."""
    parser = _parser()
    given = parser.parse_args(arguments)
    threads = given.threads or cpu_budget().threads
    settings = Settings.quick(threads) if given.quick else Settings(threads)
    changed = {name: getattr(given, name) for name in ("seconds", "rounds", "batch") if getattr(given, name)}
    if given.doors:
        changed["doors"] = tuple(given.doors.split(","))
        if not set(changed["doors"]) <= set(DOORS):
            parser.error(f"--doors: expected some of {', '.join(DOORS)}")
    try:
        cases = with_in_flight(narrowed(CASES, given.only.split(",") if given.only else ()), given.in_flight)
    except ValueError as error:
        parser.error(str(error))
    try:
        document = measure(cases, replace(settings, **changed), lambda text: print(text, file=sys.stderr, flush=True))
    except MeasurementFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    if given.markdown:
        given.markdown.write_text(replaced(given.markdown.read_text(), markdown(document)))
    print(json.dumps(document) if given.print_json else table(document))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="MODELS", help=f"some of {','.join(case.name for case in CASES)}")
    parser.add_argument("--doors", metavar="DOORS", help=f"some of {','.join(DOORS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--print-json", action="store_true", help="print the figures as JSON instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="replace the results in docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    parser.add_argument("--seconds", type=float, help="length of one measurement (6)")
    parser.add_argument("--rounds", type=int, help="measurements of each pair (3)")
    parser.add_argument("--threads", type=int, help="for one run of a model, on both sides (the CPU budget)")
    parser.add_argument("--batch", type=int, help="max_batch_size of built models (raw's best)")
    parser.add_argument("--in-flight", type=int, help="requests under way (two batches; 64 for small models)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
