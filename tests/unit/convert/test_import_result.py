"""What the command line shows of an import that went well: on a terminal, in a pipe, as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tensorquay_convert import cli
from tensorquay_convert.importing import ImportResult
from tensorquay_convert.job import SourceKind


def output(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "max_absolute": 2.384e-07, "max_relative": 1.5e-05, "min_cosine": 0.99999993, "min_top1": 0.9996,
        "atol": 1e-4, "rtol": 1e-4, "within": True, **more,
    }  # fmt: skip


LABEL = output("label", max_absolute=0.0, max_relative=None, min_cosine=None, min_top1=None, atol=0.0, rtol=0.0)
RESULT = ImportResult(
    name="m",
    version=3,
    path=Path("model repo/m/3"),
    kind=SourceKind.TORCH_EXPORT,
    shown="an exported program",
    exporter="torch.onnx 2",
    opset=20,
    attempts=("the first exporter gave up",),
    notes=(),
    proof={
        "cases": 12,
        "real_inputs": True,
        "axes": {"batch": [1, 2], "seq": [1, 64]},
        "outputs": [output("scores"), LABEL],
        "notes": ["a note"],
    },
    seconds=3.21,
    peak_rss_bytes=300 << 20,
    report=Path("model repo/m/3/report.html"),
)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command around a result; what it printed on standard output."""

    def show(result: ImportResult, *arguments: str) -> str:
        monkeypatch.setattr(cli, "import_source", lambda *given: result)
        assert cli.import_model.main(["m.pt2", "--name", "m", *arguments], standalone_mode=False) == 0
        return capsys.readouterr().out

    return show


def test_a_pipe_gets_every_fact_on_a_line_of_its_own(shown: Any) -> None:
    assert shown(RESULT) == (
        "source  m.pt2\n"
        "        an exported program\n"
        "export  torch.onnx 2, operator set 20\n"
        "        the first exporter gave up\n"
        "proof   equal on 12 cases, your inputs and seeded ones; batch 1, 2; seq 1, 64\n"
        "        a note\n"
        "\n"
        "output  largest error  relative  allowed                cosine  same top-1\n"
        "scores        2.4e-07   1.5e-05  0.0001 + 0.0001·|x|  1.000000      99.96%\n"
        "label               0            exact\n"
        "\n"
        "took    3.2 s, 300 MiB at most\n"
        "kept    model repo/m/3\n"
        "        with its report model repo/m/3/report.html\n"
        "next    tensorquay serve 'model repo'\n"
    )


def test_a_dry_run_says_that_nothing_is_left(shown: Any) -> None:
    text = shown(replace(RESULT, version=None, path=None, report=None))
    assert text.endswith("kept    nothing, it was a dry run\n")


def test_a_terminal_wraps_below_where_a_fact_begins(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    long = replace(RESULT, notes=("a word " * 40,), proof={**RESULT.proof, "outputs": [output("o" * 150)]})
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown(long)).split("\n")
    assert max(len(line) for line in lines) <= 100
    assert sum(line.startswith(("        a word", "        word")) for line in lines) == 4
    assert any("0.0001 + 0.0001·|x|" in line for line in lines)
    assert "".join(line.split(" ")[0] for line in lines if line.startswith("oo")) == "o" * 150


def test_a_name_cannot_steer_the_terminal(shown: Any) -> None:
    text = shown(replace(RESULT, proof={**RESULT.proof, "outputs": [output("\x1b]0;x\x07\u2028")]}))
    assert "\N{REPLACEMENT CHARACTER}]0;x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" in text


def test_programs_and_the_quiet_get_no_table(shown: Any) -> None:
    assert json.loads(shown(RESULT, "--json"))["path"] == "model repo/m/3"
    assert shown(RESULT, "--quiet") == ""
