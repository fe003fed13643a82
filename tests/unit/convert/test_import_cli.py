"""The command line says what its documentation says, and hands on exactly what was given."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tensorquay_convert import cli, command_line, importing
from tensorquay_convert.errors import BY_CODE, ExitCode
from tensorquay_convert.importing import Destination, Running
from tensorquay_convert.isolation import Limits
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob, SourceKind, Tolerance
from tensorquay_convert.progress import IMPORT_SHARES, Bar, Lines, Silence, Step, Teller, Told, read_event, read_told
from tensorquay_convert.registry import BUILT_IN, EXTRAS

DOCS = (Path(__file__).parents[3] / "docs/import.md").read_text()


class Seen(Exception):
    pass


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command, and returns what the import would have been."""
    monkeypatch.delenv(command_line.REPOSITORY_VARIABLE, raising=False)

    def call(*arguments: str) -> tuple[ImportJob, Destination, Running]:
        kept: list[Any] = []

        def importer(*given: Any) -> None:
            kept.extend(given)
            raise Seen

        monkeypatch.setattr(cli, "import_source", importer)
        with pytest.raises(Seen):
            cli.import_model.main(list(arguments), standalone_mode=False)
        return kept[0], kept[1], kept[2]

    return call


def test_everything_that_can_be_said_arrives(seen: Any) -> None:
    job, to, running = seen(
        *("m.pt", "--name", "m", "--version", "3", "--repository", "repo", "--kind", "torchscript"),
        *("--weights", "w", "--input", "a:b:float32[batch, 3,224]", "--input", "n:int64[]", "--output-name", "y"),
        *("--dynamic", "a:b:1=seq", "--static", "--example", "x.npz", "--signature", "s", "--opset", "20"),
        *("--max-batch", "8", "--atol", "1e-3", "--rtol", "0", "--min-cosine", "0.9", "--min-top1", "1"),
        *("--seed", "5", "--trust-pickle", "--untrusted", "--python", "/p", "--memory-limit", "1.5GiB"),
        *("--timeout", "60", "--report", "r"),
    )
    assert job == ImportJob(
        source="m.pt",
        kind=SourceKind.TORCHSCRIPT,
        weights="w",
        inputs=(DeclaredInput("a:b", "float32", ("batch", 3, 224)), DeclaredInput("n", "int64", ())),
        outputs=("y",),
        dynamic=(DynamicAxis("a:b", 1, "seq"),),
        static=True,
        examples=("x.npz",),
        signature="s",
        opset=20,
        max_batch=8,
        tolerance=Tolerance(1e-3, 0.0, 0.9, 1.0),
        seed=5,
        trust_pickle=True,
    )
    assert to == Destination("m", Path("repo"), 3, report=Path("r"))
    assert running == Running("/p", Limits(60.0, int(1.5 * (1 << 30))), True, tuple(sys.argv))
    assert ImportJob.from_json(job.to_json()) == job


def test_what_is_not_said_has_the_documented_default(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job, to, running = seen("m.onnx", "--name", "m")
    assert job == ImportJob(source="m.onnx")
    assert (to, running.limits) == (Destination("m"), Limits())
    monkeypatch.setenv(command_line.REPOSITORY_VARIABLE, "/models")
    assert seen("m.onnx", "--name", "m")[1].repository == Path("/models")
    assert seen("dir/m.py:make", "--dry-run")[1].name == "make"
    assert seen("dir/m.onnx", "--output", "o")[1].name == "m"


def test_the_documentation_names_every_option_and_no_other() -> None:
    listed = set(
        re.findall(r"`(--[a-z0-9-]+)", "\n".join(line for line in DOCS.splitlines() if line.startswith("| `--")))
    )
    there = {name for option in cli.import_model.params for name in option.opts if name.startswith("--")}
    assert listed == there


def test_the_documentation_has_every_exit_code() -> None:
    listed = {int(code): name for code, name in re.findall(r"^\| (\d) \| ([a-z_]+) \|", DOCS, re.MULTILINE)}
    assert listed == {int(code): code.name.lower() for code in ExitCode}
    assert set(BY_CODE) == set(ExitCode) - {ExitCode.DONE, ExitCode.USAGE}


def test_the_documentation_has_every_kind_with_its_extra() -> None:
    listed = dict(re.findall(r"^\|.*\| `([a-z0-9-]+)` \| `\[([a-z]+)\]` \|$", DOCS, re.MULTILINE))
    assert listed == {kind.value: EXTRAS[kind] for kind in SourceKind}
    assert set(BUILT_IN) == set(SourceKind)


def test_help_answers_at_once_and_brings_nothing_heavy() -> None:
    code = (
        "import sys; from tensorquay_convert.cli import import_model\n"
        "import_model.main(['--help'], standalone_mode=False)\n"
        "print(sorted(set(sys.modules) & {'numpy', 'onnx', 'onnxruntime', 'rich', 'torch', 'asyncio'}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
    assert "Convert SOURCE to ONNX" in ended.stdout


def test_the_package_brings_nothing_by_itself() -> None:
    code = "import sys, tensorquay_convert; print([m for m in sys.modules if m.startswith('tensorquay_convert.')])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"
    import tensorquay_convert

    assert tensorquay_convert.import_model is importing.import_model
    with pytest.raises(AttributeError):
        _ = tensorquay_convert.nothing


# -- progress


def test_events_survive_the_way() -> None:
    sent: list[Any] = []
    teller = Teller(sent.append, IMPORT_SHARES)
    teller.step(Step.PROVE, "proving")
    teller.say("case 6 of 11: batch 7")
    teller.note("worth knowing")
    told = [read_told(event) for event in sent]
    assert told == [
        Told("prove", "proving", 0.55),
        Told("prove", "case 6 of 11: batch 7", round(0.55 + 0.35 * 5 / 11, 3)),
        Told("prove", "worth knowing", 0.55, note=True),
    ]


@pytest.mark.parametrize("line", [b"", b"x", b"[1]", b'{"a": 1}', b'{"event": 3}', b"\xff", b'{"event": "told"}'])
def test_lines_that_are_no_events_are_none(line: bytes) -> None:
    event = read_event(line)
    assert event is None or read_told(event) is None


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(sys.stdout) as lines:
        lines(Told("open", "opening [red]x"))
    assert capsys.readouterr().out == "open: opening [red]x\n"
    with Bar(sys.stdout) as bar:
        bar(Told("open", "opening"))
        bar(Told("open", "a [note]", note=True))
    assert "a [note]" in capsys.readouterr().out
    with Silence() as nothing:
        nothing(Told("open", "opening"))
    assert capsys.readouterr().out == ""
