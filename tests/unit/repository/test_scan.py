"""What a look at a repository finds, and that nothing in it can hurt."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorquay.config.model import AllVersions, LatestVersions
from tensorquay.repository.files import ScanLimits
from tensorquay.repository.scan import scan, scan_model, why_empty
from tensorquay.repository.snapshot import ModelFolder, RepositoryUnreadable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


def put(root: Path, path: str, content: str = "x") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    return target


def only(root: Path) -> ModelFolder:
    (model,) = scan([root]).models.values()
    assert str(root) not in repr((model.problem, model.notes, [v.problem for v in model.versions.values()]))
    return model


def test_a_plain_model_needs_no_configuration(root):
    put(root, "m/1/model.onnx")
    put(root, "m/3/model.onnx", "longer")
    model = only(root)
    assert (model.name, model.problem, model.config) == ("m", "", None)
    assert model.policy == LatestVersions(1)
    assert model.versions[3].model_path == root / "m/3/model.onnx"
    (stamp,) = model.versions[3].fingerprint
    assert (stamp.path, stamp.size) == ("model.onnx", 6)
    assert list(model.versions) == [1, 3]


@pytest.mark.parametrize(
    ("config", "file"),
    [("version_policy { all {} }", "config.pbtxt"), ('[versions]\npolicy = "all"', "config.toml")],
)
def test_the_configuration_is_read_from_either_file(root, config, file):
    put(root, "m/1/model.onnx")
    put(root, f"m/{file}", config)
    model = only(root)
    assert model.problem == ""
    assert model.policy == AllVersions()


def test_two_configurations_are_one_too_many(root):
    put(root, "m/1/model.onnx")
    put(root, "m/config.pbtxt")
    put(root, "m/config.toml")
    problem = only(root).problem
    assert "config.pbtxt" in problem
    assert "config.toml" in problem


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"max_batch_size: 1\nmax_batch_size", "config.pbtxt"),
        (b"a\n\xff\xfe", "config.pbtxt line 2: it is not UTF-8 text, got byte 0xff; save the file as UTF-8"),
        (b"#" * (1 << 20) + b"#", "is larger than 1048576 bytes"),
    ],
)
def test_a_refused_configuration_is_the_models_problem(root, content, text):
    put(root, "m/1/model.onnx")
    put(root, "good/1/model.onnx")
    put(root, "m/config.pbtxt").write_bytes(content)
    models = scan([root]).models
    assert text in models["m"].problem
    assert models["good"].problem == ""


def test_a_byte_order_mark_says_nothing(root):
    put(root, "m/1/model.onnx")
    put(root, "m/config.toml").write_bytes(b"\xef\xbb\xbfmax_batch_size = 8")
    assert only(root).config.max_batch_size == 8


@pytest.mark.parametrize("name", ["config.yaml", "Config.toml", "config.toml.txt", "1/config.toml"])
def test_a_configuration_under_a_wrong_name_is_told_of(root, name):
    put(root, "m/1/model.onnx")
    put(root, f"m/{name}")
    (note,) = only(root).notes
    assert note.startswith(f"'{name}' is not read: ")
    put(root, "m/config.pbtxt", "max_batch_size: 1")
    assert only(root).notes == ()


@pytest.mark.parametrize("name", ["abc", "v1", "01", "0", "-1", "1.5", "²", "9" * 20, "9" * 200])
def test_folders_that_are_no_versions_are_ignored(root, name):
    put(root, "m/1/model.onnx")
    put(root, f"m/{name}/model.onnx")
    model = only(root)
    assert list(model.versions) == [1]
    if name.isascii() and name.isdigit():
        assert any("ignored" in note for note in model.notes)


def test_the_largest_version_is_int64(root):
    put(root, f"m/{2**63 - 1}/model.onnx")
    put(root, f"m/{2**63}/model.onnx")
    assert list(only(root).versions) == [2**63 - 1]


@pytest.mark.parametrize(
    "name",
    [".git/1/model.onnx", "m/.hidden/x", "m/1/.model.onnx.Xy12", "m/1/model.onnx.tmp", "m/1/w.part", "n.partial/1/a"],
)
def test_hidden_and_unfinished_files_are_not_seen(root, name):
    put(root, "m/1/model.onnx")
    put(root, name)
    model = only(root)
    assert [stamp.path for stamp in model.versions[1].fingerprint] == ["model.onnx"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is at most 108 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize("make", [fifo, unix_socket])
@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
def test_pipes_and_sockets_are_never_opened(root, make: Callable[[Path], None], name):
    put(root, "m/1/other.txt")
    if name != "model.onnx":
        put(root, "m/1/model.onnx")
    make(root / "m/1" / name)
    files = only(root).versions[1]
    assert files.model_path is None
    assert f"'{name}' is a " in files.problem
    assert "expected a regular file" in files.problem


def test_a_pipe_as_configuration_is_a_problem_and_no_hang(root):
    put(root, "m/1/model.onnx")
    os.mkfifo(root / "m/config.pbtxt")
    assert "named pipe" in only(root).problem


def test_links_may_lead_around_inside_the_repository(root):
    put(root, "shared/1/model.onnx")
    (root / "m/1").mkdir(parents=True)
    (root / "m/1/model.onnx").symlink_to(root / "shared/1/model.onnx")
    (root / "n").symlink_to("shared")
    models = scan([root]).models
    assert models["m"].versions[1].problem == ""
    assert models["n"].name == "n"
    assert models["n"].versions[1].model_path == root / "shared/1/model.onnx"


@pytest.mark.parametrize("where", ["model", "version", "file", "weights", "config"])
def test_links_out_of_the_repository_are_refused(root, where):
    outside = root.parent / "outside"
    put(outside, "1/model.onnx")
    put(outside, "config.pbtxt", "max_batch_size: 3")
    target = {
        "model": (root / "m", outside),
        "version": (root / "m/1", outside / "1"),
        "file": (root / "m/1/model.onnx", outside / "1/model.onnx"),
        "weights": (root / "m/1/weights.bin", outside / "1/model.onnx"),
        "config": (root / "m/config.pbtxt", outside / "config.pbtxt"),
    }[where]
    if where in {"weights", "config"}:
        put(root, "m/1/model.onnx")
    target[0].parent.mkdir(parents=True, exist_ok=True)
    target[0].symlink_to(target[1])
    model = only(root)
    problem = model.problem or model.versions[1].problem
    assert "leads out of the model repository" in problem
    assert str(outside) not in problem


@pytest.mark.parametrize("target", ["nowhere", "model.onnx"])
def test_links_to_nowhere_and_to_themselves_are_problems(root, target):
    (root / "m/1").mkdir(parents=True)
    (root / "m/1/model.onnx").symlink_to(target)
    assert "cannot be followed" in only(root).versions[1].problem


def test_a_link_to_the_folder_above_does_not_go_round_for_ever(root):
    put(root, "m/1/model.onnx")
    (root / "m/1/up").symlink_to(root / "m")
    assert "nested deeper" in only(root).versions[1].problem


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["model.plan"], "found model.plan, a TensorRT engine: it runs only on the runtime it was built for"),
        (["model.pkl"], "found model.pkl, a pickled model: a pickle runs code when it is read"),
        (["model.py"], "found model.py, a Python model: code in a repository is not run"),
        (["net.onnx"], "found net.onnx: rename it, or set default_model_filename"),
        (["readme.md"], "no model.onnx; found readme.md"),
        ([], "the folder is empty"),
    ],
)
def test_a_version_without_a_model_says_what_is_there_instead(root, files, text):
    (root / "m/1").mkdir(parents=True)
    for file in files:
        put(root, f"m/1/{file}")
    found = only(root).versions[1]
    assert found.model_path is None
    assert found.source is None
    assert text in found.problem


@pytest.mark.parametrize(
    ("files", "path", "name", "kind"),
    [
        (["saved_model.pb", "variables/variables.index"], "", "saved_model.pb", "savedmodel"),
        (["model.savedmodel/saved_model.pb"], "model.savedmodel", "model.savedmodel", "savedmodel"),
        (["model.pt"], "model.pt", "model.pt", "torchscript"),
        (["model.pt2"], "model.pt2", "model.pt2", "pt2"),
        (["model.keras"], "model.keras", "model.keras", "keras"),
        (["model.h5"], "model.h5", "model.h5", "keras"),
        (["model.graphdef"], "model.graphdef", "model.graphdef", "graphdef"),
        (["model.tflite"], "model.tflite", "model.tflite", "tflite"),
        (["model.skops"], "model.skops", "model.skops", "skops"),
        (["config.json", "model.safetensors", "tokenizer.json"], "", "config.json", "huggingface"),
        (["xgboost.json"], "xgboost.json", "xgboost.json", "xgboost"),
        (["model.txt"], "model.txt", "model.txt", "lightgbm"),
    ],
)
def test_a_version_of_another_kind_is_a_source_to_import(root, files, path, name, kind):
    (root / "m/1").mkdir(parents=True)
    for file in files:
        put(root, f"m/1/{file}")
    found = only(root).versions[1]
    assert found.model_path is None
    assert found.problem == ""
    assert found.source is not None
    assert (found.source.path, found.source.name, found.source.kind) == (root / "m/1" / path, name, kind)


def test_onnx_beside_a_source_is_what_is_served(root):
    put(root, "m/1/model.onnx")
    put(root, "m/1/model.pt2")
    found = only(root).versions[1]
    assert found.source is None
    assert found.model_path == root / "m/1/model.onnx"


def test_a_file_the_configuration_names_is_a_source_by_its_suffix(root):
    put(root, "m/1/net.pt")
    put(root, "m/config.pbtxt", "default_model_filename: 'net.pt'")
    found = only(root).versions[1].source
    assert found is not None
    assert (found.name, found.kind) == ("net.pt", "torchscript")


def test_weights_alone_and_a_source_that_links_out_are_none(root, tmp_path):
    put(root, "m/1/model.safetensors")
    (root / "n/1").mkdir(parents=True)
    (tmp_path / "outside.pt").write_text("x")
    (root / "n/1/model.pt").symlink_to(tmp_path / "outside.pt")
    models = scan([root]).models
    assert "no model.onnx; found model.safetensors" in models["m"].versions[1].problem
    assert models["n"].versions[1].source is None
    assert "leads out" in models["n"].versions[1].problem


def test_the_model_may_be_a_folder_with_its_weights(root):
    put(root, "m/1/model.onnx/model.onnx")
    put(root, "m/1/model.onnx/weights.bin")
    found = only(root).versions[1]
    assert found.model_path == root / "m/1/model.onnx/model.onnx"
    assert [stamp.path for stamp in found.fingerprint] == ["model.onnx/model.onnx", "model.onnx/weights.bin"]


def test_the_configuration_names_another_file(root):
    put(root, "m/1/net.onnx")
    put(root, "m/config.pbtxt", 'default_model_filename: "net.onnx"')
    assert only(root).versions[1].model_path == root / "m/1/net.onnx"


@pytest.mark.parametrize("name", ["../2/model.onnx", "/etc/passwd", "a\\\\b"])
def test_the_named_file_must_be_inside_the_version(root, name):
    put(root, "m/1/model.onnx")
    put(root, "m/2/model.onnx")
    put(root, "m/config.pbtxt", f'default_model_filename: "{name}"')
    model = only(root)
    assert model.problem or model.versions[1].model_path is None


def test_label_files_and_warmup_data_are_part_of_what_is_watched(root):
    put(root, "m/1/model.onnx")
    put(root, "m/labels.txt")
    put(root, "m/notes.txt")
    put(root, "m/config.pbtxt", 'output { name: "y" data_type: TYPE_FP32 dims: [2] label_filename: "labels.txt" }')
    assert [stamp.path for stamp in only(root).side_files] == ["labels.txt"]


@pytest.mark.parametrize("name", ["../../secret", "link"])
def test_labels_from_elsewhere_are_the_models_problem(root, name):
    put(root.parent, "secret")
    put(root, "m/1/model.onnx")
    (root / "m/link").symlink_to(root.parent / "secret")
    put(root, "m/config.pbtxt", f'output {{ name: "y" data_type: TYPE_FP32 dims: [2] label_filename: "{name}" }}')
    assert only(root).problem


def test_a_model_without_versions_says_where_the_file_belongs(root):
    put(root, "m/model.onnx")
    model = only(root)
    assert model.versions == {}
    assert why_empty(model) == (
        "model 'm' has no available versions: there is no numbered version folder, put the file at m/1/model.onnx"
    )


def test_an_empty_folder_and_a_stray_file_are_no_models(root):
    (root / "nothing").mkdir()
    put(root, "README.md")
    snapshot = scan([root])
    assert snapshot.models == {}
    assert any("'nothing' is empty" in note for note in snapshot.notes)


def test_names_that_cannot_be_models_are_noted(root):
    (root / "a\nb/1").mkdir(parents=True)
    (root / os.fsdecode(b"\xff\xfe") / "1").mkdir(parents=True)
    snapshot = scan([root])
    assert snapshot.models == {}
    assert len([note for note in snapshot.notes if "cannot be the name of a model" in note]) == 2
    assert all(note.isprintable() for note in snapshot.notes)


def test_a_model_in_two_repositories_is_in_neither(root, tmp_path):
    other = tmp_path / "other"
    put(root, "m/1/model.onnx")
    put(root, "a/1/model.onnx")
    put(other, "m/1/model.onnx")
    put(other, "b/1/model.onnx")
    models = scan([root, other]).models
    assert models["m"].problem == "model 'm' is in model repositories 1 and 2: keep it in one of them"
    assert models["a"].problem == models["b"].problem == ""
    found = scan_model([root, other], "m")
    assert found is not None
    assert found.problem == models["m"].problem


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_repository_that_cannot_be_listed_is_not_an_empty_one(root, kind, tmp_path):
    bad = tmp_path / "bad"
    if kind == "file":
        bad.write_text("x")
    with pytest.raises(RepositoryUnreadable, match="model repository 2 cannot be read") as caught:
        scan([root, bad])
    assert str(tmp_path) not in str(caught.value)


def test_an_empty_repository_is_fine(root):
    assert scan([root]).models == {}


def test_one_model_can_be_looked_at_alone_and_with_another_configuration(root):
    put(root, "m/1/model.onnx")
    put(root, "n/1/model.onnx")
    whole = scan([root]).models["m"]
    assert scan_model([root], "m") == whole
    assert scan_model([root], "x") is None
    assert scan_model([root], "../models/m") is None
    assert scan_model([root], "\udcff") is None


def test_an_unchanged_configuration_is_not_parsed_again(root):
    put(root, "m/1/model.onnx")
    put(root, "m/config.pbtxt", "max_batch_size: 3")
    first = scan([root])
    again = scan([root], previous=first)
    assert again.models["m"].config is first.models["m"].config
    put(root, "m/config.pbtxt", "max_batch_size: 4")
    changed = scan([root], previous=again).models["m"].config
    assert changed is not None
    assert changed.max_batch_size == 4


def test_everything_is_bounded(root):
    for number in range(1, 6):
        put(root, f"m/{number}/model.onnx")
    for name in ("n", "o"):
        put(root, f"{name}/1/model.onnx")
    limits = ScanLimits(max_models=2, max_versions=3)
    snapshot = scan([root], limits)
    assert list(snapshot.models) == ["m", "n"]
    assert list(snapshot.models["m"].versions) == [3, 4, 5]
    assert snapshot.notes
    assert snapshot.models["m"].notes
    for index in range(4):
        put(root, f"m/5/w{index}")
    assert "more than 3 files" in scan([root], ScanLimits(max_files=3)).models["m"].versions[5].problem
    put(root, "m/5/a/b/c/d")
    assert "nested deeper than 2" in scan([root], ScanLimits(max_depth=2)).models["m"].versions[5].problem


def test_what_every_volume_has_at_its_root_is_no_model(root):
    put(root, "m/1/model.onnx")
    (root / "lost+found").mkdir(mode=0o700)
    assert list(scan([root]).models) == ["m"]
    assert scan([root]).notes == ()
