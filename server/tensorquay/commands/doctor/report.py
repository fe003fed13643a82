"""Findings for people, section by section, and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.text import Text

from tensorquay import __version__
from tensorquay.commands.doctor.findings import Finding, Level
from tensorquay.commands.output import console, plain

TITLES = {
    "program": "Program",
    "packages": "Packages",
    "providers": "What models run on",
    "processor": "Processor",
    "limits": "Limits of this container or machine",
    "threads": "Threads",
    "settings": "Settings",
    "tls": "Certificates",
    "ports": "Ports",
    "storage": "Files and disks",
    "repository": "Model repository",
    "frameworks": "Frameworks to import from (none is needed to serve)",
    "clock": "Clock",
    "terminal": "Terminal",
}
"""Section → what people call it; also their order."""

_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
_WIDTH = max(len(level.value) for level in Level)


def show(findings: Sequence[Finding]) -> None:
    """Print all of them: the level in words first, so that nothing depends on colours."""
    out = console()
    section = ""
    for finding in findings:
        if finding.section != section:
            out.print(Text(("\n" if section else "") + TITLES[finding.section], style="bold"))
            section = finding.section
        line = Text("  ")
        line.append(finding.level.value.ljust(_WIDTH), style=_STYLES[finding.level])
        line.append(f"  {plain(finding.text)}")
        out.print(line, soft_wrap=True)
        if finding.remedy:
            out.print(Text(f"  {'':{_WIDTH}}  -> {plain(finding.remedy)}"), soft_wrap=True)
    out.print(Text(f"\n{summary(findings)}", style="bold"))


def summary(findings: Sequence[Finding]) -> str:
    """One sentence: how many of what."""
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    parts = [
        f"{counts[level]} {level.value}{'s' if counts[level] != 1 else ''}"
        for level in (Level.PROBLEM, Level.WARNING, Level.NOTE)
    ]
    start = (
        "nothing stands in the server's way" if not counts[Level.PROBLEM] else "the server will not work as it should"
    )
    return f"{start}: {', '.join(parts)}, {counts[Level.OK]} as they should be"


def as_json(findings: Sequence[Finding]) -> str:
    """The same for programs; docs/operations.md says which keys there are."""
    document = {
        "ok": not any(each.level is Level.PROBLEM for each in findings),
        "version": __version__,
        "counts": {level.value: sum(each.level is level for each in findings) for level in Level},
        "findings": [
            {
                "section": each.section,
                "check": each.check,
                "level": each.level.value,
                "text": each.text,
                "remedy": each.remedy,
            }
            for each in findings
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)
