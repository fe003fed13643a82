from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from optimized import write_optimization
from tensorquay import cli
from tensorquay.config.effective import DEFAULT_MAX_BATCH_SIZE
from tensorquay.config.server import ServerConfig


def _model(batch: int | str = "batch") -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


Put = Callable[..., None]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def put(repo: Path) -> Put:
    def put(name: str, *versions: int, model: bytes | None = None, config: str = "") -> None:
        for version in versions:
            folder = repo / name / str(version)
            folder.mkdir(parents=True)
            (folder / "model.onnx").write_bytes(_model() if model is None else model)
        if config:
            (repo / name / "config.pbtxt").write_text(config)

    return put


def run(capsys: pytest.CaptureFixture[str], repo: Path, *flags: str) -> tuple[int, str]:
    code = cli.main(["check", str(repo), *flags])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


def as_json(capsys: pytest.CaptureFixture[str], repo: Path, *flags: str) -> dict[str, dict[str, Any]]:
    _, out = run(capsys, repo, "--json", *flags)
    return {model["name"]: model for model in json.loads(out)["models"]}


def test_a_good_repository_is_shown_with_every_origin(put: Put, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("plain", 1)
    put("said", 1, 2, config="max_batch_size: 8")
    code, out = run(capsys, repo)
    assert code == 0
    assert "2 models, 0 problems" in out
    shown = as_json(capsys, repo, "--default-max-batch-size=5")
    plain, said = shown["plain"]["config"], shown["said"]["config"]
    assert plain["max_batch_size"] == {"value": "5", "origin": "default"}
    assert plain["input[0].dims"] == {"value": "[3]", "origin": "graph"}
    assert said["max_batch_size"] == {"value": "8", "origin": "config.pbtxt"}
    assert shown["said"]["versions"] == [2]
    assert any("version 1 is not served" in str(remark) for remark in shown["said"]["remarks"])


def test_why_a_model_does_not_batch_is_told(put: Put, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("fixed", 1, model=_model(4))
    code, out = run(capsys, repo)
    assert code == 0
    assert "does not batch" in out


def test_every_problem_is_told_at_once(put: Put, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("corrupt", 1, model=b"no model")
    put("unknown_key", 1, config="max_batch_sise: 8")
    put("contradiction", 1, config='max_batch_size: 8 input { name: "z" data_type: TYPE_FP32 dims: [3] }')
    put("labels", 1, config='output { name: "y" label_filename: "../../x" }')
    put("none_selected", 1, config="version_policy { specific { versions: 7 } }")
    put("good", 1)
    (repo / "empty" / "files").mkdir(parents=True)
    code, out = run(capsys, repo)
    assert code == 1
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert {line.split()[1].rstrip(":") for line in problems} == {
        "corrupt",
        "unknown_key",
        "contradiction",
        "labels",
        "none_selected",
        "empty",
    }
    assert "good: would serve version 1" in out
    assert "max_batch_sise" in out


def test_a_refused_configuration_names_file_key_value_and_rule(
    put: Put, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("m", 1, config='name: "other"')
    model = as_json(capsys, repo)["m"]
    (problem,) = model["problems"]
    assert {"file", "key", "value", "rule"} <= set(problem)
    assert (problem["file"], problem["key"]) == ("config.pbtxt", "name")


def test_a_name_twice_is_a_problem(put: Put, repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("m", 1)
    other = tmp_path / "other" / "m" / "1"
    other.mkdir(parents=True)
    (other / "model.onnx").write_bytes(_model())
    assert cli.main(["check", str(repo), str(tmp_path / "other")]) == 1
    assert "problem: m:" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code"), [(["/nonexistent/models"], 1), ([], 2)])
def test_no_repository_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> None:
    assert cli.main(["check", *arguments]) == code
    assert capsys.readouterr().err.count("\n") == 1


IGNORED = """
optimization {
  priority: PRIORITY_MAX cuda { graphs: true } input_pinned_memory { enable: true } eager_batching: true
}
parameters { key: "my_owner" value { string_value: "me" } }
"""


@pytest.mark.parametrize("text", [IGNORED, IGNORED + 'name: "other"'], ids=["served", "refused"])
def test_what_is_accepted_without_effect_is_noted(
    put: Put, repo: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    put("m", 1, config=text)
    _, out = run(capsys, repo)
    remarks = as_json(capsys, repo)["m"]["remarks"]
    assert isinstance(remarks, list)
    for key in ("optimization.priority", "optimization.cuda", "input_pinned_memory", "eager_batching", "my_owner"):
        assert [line for line in out.splitlines() if line.startswith("note: ") and key in line], key
        assert [remark for remark in remarks if key in remark], key


WARMUP = """
model_warmup {
  name: "w"
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [3] input_data_file: "raw" } }
}
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "'warmup/raw' does not exist in the model's folder"),
        (b"12345678901", "'warmup/raw': "),
        (b"123456789012", ""),
    ],
)
def test_warm_up_files_are_read(
    put: Put, repo: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    put("m", 1, config=WARMUP)
    if content is not None:
        (repo / "m" / "warmup").mkdir()
        (repo / "m" / "warmup" / "raw").write_bytes(content)
    found = as_json(capsys, repo)["m"]
    assert [said in problem["text"] and "model_warmup 'w'" in problem["text"] for problem in found["problems"]] == (
        [True] if said else []
    )
    if not said:
        assert "count 1" in found["config"]["warmup[0]"]["value"]


def test_a_missing_label_file_is_named_with_its_output(
    put: Put, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("m", 1, config='output { name: "y" label_filename: "nope.txt" }')
    _, out = run(capsys, repo)
    assert "problem: m: output 'y': label_filename 'nope.txt' does not exist in the model's folder\n" in out


@pytest.mark.parametrize(("labels", "noted"), [("a\nb\n", True), ("a\nb\nc\n", False), ("a\nb\nc\nd\n", False)])
def test_fewer_labels_than_classes_are_noted(
    put: Put, repo: Path, capsys: pytest.CaptureFixture[str], labels: str, noted: bool
) -> None:
    put("m", 1, config='output { name: "y" label_filename: "labels.txt" }')
    (repo / "m" / "labels.txt").write_text(labels)
    code, out = run(capsys, repo)
    assert code == 0
    assert ("output 'y': label file 'labels.txt' has 2 lines for 3 classes" in out) is noted


def test_a_models_folder_is_no_repository(put: Put, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("iris", 1)
    assert cli.main(["check", str(repo / "iris")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"'{repo / 'iris'}' is a model's folder" in err
    assert f"serve its parent '{repo}'" in err


def test_a_model_may_be_called_by_a_number(put: Put, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("1", 1)
    assert run(capsys, repo)[0] == 0


def test_check_and_serve_agree_on_the_default() -> None:
    assert ServerConfig().default_max_batch_size == DEFAULT_MAX_BATCH_SIZE


def test_what_an_optimisation_says_is_remarked(put: Put, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("good", 1)
    put("broken", 1)
    put("hostile", 1)
    write_optimization(repo / "good/1")
    write_optimization(repo / "hostile/1", settings={"provider": "tpu"})
    (repo / "broken/1/optimization.json").write_text("{")
    found = as_json(capsys, repo)
    (remark,) = found["good"]["remarks"]
    assert remark.startswith(
        "version 1 was optimised (static int8, minmax) on Test CPU 1: its settings are applied where"
    )
    assert found["broken"]["remarks"] == ["version 1: 'optimization.json' is not JSON"]
    assert "none of its settings will be applied" in found["hostile"]["remarks"][0]
    assert not any(model["problems"] for model in found.values())


def test_what_a_background_optimisation_would_be_like_is_shown(
    put: Put, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("m", 1)
    (repo / "m/config.toml").write_text(
        '[optimization]\nbackground = "stale"\nmax_drop = 0.01\ndata = "d.npz"\nlabels = "../l.npy"\n'
    )
    assert "stays inside its folder" in as_json(capsys, repo)["m"]["problems"][0]["text"]
    (repo / "m/config.toml").write_text('[optimization]\nbackground = "stale"\nmax_drop = 0.01\ndata = "d.npz"\n')
    found = as_json(capsys, repo)["m"]
    assert found["config"]["optimization.background"] == {"value": "stale", "origin": "config.toml"}
    assert found["config"]["optimization.max_drop"] == {"value": "0.01", "origin": "config.toml"}
    assert "optimization.objective" not in found["config"]
    (remark,) = found["remarks"]
    assert remark.startswith("optimization.data: 'd.npz' does not exist")
    (repo / "m/d.npz").write_text("x")
    assert as_json(capsys, repo)["m"]["remarks"] == []
