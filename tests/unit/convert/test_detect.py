"""What a source is, told by looking at it; every refusal says what was found and what to do."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import graphs

from tensorquay_convert.detect import Detected, detect
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind

ONNX = graphs.scale().SerializeToString()
GRAPH_DEF = bytes.fromhex("0a0c0a01781207506c616365686f")[:14] + bytes.fromhex("22040896121808")[:6]
SAFETENSORS = struct.pack("<Q", 2) + b"{}" + b"\0" * 8


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return made.getvalue()


def found(source: Path | str, **job: object) -> Detected:
    return detect(ImportJob(source=str(source), **job))  # type: ignore[arg-type]


def refused(source: Path | str, **job: object) -> str:
    with pytest.raises(BadSource) as error:
        found(source, **job)
    return str(error.value)


def told(source: Path) -> str | None:
    """The refusal, or None when the source is a kind; anything else fails the test."""
    try:
        found(source)
    except BadSource as exc:
        return exc.sentence
    return None


FILES = {
    "m.pt2": (zipped("m/archive_format", "m/models/model.json", "m/data/weights/w"), SourceKind.TORCH_EXPORT),
    "flat.pt2": (zipped("archive_format", "models/model.json"), SourceKind.TORCH_EXPORT),
    "old.pt2": (zipped("serialized_exported_program.json"), SourceKind.TORCH_EXPORT),
    "m.pt": (zipped("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), SourceKind.TORCHSCRIPT),
    "renamed.bin": (zipped("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), SourceKind.TORCHSCRIPT),
    "m.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), SourceKind.KERAS),
    "m.h5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, SourceKind.KERAS),
    "m.skops": (zipped("schema.json", "1.npy"), SourceKind.SKOPS),
    "m.tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 100, SourceKind.TFLITE),
    "m.json": (b'{"learner":{"attributes":{}},"version":[3,2,0]}', SourceKind.XGBOOST),
    "m.ubj": (b"{L\0\0\0\0\0\0\0\x07learner{", SourceKind.XGBOOST),
    "m.txt": (b"tree\nversion=v4\nnum_class=1\n", SourceKind.LIGHTGBM),
    "m.onnx": (ONNX, SourceKind.ONNX),
    "no-suffix": (ONNX, SourceKind.ONNX),
    "m.pb": (GRAPH_DEF, SourceKind.GRAPH_DEF),
    "renamed.pb": (ONNX, SourceKind.ONNX),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_known_by_its_bytes(tmp_path: Path, name: str) -> None:
    content, kind = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert found(tmp_path / name).kind is kind


REFUSED = {
    "empty": (b"", "is empty"),
    "weights.pt": (zipped("w/data.pkl", "w/version", "w/data/0"), "pickled PyTorch checkpoint.*--weights"),
    "old.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M", "before PyTorch 1.6.*--weights"),
    "w.safetensors": (SAFETENSORS, "safetensors file.*--weights"),
    "arrays.npz": (zipped("a.npy", "b.npy"), "NumPy arrays.*--example"),
    "a.npy": (b"\x93NUMPY\1\0", "NumPy array.*--example"),
    "a.png": (b"\x89PNG\r\n", "an image"),
    "other.zip": (zipped("readme.txt"), "no known kind; it holds readme.txt"),
    "empty.zip": (zipped(), "it is empty"),
    "cut.keras": (zipped("config.json", "model.weights.h5")[:60], "cut short"),
    "cut.onnx": (ONNX[:-20], "ONNX model that is cut short"),
    "cut.pb": (GRAPH_DEF[:8], "cut short"),
    "lfs.onnx": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
    "page.onnx": (b"<!DOCTYPE html><html>", "a web page"),
    "text.onnx": (b"hello there", "no ONNX model"),
    "text.md": (b"hello there", "no known kind.*'hello there'.*accepted files"),
    "zeros": (b"\0" * 500, "no known kind"),
    "m.gguf": (b"GGUF\3\0\0\0", "GGUF"),
    "m.ort": (b"\x18\0\0\0ORTM", "ONNX Runtime's own format"),
    "m.cbm": (b"CBM1\0\0", "CatBoost"),
    "m.model": (b"binf\0\0", "old binary format"),
    "m.tar.gz": (b"\x1f\x8b\x08\0", "compressed"),
    "m.tar": (b"\0" * 257 + b"ustar\0", "tar archive"),
    "package.json": (b'{"name": "x"}', "JSON of no known kind"),
    "config.json": (b'{"model_type": "bert"}', "give the folder"),
    "m.pkl": (pickle.dumps({"a": 1}), "is a pickle.*skops.*--trust-pickle"),
    "m.joblib": (b"\x78\x9c\x00", "is a pickle"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_model_says_what_it_is(tmp_path: Path, name: str) -> None:
    content, said = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSource, match=said):
        found(tmp_path / name)


def test_a_pickle_is_taken_only_with_trust(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert found(path, trust_pickle=True).kind is SourceKind.PICKLE
    assert "--trust-pickle" in refused(path, kind=SourceKind.PICKLE)


def test_a_zip_that_would_unpack_to_terabytes_is_only_listed(tmp_path: Path) -> None:
    data = bytearray(zipped("metadata.json", "config.json", "model.weights.h5"))
    # The sizes in the central directory, and in a zip64 field nobody believes.
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<II", data, at + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    (tmp_path / "m.keras").write_bytes(data)
    assert found(tmp_path / "m.keras").kind is SourceKind.KERAS


def test_a_zip_that_lists_without_end_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped("config.json"))
    struct.pack_into("<I", data, len(data) - 22 + 12, 0xFFFFFFF0)
    (tmp_path / "m.keras").write_bytes(data)
    assert "list of entries" in refused(tmp_path / "m.keras")


@given(st.binary(max_size=400), st.sampled_from(["m.onnx", "m.pb", "m.pt", "m.keras", "x", "m.json", "m.pkl"]))
def test_any_bytes_are_a_kind_or_refused_in_a_sentence(tmp_path_factory, data: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(data)
    said = told(path)
    assert said is None or name in said


@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_cut_file_is_never_our_bug(tmp_path_factory, name: str, data: st.DataObject) -> None:
    content = FILES[name][0]
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert told(path) != ""


# -- what is no file


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nothing.onnx")
    assert "does not exist" in refused(tmp_path / "nothing.py:make")
    assert "empty" in refused("")
    assert "empty" in refused("a\0b")


def test_links_pipes_sockets_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "named pipe" in refused(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "loop" in refused(tmp_path / "loop")
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    assert "leads nowhere" in refused(tmp_path / "lost")
    assert "device" in refused("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        assert "socket" in refused(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(ONNX)
    (tmp_path / "m.onnx").chmod(0)
    assert "cannot be opened" in refused(tmp_path / "m.onnx")


def test_a_name_longer_than_any_path_is_refused(tmp_path: Path) -> None:
    assert "cannot be looked at" in refused("x" * 5000)


# -- folders


def folder(root: Path, *files: str) -> Path:
    for each in files:
        path = root / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ONNX if each.endswith(".onnx") else SAFETENSORS if each.endswith(".safetensors") else b"{}")
    return root


def test_folders_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    assert found(folder(tmp_path / "a", "saved_model.pb", "variables/variables.index")).kind is SourceKind.SAVED_MODEL
    assert found(folder(tmp_path / "b", "config.json", "model.safetensors")).kind is SourceKind.HUGGING_FACE
    sharded = folder(tmp_path / "c", "config.json", "model-1-of-2.safetensors", "model.safetensors.index.json")
    assert found(sharded).kind is SourceKind.HUGGING_FACE
    triton = found(folder(tmp_path / "d", "1/model.savedmodel/saved_model.pb", "config.pbtxt"))
    assert (triton.kind, triton.source) == (SourceKind.SAVED_MODEL, str(tmp_path / "d/1/model.savedmodel"))
    assert found(folder(tmp_path / "e", "model.onnx", "weights.bin")).kind is SourceKind.ONNX


def test_the_file_in_a_saved_model_means_the_folder(tmp_path: Path) -> None:
    folder(tmp_path, "saved_model.pb")
    (tmp_path / "saved_model.pb").write_bytes(bytes.fromhex("08011202080a"))
    assert found(tmp_path / "saved_model.pb").source == str(tmp_path)


def test_the_highest_version_is_chosen_and_said(tmp_path: Path) -> None:
    base = folder(tmp_path, "2/saved_model.pb", "10/saved_model.pb", "9/saved_model.pb", "tmp/x")
    chosen = found(base)
    assert chosen.source == str(tmp_path / "10")
    assert chosen.notes == ("version 10 chosen, the highest; also there: 9, 2",)


def test_folders_that_are_no_model_say_what_they_hold(tmp_path: Path) -> None:
    assert "is empty" in refused(folder(tmp_path / "a", "b/.hidden") / "b")
    pickled = folder(tmp_path / "c", "config.json", "pytorch_model.bin")
    assert "safe_serialization" in refused(pickled)
    assert "no weights" in refused(folder(tmp_path / "d", "config.json", "tf_model.h5"))
    assert "unpacked .keras" in refused(folder(tmp_path / "e", "config.json", "model.weights.h5"))
    assert "several models: a.onnx, b.onnx" in refused(folder(tmp_path / "f", "a.onnx", "b.onnx"))
    assert "several models" in refused(folder(tmp_path / "g", "model.onnx", "model.pt"))
    assert "which holds a.md, b.md" in refused(folder(tmp_path / "h", "a.md", "b.md"))
    assert "text form" in refused(folder(tmp_path / "i", "saved_model.pbtxt"))
    assert "folders deep" in refused(folder(tmp_path / "j", "1/1/1/1/1/1/model.onnx"))


# -- factories


def test_a_factory_is_known_by_what_its_file_imports(tmp_path: Path) -> None:
    for text, kind in (
        ("import torch\n", SourceKind.TORCH_FACTORY),
        ("from flax import nnx\n", SourceKind.JAX_FACTORY),
        ("import torch, jax\nimport jax\n", None),
        ("x = 1\n", None),
    ):
        (tmp_path / "model.py").write_text(text)
        assert found(f"{tmp_path}/model.py:make").kind is kind
    assert found(f"{tmp_path}/model.py:make", kind=SourceKind.JAX_FACTORY).kind is SourceKind.JAX_FACTORY
    assert found("package.module:make").kind is None


def test_a_factory_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "is a factory" in refused("package.module:make", kind=SourceKind.ONNX)
    (tmp_path / "m.onnx").write_bytes(ONNX)
    assert "is no factory" in refused(tmp_path / "m.onnx", kind=SourceKind.TORCH_FACTORY)
    (tmp_path / "d.py").mkdir()
    assert "is a folder" in refused(f"{tmp_path}/d.py:make")


def test_the_kind_that_is_told_wins(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(ONNX)
    told = found(tmp_path / "m.onnx", kind=SourceKind.GRAPH_DEF)
    assert told.kind is SourceKind.GRAPH_DEF
    assert "looks like an ONNX model" in told.notes[0]
    (tmp_path / "unknown").write_bytes(b"hello")
    assert found(tmp_path / "unknown", kind=SourceKind.KERAS).kind is SourceKind.KERAS


def test_real_archives_of_numpy_are_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    assert "--example" in refused(tmp_path / "x.npz")
