"""What a request costs the server at its doors, loaded by strangers: `python -m tests.bench.frontends`.

wrk loads HTTP, h2load gRPC; both are C programs that cost less than the server. The figure is the CPU time of the
server's processes per request. See docs/performance.md, section 5.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from tests.bench import frontend_report
from tests.bench.frontend_cases import DOOR_CASES, MODELS, DoorCase, usable
from tests.bench.frontend_suite import Contender, NoResult, Settings, measure
from tests.bench.report import replaced

_FALLBACKS = {
    "asgi": Contender("asgi", ("--http-transport=asgi",), grpc=False),
    "grpcio": Contender("grpcio", ("--grpc-transport=grpcio",), http=False),
}
_WIDE = 200


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Returns: 0, or 1 when something did not add up."""
    parser = _parser()
    given = parser.parse_args(arguments)
    also = given.also.split(",") if given.also else []
    only = given.only.split(",") if given.only else list(MODELS)
    for flag, names, known in (("--also", also, _FALLBACKS), ("--only", only, MODELS)):
        if not set(names) <= set(known):
            parser.error(f"{flag}: expected some of {', '.join(known)}")
    if given.markdown:
        # Before anything is measured: it would be lost.
        try:
            replaced(given.markdown.read_text(), "", frontend_report.BEGIN, frontend_report.END)
        except (OSError, ValueError) as error:
            parser.error(f"--markdown: {error}")
    contenders = [Contender("this one")]
    if given.baseline:
        contenders.append(Contender("baseline", checkout=given.baseline))
    contenders += [_FALLBACKS[name] for name in also]
    cases, notes = usable([case for case in DOOR_CASES if case.model in only and _wanted(case, given.doors)])
    if not cases:
        parser.error("--doors: nothing of that name can be measured here")
    for note in notes:
        _say(f"note: {note}")
    settings = Settings.quick() if given.quick else Settings()
    names = ("seconds", "rounds", "gap_batch", "server_cores")
    changed = {name: getattr(given, name) for name in names if getattr(given, name)}
    settings = replace(settings, flags=tuple(shlex.split(given.flags)), **changed)
    try:
        document = measure(cases, contenders, settings, _say)
    except NoResult as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["notes"] = notes
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    if given.markdown:
        section = frontend_report.markdown(document)
        page = replaced(given.markdown.read_text(), section, frontend_report.BEGIN, frontend_report.END)
        given.markdown.write_text(page)
    # A table that is cut at a terminal's edge is of no use in a file.
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(frontend_report.table(document))
    for line in frontend_report.surroundings(document):
        console.print(line, highlight=False)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _wanted(case: DoorCase, doors: str | None) -> bool:
    return doors is None or case.door in doors.split(",")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.frontends",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="MODELS", help=f"some of {','.join(MODELS)}")
    parser.add_argument("--doors", metavar="DOORS", help="some of http binary,http json,grpc")
    parser.add_argument("--also", metavar="FALLBACKS", help=f"measure these too: some of {','.join(_FALLBACKS)}")
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT", help="measure another checkout's server by turns")
    parser.add_argument("--flags", default="", metavar="FLAGS", help="flags for every server, as one word")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="replace the results in docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean nothing")
    parser.add_argument("--seconds", type=float, help="about the length of one measurement (3)")
    parser.add_argument("--rounds", type=int, help="measurements of each case (3)")
    parser.add_argument("--gap-batch", type=int, help="max_batch_size of the large-tensor model (1)")
    parser.add_argument("--server-cores", type=int, help="cores that the servers are pinned to (1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
