"""Inputs of the user's own: every kind of file, fitted to the interface, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.convert.proof.graphs import tensor

from tensorquay_convert.errors import BadSource
from tensorquay_convert.proof.examples import read
from tensorquay_convert.tensors import BATCH, AxisRange, Interface, Meaning

ONE = Interface((tensor("x", "float32", BATCH, 3),), ())
TWO = Interface(
    (tensor("ids", "int64", BATCH, "seq"), tensor("mask", "int64", BATCH, "seq")), (), {"seq": AxisRange(2, 8, 2)}
)
IMAGE = Interface((tensor("image", "float32", BATCH, 3, 4, 6, meaning=Meaning.IMAGE, low=-1, high=1),), ())


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def _npy(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def _json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_arrays_by_name(tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", ids=np.ones((2, 4), np.int64), mask=np.ones((2, 4), np.int32))
    (found,) = read([path], TWO)
    assert (found.name, found.sizes) == ("a.npz", {BATCH: 2, "seq": 4})
    assert found.inputs["mask"].dtype == np.int64


def test_named_files_make_one_example_until_a_name_comes_again(tmp_path: Path) -> None:
    ids, mask = _npy(tmp_path / "i.npy", np.ones((1, 2), np.int64)), _npy(tmp_path / "m.npy", np.ones((1, 2), np.int64))
    paths = [Path(f"ids={ids}"), Path(f"mask={mask}"), Path(f"ids={ids}"), Path(f"mask={mask}")]
    assert [each.name for each in read(paths, TWO)] == ["i.npy, m.npy"] * 2


def test_a_missing_batch_axis_is_added_and_precision_may_be_lost(tmp_path: Path) -> None:
    (found,) = read([_npy(tmp_path / "x.npy", np.array([1.0, 2.0, 3.0]))], ONE)
    assert (found.inputs["x"].shape, found.inputs["x"].dtype) == ((1, 3), np.float32)


@pytest.mark.parametrize(
    "value",
    [
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]},
        {"x": [[1, 2, 3]]},
        [[1, 2, 3]],
        [1, 2, 3],
    ],
)
def test_json(value: Any, tmp_path: Path) -> None:
    (found,) = read([_json(tmp_path / "x.json", value)], ONE)
    assert found.inputs["x"].tolist() == [[1, 2, 3]]


def test_texts(tmp_path: Path) -> None:
    words = Interface((tensor("t", "string", BATCH, 1),), ())
    (found,) = read([_json(tmp_path / "t.json", {"t": [["größe"], ["b"]]})], words)
    assert found.inputs["t"].tolist() == [["größe".encode()], [b"b"]]


def test_images_are_fitted_and_scaled(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("L", (30, 20), 255).save(path)
    (found,) = read([path], IMAGE)
    assert found.inputs["image"].shape == (1, 3, 4, 6)
    assert (found.inputs["image"] == 1).all()
    last = Interface((tensor("image", "uint8", BATCH, "h", "w", 1),), (), {"h": AxisRange(8, 16, 8)})
    (found,) = read([path], last)
    assert (found.inputs["image"].shape, found.inputs["image"].max()) == ((1, 16, 30, 1), 255)


@pytest.mark.parametrize(
    ("name", "content", "interface", "said"),
    [
        ("x.npz", b"not an archive", ONE, "x.npz: is no npz file"),
        ("x.npy", b"\x93NUMPY broken", ONE, "x.npy: is no npy file"),
        ("x.npy", b"", ONE, "x.npy: is no npy file"),
        ("x.json", b"{", ONE, "x.json: is not JSON"),
        ("x.json", b"[" * 100_000, ONE, "x.json: is not JSON"),
        ("x.json", b"[[1, 2], [3]]", ONE, "different lengths"),
        ("x.json", b'{"x": {"a": 1}}', ONE, "expected numbers"),
        ("x.json", b'{"inputs": [{"name": "x", "shape": [2, 3], "data": [1]}]}', ONE, "1 values do not fill"),
        ("x.json", b'{"inputs": [{"name": "x", "shape": "no", "data": [1]}]}', ONE, "its shape is no list"),
        ("x.json", b'{"z": [[1, 2, 3]]}', ONE, "has no input 'z'; it has x"),
        ("x.json", b"{}", ONE, "input 'x' is missing"),
        ("x.json", b"[[1, 2]]", ONE, "axis 1 of input 'x' is 3, the example holds 2"),
        ("x.json", b"[[[1, 2, 3]]]", ONE, "has shape ['batch', 3], the example holds [1, 1, 3]"),
        ("x.json", b'[["a", "b", "c"]]', ONE, "is float32, the example holds string"),
        ("x.json", b"[[1, 2]]", TWO, "holds one array, the model takes 2 inputs"),
        ("x.json", b'{"ids": [[1, 2]], "mask": [[1, 2, 3]]}', TWO, "'seq', which is 2 elsewhere"),
        ("x.json", b'{"ids": [[1, 2, 3]], "mask": [[1, 2, 3]]}', TWO, "may be 2 to 8, in steps of 2"),
        ("x.json", b'{"ids": [[1.5, 2]], "mask": [[1, 2]]}', TWO, "is int64, the example holds float64"),
        ("x.png", b"no image", IMAGE, "x.png: is no image"),
        ("x.png", b"no image", ONE, "does not take exactly one input of an image's shape"),
        ("x.csv", b"1,2,3", ONE, "'.csv' is no kind of example"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_by_name(
    name: str, content: bytes, interface: Interface, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadSource) as caught:
        read([path], interface)
    assert said in caught.value.sentence


def test_files_that_are_not_there_and_pickles(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="there is no such file"):
        read([tmp_path / "none.npz"], ONE)
    with pytest.raises(BadSource, match="there is no such file"):
        read([Path("x=none.npy")], ONE)
    path = tmp_path / "p.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(BadSource, match="is no npy file"):
        read([path], ONE)
    small = Interface((tensor("x", "int8", BATCH),), ())
    with pytest.raises(BadSource, match="is int8, the example holds int64"):
        read([_npy(tmp_path / "big.npy", np.array([300]))], small)
