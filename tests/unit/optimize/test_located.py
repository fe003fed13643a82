"""Which file a command means."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.located import locate


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    for version in (1, 2, 10):
        folder = root / "net" / str(version)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"x")
    (root / "net" / "labels.txt").write_text("a\n")
    (root / "torch" / "1").mkdir(parents=True)
    (root / "torch" / "1" / "model.pt2").write_bytes(b"x")
    (root / "named" / "1").mkdir(parents=True)
    (root / "named" / "1" / "graph.onnx").write_bytes(b"x")
    (root / "empty").mkdir()
    (root / ".import-1").mkdir()
    return root


def test_a_name_means_its_highest_version(repository: Path) -> None:
    found = locate("net", repository)
    assert (found.path, found.name, found.version) == (repository / "net/10/model.onnx", "net", 10)
    assert found.folder == repository / "net"


@pytest.mark.parametrize(("text", "version"), [("net:2", None), ("net", 2), ("net:2", 2)])
def test_a_version_by_name_or_by_option(repository: Path, text: str, version: int | None) -> None:
    assert locate(text, repository, version).path == repository / "net/2/model.onnx"


def test_folders_and_files_of_a_repository_are_what_they_are_there(repository: Path) -> None:
    for text in (repository / "net", repository / "net/10", repository / "net/10/model.onnx"):
        found = locate(str(text), Path("elsewhere"))
        assert (found.name, found.version, found.folder) == ("net", 10, repository / "net")


def test_a_lone_file_is_in_no_repository(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "lone.onnx"
    path.write_bytes(b"x")
    found = locate(str(path), repository)
    assert (found.path, found.name, found.version, found.folder) == (path, "lone", None, None)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"x")
    for text in (folder, folder / "model.onnx"):
        assert (locate(str(text), repository).name, locate(str(text), repository).folder) == ("made", None)


def test_the_only_onnx_file_of_a_version_is_its_model(repository: Path) -> None:
    assert locate("named", repository).path == repository / "named/1/graph.onnx"


@pytest.mark.parametrize(
    ("text", "version", "said"),
    [
        ("nix", None, "neither a file nor a model in '.*'; there are: empty, named, net, torch"),
        ("net:3", None, "has no version 3; it has 1, 2, 10"),
        ("net:2", 1, "names version 2 and --version says 1"),
        ("torch", None, r"version 1 of model 'torch' has no model.onnx; .*tensorquay import"),
        ("empty", None, "has no versions: expected <number>/model.onnx"),
        ("", None, "neither a file nor a model"),
        ("../../etc", None, "neither a file nor a model"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    repository: Path, text: str, version: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.parent)
    with pytest.raises(BadSource, match=said):
        locate(text, repository, version)


def test_a_file_has_no_versions(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "lone.onnx"
    path.write_bytes(b"x")
    with pytest.raises(BadSource, match="is a file"):
        locate(str(path), repository, 3)
    with pytest.raises(BadSource, match="is one version's folder"):
        locate(str(repository / "net/2"), repository, 3)


def test_without_a_repository_it_is_said_where_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no folder that can be read; say where the models are with --repository"):
        locate("net", tmp_path / "none")
