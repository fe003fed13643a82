"""`tensorquay optimize` for real: the command, its workers, what it publishes, and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from tests.support import ask, graphs
from tests.support.serving import RunningServer
from tests.support.waiting import until

from tensorquay_convert.proof.runtime import Runtime

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "model_repo/digits/2/model.onnx"
QUICK = ("--time-budget=1s", "--batch=1,4")
"""Such a budget leaves no time for a variant after the first one: what is tried is decided by --only."""
ENOUGH = ("--time-budget=30s", "--batch=1,8")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tensorquay_convert", "optimize", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "converters")}


def optimize(*arguments: object, code: int = 0) -> tuple[dict[str, Any], str]:
    """The result as `--json` tells it, and what stood on standard error."""
    done = subprocess.run(
        [*command(*arguments), "--json"], capture_output=True, text=True, env=environment(), check=False, timeout=110
    )
    assert done.returncode == code, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return json.loads(done.stdout), done.stderr


def _json_of(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    answer = ask.post(server, path, json.dumps(body).encode())
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The shipped digits, with a tokenizer-like file beside the model and provenance of its own."""
    folder = tmp_path / "repo/digits/1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(DIGITS.read_bytes())
    (folder / "vocabulary.txt").write_text("a\nb\n")
    (folder / "provenance.json").write_text(json.dumps({"source": {"shown": "a trained network"}}))
    (folder / "verification.json").write_text("{}")
    return tmp_path / "repo"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    folder = tmp_path_factory.mktemp("data")
    digits = load_digits()
    np.savez(folder / "digits.npz", image=digits.images[:300, None].astype(np.float32))
    np.save(folder / "labels.npy", digits.target[:300])
    return (f"--data={folder / 'digits.npz'}", f"--labels={folder / 'labels.npy'}")


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Digits made smaller: bytes do not depend on how busy the machine is, so this winner is certain."""
    root = tmp_path_factory.mktemp("smaller")
    folder = root / "repo/digits/1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(DIGITS.read_bytes())
    (folder / "vocabulary.txt").write_text("a\nb\n")
    (folder / "provenance.json").write_text(json.dumps({"source": {"shown": "a trained network"}}))
    digits = load_digits()
    np.savez(root / "digits.npz", image=digits.images[:300, None].astype(np.float32))
    np.save(root / "labels.npy", digits.target[:300])
    before = digests(folder)
    result, _ = optimize(
        "digits", f"--repository={root / 'repo'}", f"--data={root / 'digits.npz'}", f"--labels={root / 'labels.npy'}",
        "--objective=size", "--only=static-int8", *ENOUGH, "--max-drop=2%",
    )  # fmt: skip
    assert digests(folder) == before, "the source was touched"
    return root / "repo", result


def test_every_static_variant_is_smaller_right_and_judged_on_labels(
    smaller: tuple[Path, dict[str, Any]],
) -> None:
    _, result = smaller
    outcome = result["optimization"]
    trials = {each["variant"]["name"]: each for each in outcome["trials"]}
    static = [each for name, each in trials.items() if name.startswith("static int8")]
    assert len(static) >= 3
    for trial in static:
        assert trial["bytes"] < outcome["subject"]["bytes"] / 2
        assert trial["judgement"]["metric"] == "top1"
        assert trial["judgement"]["metric_baseline"] > 0.97
        assert trial["passes"][0]["quantized"] > 0
    assert outcome["data"]["real"]
    assert outcome["data"]["judging"] == 200


@pytest.fixture(scope="module")
def faster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two matrices of 16 MiB each: in INT8 a quarter of that is read, so it wins on any machine, however busy."""
    root = tmp_path_factory.mktemp("faster")
    folder = root / "repo/wide/1"
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    weights = [
        numpy_helper.from_array((random.standard_normal((2048, 2048)) / 45).astype(np.float32), name) for name in "ab"
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2048]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "wide", ends[:1], ends[1:], weights), opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )  # fmt: skip
    onnx.save(model, folder / "model.onnx")
    (folder / "vocabulary.txt").write_text("a\nb\n")
    (folder / "provenance.json").write_text(json.dumps({"source": {"shown": "a trained network"}}))
    before = digests(folder)
    result, _ = optimize(
        "wide", f"--repository={root / 'repo'}", "--objective=latency", "--only=dynamic-int8", "--batch=1",
        "--time-budget=20s", "--min-cosine=0.98",
    )  # fmt: skip
    assert digests(folder) == before, "the source was touched"
    return root / "repo", result


def test_what_won_is_the_next_version_with_all_that_belongs_to_it(
    faster: tuple[Path, dict[str, Any]], serve: Callable[..., RunningServer]
) -> None:
    repository, result = faster
    assert result["result"] == "optimized", result["sentence"]
    folder = repository / "wide/2"
    assert (result["version"], Path(result["path"])) == (2, folder)
    assert {each.name for each in folder.iterdir()} == {
        "model.onnx", "optimization.json", "provenance.json", "report.html", "vocabulary.txt",
    }  # fmt: skip
    record = json.loads((folder / "optimization.json").read_text())
    assert record["schema"] == "tensorquay.optimization/1"
    assert record["winner"] == result["winner"]
    assert record["baseline"]["version"] == 1
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["source"] == {"shown": "a trained network"}
    assert provenance["optimization"]["winner"] == result["winner"]
    written = {each["path"]: each["sha256"] for each in provenance["files"]}
    assert written == {name: each for name, each in digests(folder).items() if name != "provenance.json"}
    assert not [each for each in (repository / "wide").iterdir() if each.name.startswith(".")]

    server = serve([repository])
    row = np.random.default_rng(6).standard_normal(2048).astype(np.float32)
    body = {"inputs": [{"name": "x", "shape": [1, 2048], "datatype": "FP32", "data": row.tolist()}]}
    answer = _json_of(server, "/v2/models/wide/infer", body)
    assert answer["model_version"] == "2"
    got = np.array(answer["outputs"][0]["data"], np.float32)
    wanted = Runtime(repository / "wide/1/model.onnx").run({"x": row[None]})["y"][0]
    assert got @ wanted / np.linalg.norm(got) / np.linalg.norm(wanted) > 0.98
    assert not np.array_equal(got, wanted), "that is the model as it was"


def test_a_model_on_which_nothing_helps_stays_as_it_is(tmp_path: Path) -> None:
    model = graphs.write(graphs.scale(), tmp_path / "scale.onnx")
    before = model.read_bytes()
    result, _ = optimize(model, "--dry-run", "--only=graph", "--only=static-int8", *QUICK)
    assert result["result"] == "kept"
    assert "stays as it is" in result["sentence"]
    assert (result["path"], result["version"]) == (None, None)
    assert model.read_bytes() == before
    assert any("not judged on real data" in each for each in result["optimization"]["warnings"])


def test_a_report_is_kept_whether_or_not_something_won(repository: Path, tmp_path: Path) -> None:
    result, _ = optimize("digits", f"--repository={repository}", "--only=graph", "--dry-run", *QUICK,
                         f"--report={tmp_path / 'report'}")  # fmt: skip
    html = (tmp_path / "report/report.html").read_text()
    assert result["report"] == str(tmp_path / "report/report.html")
    assert "<script" not in html
    assert json.loads((tmp_path / "report/optimization.json").read_text()) == result["optimization"]
    assert sorted(each.name for each in (repository / "digits").iterdir()) == ["1"]


def test_people_get_a_table(repository: Path) -> None:
    done = subprocess.run(
        [*command("digits", f"--repository={repository}", "--only=graph", "--dry-run", *QUICK)],
        capture_output=True, text=True, env=environment(), check=True, timeout=110,
    )  # fmt: skip
    assert "as it is" in done.stdout
    assert "variant" in done.stdout.splitlines()[0]
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nix",), 3, "neither a file nor a model"),
        (("digits:7",), 3, "has no version 7; it has 1"),
        (("digits", "--data=nothing.npz"), 3, "'nothing.npz' does not exist"),
        (("digits", "--provider=cuda", *QUICK), 5, "cuda"),
        (("digits", "--output=there"), 8, "'there' exists, and is not overwritten"),
        (("lone.onnx",), 8, "lies in no repository"),
        (("corrupt.onnx", "--dry-run", *QUICK), 3, "corrupt.onnx"),
        (("digits", "--memory-limit=1M", "--dry-run", *QUICK), 7, "its limit is 1 MiB"),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "lone.onnx").write_bytes(DIGITS.read_bytes())
    (tmp_path / "corrupt.onnx").write_bytes(b"no model at all")
    result, _ = optimize(*arguments, f"--repository={repository}", code=code)
    assert result["result"] == "failed"
    assert said in result["sentence"]
    assert sorted(each.name for each in (repository / "digits").iterdir()) == ["1"]
    assert [each.name for each in repository.iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--max-drop=many", "expected a share"),
        ("--max-drop=101%", "expected a share"),
        ("--batch=0", "expected whole numbers"),
        ("--batch=a", "expected whole numbers"),
        ("--size=seq", "expected AXIS=SIZE"),
        ("--size=seq=0", "expected AXIS=SIZE"),
        ("--time-budget=soon", "expected a time"),
        ("--objective=fame", "is not one of"),
        ("--only=baseline", "is not one of"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(option: str, said: str) -> None:
    done = subprocess.run(
        [*command("digits", option)], capture_output=True, text=True, env=environment(), check=False, timeout=60
    )
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing_behind(repository: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [*command("digits", f"--repository={repository}", "--progress=json", "--json", "--time-budget=60s")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["step"] == "try":
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(out)["result"] == "stopped"
    until(lambda: not any(each.is_running() for each in workers), "the workers are gone")
    assert sorted(each.name for each in (repository / "digits").iterdir()) == ["1"]


def test_an_import_goes_on_straight(tmp_path: Path) -> None:
    model = graphs.write(graphs.scale(), tmp_path / "scale.onnx")
    (tmp_path / "repo").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tensorquay_convert", "import", str(model), "--name=scale", "--optimize",
         f"--repository={tmp_path / 'repo'}", "--json", "--time-budget=1s"],
        capture_output=True, text=True, env=environment(), check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported, optimized = map(json.loads, done.stdout.splitlines())
    assert imported["result"] == "imported"
    assert optimized["result"] in {"kept", "optimized"}
    assert onnx.load(tmp_path / "repo/scale/1/model.onnx").graph.node


@pytest.mark.parametrize("arguments", [("--data=x.npz",), ("--optimize", "--dry-run"), ("--optimize", "--output=x")])
def test_an_import_says_which_options_do_not_go_together(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tensorquay_convert", "import", "m.onnx", "--name=m", *arguments],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--optimize" in done.stderr
