"""The command `tensorquay profile` from end to end: real models, real processes. Timing decides nothing here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.support import graphs
from tests.support.waiting import until

from tensorquay_convert.errors import ExitCode
from tensorquay_convert.profile import record

REPOSITORY = Path(__file__).parents[2] / "model_repo"


def begin(place: Path, *arguments: object) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TENSORQUAY_")}
    (place / "temporary").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tensorquay", "profile", *map(str, arguments)],
        cwd=place,
        env={**kept, "TMPDIR": str(place / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place: Path, *arguments: object) -> tuple[int, str, str]:
    process = begin(place, *arguments)
    out, err = process.communicate(timeout=100)
    assert list((place / "temporary").iterdir()) == []
    return process.returncode, out, err


def spans(path: Path) -> list[dict[str, Any]]:
    return [each for each in json.loads(path.read_text())["traceEvents"] if each["ph"] == "X"]


def layers(path: Path) -> Path:
    """x[batch, 16] · W, Relu, then an If of Exp or Neg: operators that no optimisation takes away."""
    branches = [
        helper.make_graph([helper.make_node(operator, ["b"], [name], name=f"in {name}")], name, [],
                          [graphs.value(name, "FP32", None)])
        for operator, name in (("Exp", "then"), ("Neg", "else"))
    ]  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name='multiply "by" w'),
        helper.make_node("Relu", ["a"], ["b"], name="cut"),
        helper.make_node("ReduceMax", ["b"], ["most"], name="most", keepdims=0),
        helper.make_node("Cast", ["most"], ["is"], name="cast", to=9),
        helper.make_node("If", ["is"], ["y"], name="choose", then_branch=branches[0], else_branch=branches[1]),
    ]
    weights = numpy_helper.from_array(np.eye(16, dtype=np.float32), "w")
    made = graphs.model(
        nodes, [graphs.value("x", "FP32", ("batch", 16))], [graphs.value("y", "FP32", ("batch", 16))], [weights]
    )
    return graphs.write(made, path)


def test_a_model_of_the_repository(tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path, "digits", "--repository", REPOSITORY, "--seconds", "1", "--batch", "1,4", "--threads", "1,2",
        "--report", tmp_path / "report", "--progress", "plain",
    )  # fmt: skip
    assert code == 0, err
    for said in ("digits version 2", "Conv", "ReorderOutput", "100.0 % of the time", "best", "loaded", "items/s"):
        assert said in out
    assert "curve: batch sizes and threads, round 5 of" in err
    assert {each.name for each in (tmp_path / "report").iterdir()} == {"profile.html", "profile.json", "trace.json"}

    found = record.read(json.loads((tmp_path / "report/profile.json").read_text()))
    assert sum(each.share for each in found.operators.operators) == pytest.approx(1)
    assert sum(each.share for each in found.operators.nodes) == pytest.approx(1)
    assert {each.operator: each.nodes for each in found.operators.operators}["Conv"] == 3
    assert found.operators.nodes[0].calls == found.operators.runs
    assert found.operators.gone["Relu"] == 3
    assert [(each.batch, each.threads) for each in found.curve.cells] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert [each.batch for each in found.memory.points] == [1, 4]
    assert (found.version, found.subject.name, found.real) == (2, "digits", False)
    shown = spans(tmp_path / "report/trace.json")
    assert len(shown) == found.trace["events"]
    assert {each["cat"] for each in shown} == {"run", "node"}


def test_a_file_with_data_for_programs(tmp_path: Path) -> None:
    model = layers(tmp_path / "layers.onnx")
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(3).random((6, 16), np.float32))
    code, out, err = run(
        tmp_path, model, "--data", tmp_path / "rows.npz", "--seconds", "0.5", "--batch", "2", "--threads", "1",
        "--json", "--trace", tmp_path / "trace.json", "--progress", "none",
    )  # fmt: skip
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["result"], told["report"], told["trace"]) == ("profiled", None, str(tmp_path / "trace.json"))
    found = record.read(told["profile"])
    assert found.real
    assert found.version is None
    calls = {each.node: each.calls for each in found.operators.nodes}
    assert calls["choose"] == calls["in then"] == found.operators.runs
    assert "in else" not in calls
    assert sum(each.share for each in found.operators.nodes) == pytest.approx(1)
    assert found.operators.unread == 0
    assert any(each["args"].get("node") == 'multiply "by" w' for each in spans(tmp_path / "trace.json"))
    assert found.advice.snippet == ""


def test_bad_input_is_one_sentence_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(layers(tmp_path / "layers.onnx").read_bytes()[:40])
    np.savez(tmp_path / "wrong.npz", z=np.zeros((2, 2), np.float32))
    for code, said, arguments in (
        (ExitCode.BAD_SOURCE, "'nothing' is neither a file nor a model", ("nothing",)),
        (ExitCode.BAD_SOURCE, "'cut.onnx' ", (tmp_path / "cut.onnx",)),
        (ExitCode.BAD_SOURCE, "z", (tmp_path / "layers.onnx", "--data", tmp_path / "wrong.npz")),
        (ExitCode.USAGE, "'0': expected whole numbers from 1", ("digits", "--threads", "0")),
        (ExitCode.NOT_PUBLISHED, "its folder does not exist", (tmp_path / "layers.onnx", "--trace", "no/where.json")),
        (ExitCode.LIMIT, "stopped after 0.01 s, its time limit", (tmp_path / "layers.onnx", "--timeout", "0.01")),
    ):
        ended, out, err = run(tmp_path, *arguments, "--progress", "none")
        assert (ended, out) == (code, ""), err
        assert said in err
        assert err.startswith("tensorquay profile: ")
        assert len(err.splitlines()) <= 2


def test_a_provider_that_is_not_here(tmp_path: Path) -> None:
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has it")
    code, out, _ = run(tmp_path, layers(tmp_path / "m.onnx"), "--provider", "tensorrt", "--json", "--progress", "none")
    told = json.loads(out)
    assert (code, told["reason"]) == (ExitCode.UNSUPPORTED, "unsupported")
    assert "execution provider 'tensorrt' cannot be had here" in told["sentence"]


def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    model = layers(tmp_path / "layers.onnx")
    process = begin(tmp_path, model, "--seconds", "10m", "--timeout", "1h", "--report", tmp_path / "report")
    assert process.stderr is not None
    while "round 1 of" not in (line := process.stderr.readline()):
        assert line, "it ended before it was measuring"
    workers = [int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT" in err
    assert workers
    until(lambda: not any(Path(f"/proc/{each}").exists() for each in workers), "the workers' end")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert list((tmp_path / "report").iterdir()) == []
