"""The command line of optimisations: what is said arrives, what is not said has its documented default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from tensorquay_convert import command_line, optimize_cli
from tensorquay_convert.errors import Unsupported
from tensorquay_convert.optimize import command
from tensorquay_convert.optimize.command import Asked
from tensorquay_convert.optimize.goals import GateRules, Goals, Metric, Objective
from tensorquay_convert.progress import Listener

DOCS = Path(__file__).parents[3] / "docs/optimize.md"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command and returns what would have been done."""
    monkeypatch.delenv(command_line.REPOSITORY_VARIABLE, raising=False)
    asked: list[Asked] = []

    def stop(given: Asked, _listener: Listener) -> None:
        asked.append(given)
        raise Unsupported("enough")

    monkeypatch.setattr(command, "optimize", stop)

    def run(*arguments: str) -> Asked:
        code = optimize_cli.optimize.main(list(arguments), standalone_mode=False)
        assert code == Unsupported.code
        return asked.pop()

    return run


def test_what_is_not_said_has_the_documented_default(seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = seen("m", "--quiet")
    assert capsys.readouterr().err == "tensorquay optimize: enough\n"
    assert asked.goals == Goals()
    assert (asked.model, asked.repository, asked.data, asked.labels) == ("m", Path("model_repo"), (), "")
    assert (asked.version, asked.name, asked.output, asked.dry_run, asked.report) == (None, "", None, False, None)


def test_everything_that_can_be_said_arrives(seen: Any) -> None:
    asked = seen(
        "m", "--repository=r", "--version=3", "--data=a.npz", "--data=b.npz", "--labels=l.npy", "--max-drop=0.5%",
        "--min-cosine=0.98", "--metric=f1", "--judge=y", "--batch=8,1,8", "--size=seq=128,16", "--size=w=3",
        "--objective=latency", "--provider=cuda", "--threads=3", "--only=graph", "--only=fusion", "--time-budget=2h",
        "--seed=7", "--name=n", "--report=rep", "--memory-limit=2GiB", "--dry-run",
    )  # fmt: skip
    assert asked.goals == Goals(
        objective=Objective.LATENCY, gate=GateRules(0.005, 0.98, Metric.F1, "y"), batches=(1, 8),
        sizes={"seq": (16, 128), "w": (3,)}, provider="cuda", threads=3, time_budget_s=7200.0, seed=7,
        only=("graph", "fusion"),
    )  # fmt: skip
    assert (asked.data, asked.labels, asked.version, asked.name) == (("a.npz", "b.npz"), "l.npy", 3, "n")
    assert (asked.memory_bytes, asked.report, asked.dry_run) == (2 << 30, Path("rep"), True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0), ("10", 10.0), ("3 min", 180.0)]
)
def test_times_are_read_as_people_write_them(seen: Any, text: str, seconds: float) -> None:
    assert seen("m", f"--time-budget={text}").goals.time_budget_s == seconds


@pytest.mark.parametrize(("text", "share"), [("0.5%", 0.005), ("0.005", 0.005), ("2 %", 0.02), ("0", 0.0)])
def test_shares_are_read_as_people_write_them(seen: Any, text: str, share: float) -> None:
    assert seen("m", f"--max-drop={text}").goals.gate.max_drop == pytest.approx(share)


def test_the_repository_may_come_from_the_environment(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command_line.REPOSITORY_VARIABLE, "/models")
    assert seen("m").repository == Path("/models")
    assert seen("m", "--repository=here").repository == Path("here")


def test_the_documentation_names_every_option_and_no_other() -> None:
    text = DOCS.read_text(encoding="utf-8")
    section = text[text.index("## Options") : text.index("## Data and labels")]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    documented = {each for row in rows for each in re.findall(r"--[a-z-]+", row.split("|")[1])}
    options = [each for each in optimize_cli.optimize.params if isinstance(each, click.Option)]
    assert documented == {name for option in options for name in option.opts if name.startswith("--")}
