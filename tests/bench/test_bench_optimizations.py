"""The bench of optimisations: its rows and tables from made-up results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.bench import optimization_report
from tests.bench.optimizations import CASES, main
from tests.bench.report import replaced

PAGE = Path(__file__).parents[2] / "docs/performance.md"


def trial(name: str, verdict: str, low: float = 1.5, high: float = 1.7, **judgement: Any) -> dict[str, Any]:
    return {
        "variant": {"name": name}, "verdict": verdict, "bytes": 500,
        "timings": [{"point": "batch 1", "ratio": 1.6, "low": low, "high": high}],
        "judgement": {"metric": "top1", "metric_value": 0.98, "metric_baseline": 0.99, "outputs": [], **judgement},
    }  # fmt: skip


def row(winner: str, again: float, **more: Any) -> dict[str, Any]:
    trials = [trial("as it is", "faster, not the fastest"), trial("static", "won"), trial("x", "not tried")]
    outcome = {"winner": winner, "subject": {"bytes": 1000}, "trials": trials, "seconds": 90.4}
    return {"name": "digits", "model": "the digits", "optimization": outcome, "again": {"batch 1": again}, **more}


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    where = {
        "when": "2030-01-01T00:00:00+00:00", "cpu": "Some CPU", "cores": 2, "budget": "2 threads", "system": "Linux 6",
        "python": "3.11.7", "packages": {"onnx": "1", "onnxscript": "absent"}, "stolen_percent": 0.5,
    }  # fmt: skip
    return {"environment": where, "rows": list(rows)}


def test_a_winner_is_shown_with_its_claim_and_whether_it_held():
    (cells,) = optimization_report.rows(document(row("static", 1.55)))
    assert cells == [
        "the digits", "static", "batch 1", "1.60 (1.50 to 1.70)", "1.55", "yes", "top1 0.9800, was 0.9900", "50%", "1",
        "90 s",
    ]  # fmt: skip
    assert not optimization_report.wrong(row("static", 1.55))


def test_a_claim_that_did_not_hold_is_said_and_fails_the_bench():
    assert optimization_report.rows(document(row("static", 1.2)))[0][5] == "NO"
    assert optimization_report.wrong(row("static", 1.2))
    assert optimization_report.wrong({"name": "x", "failed": "corrupt"})


def test_a_model_that_stays_as_it_is_has_a_line_too():
    assert optimization_report.rows(document(row("", 0)))[0][1] == "none: as it was"
    assert not optimization_report.wrong(row("", 0))


def test_the_tables_have_everything():
    found = document(row("static", 1.55), {"name": "minilm", "model": "m", "skipped": "not installed"})
    text = optimization_report.markdown(found)
    assert "| the digits | static | batch 1 |" in text
    assert "- minilm: skipped: not installed" in text
    console = Console(width=220)
    with console.capture() as shown:
        console.print(optimization_report.table(found))
    assert "static" in shown.get()


def test_the_page_has_a_place_for_the_table():
    assert replaced(PAGE.read_text(), "x", optimization_report.BEGIN, optimization_report.END)


def test_only_known_cases_are_taken(capsys):
    with pytest.raises(SystemExit) as told:
        main(["--only=nothing"])
    assert told.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in CASES)
