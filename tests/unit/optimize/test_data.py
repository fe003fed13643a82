"""The user's files: what is read of them, what is refused and how it is said, and how rows are divided."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.data import files, points
from tensorquay_convert.optimize.data.blocks import Block, Fitting, fitted
from tensorquay_convert.optimize.data.labels import read_labels
from tensorquay_convert.optimize.data.split import MOST_CALIBRATION, MOST_JUDGING, calibration_target, permuted, split
from tensorquay_convert.optimize.data.values import converted
from tensorquay_convert.optimize.goals import GateRules, Metric
from tensorquay_convert.tensors import AxisRange, Interface, Meaning, TensorSpec, Values

ONE = Interface((TensorSpec("x", "float32", ("batch", 3)),), (TensorSpec("y", "float32", ("batch", 10)),))
TOKENS = Interface(
    (
        TensorSpec("ids", "int64", ("batch", "seq"), Values(Meaning.TOKEN_IDS, 0, 99)),
        TensorSpec("mask", "int64", ("batch", "seq"), Values(Meaning.MASK, 0, 1)),
    ),
    (TensorSpec("y", "float32", ("batch", 8)),),
    {"seq": AxisRange(1, 16)},
)
FIXED = Interface((TensorSpec("x", "float32", (1, 3, 2)),), (TensorSpec("y", "float32", (1, 10)),))
TEXTS = Interface((TensorSpec("t", "string", ("batch", 1), Values(Meaning.TEXT)),), ())
IMAGES = Interface((TensorSpec("x", "float32", ("batch", 3, 4, 4)),), ())


def read(path: Path, interface: Interface) -> files.Read:
    return files.read(str(path), interface, files.Budget())


def block(path: Path, interface: Interface, *, batched: bool = True) -> Block:
    found = read(path, interface)
    vocabulary = {"ids": 100} if interface is TOKENS else {}
    return fitted(found.where, found.name, found.arrays, Fitting(interface, vocabulary, batched))


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def npy(path: Path, array: Any, *, allow_pickle: bool = False) -> Path:
    np.save(path, array, allow_pickle=allow_pickle)
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- what is read


@pytest.mark.parametrize("kind", ["npz", "compressed", "unnamed", "npy", "fortran", "json", "request"])
def test_every_kind_of_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float64).reshape(4, 3)
    match kind:
        case "npz":
            path = npz(tmp_path / "d.npz", x=rows)
        case "compressed":
            path = tmp_path / "d.npz"
            np.savez_compressed(path, x=rows)
        case "unnamed":
            path = tmp_path / "d.npz"
            np.savez(path, rows)
        case "npy":
            path = npy(tmp_path / "d.npy", rows)
        case "fortran":
            path = npy(tmp_path / "d.npy", np.asfortranarray(rows))
        case "json":
            path = text(tmp_path / "d.json", json.dumps(rows.tolist()))
        case _:
            tensor = {"name": "x", "shape": [4, 3], "datatype": "FP32", "data": rows.reshape(-1).tolist()}
            path = text(tmp_path / "d.json", json.dumps({"inputs": [tensor]}))
    found = block(path, ONE)
    assert found.rows == 4
    taken = found.take([1, 3])["x"]
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, rows[[1, 3]])


def test_an_image_is_a_row(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    found = block(tmp_path / "red.png", IMAGES)
    assert found.rows == 1
    assert found.take([0])["x"][0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_an_npy_file_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    assert isinstance(read(npy(tmp_path / "d.npy", np.ones((4, 3))), ONE).arrays["x"], np.memmap)


def test_lengths_may_differ_between_files(tmp_path: Path) -> None:
    found = [
        block(npz(tmp_path / f"{length}.npz", ids=np.ones((2, length), int), mask=np.ones((2, length), int)), TOKENS)
        for length in (5, 16)
    ]
    assert [dict(each.sizes) for each in found] == [{"seq": 5}, {"seq": 16}]
    assert found[0].signature != found[1].signature


@pytest.mark.parametrize(
    ("shape", "requests"),
    [((5, 1, 3, 2), 5), ((5, 3, 2), 5), ((1, 3, 2), 1), ((1, 1, 3, 2), 1)],
)
def test_requests_of_a_model_of_fixed_shapes(shape: tuple[int, ...], requests: int, tmp_path: Path) -> None:
    found = block(npy(tmp_path / "d.npy", np.ones(shape, np.float32)), FIXED, batched=False)
    assert found.rows == requests
    assert found.take([0])["x"].shape == (1, 1, 3, 2)


def test_texts_keep_zeros_at_their_end(tmp_path: Path) -> None:
    found = block(text(tmp_path / "d.json", json.dumps([["a\0"], [""], ["ß\0\0"]])), TEXTS)
    assert found.take([0, 1, 2])["t"].tolist() == [[b"a\0"], [b""], ["ß\0\0".encode()]]
    assert found.columns["t"].longest == 4


@pytest.mark.parametrize("values", [np.array([["ä"], ["b"]]), np.array([["ä".encode()], [b"b"]])])
def test_texts_of_numpy(values: Any, tmp_path: Path) -> None:
    assert block(npy(tmp_path / "d.npy", values), TEXTS).take([0, 1])["t"].tolist() == [["ä".encode()], [b"b"]]


# -- values


def spec(dtype: str, **values: Any) -> TensorSpec:
    return TensorSpec("x", dtype, ("batch",), Values(**values))


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        ("float32", np.array([1, -2], np.int64), [1.0, -2.0]),
        ("float32", np.array([True, False]), [1.0, 0.0]),
        ("float16", np.array([0.1, 65504.0]), [float(np.float16(0.1)), 65504.0]),
        ("int64", np.array([3.0, -4.0], np.float32), [3, -4]),
        ("uint8", np.array([0, 255], np.int64), [0, 255]),
        ("uint64", np.array([0, 2**63], np.uint64), [0, 2**63]),
        ("bool", np.array([0.0, 1.0]), [False, True]),
        ("bfloat16", np.array([1.0, -2.0]), [0x3F80, 0xC000]),
        ("bfloat16", np.array([0x3F80, 0xC000], np.uint16), [0x3F80, 0xC000]),
        ("int32", np.array([1, 2], ">i4"), [1, 2]),
    ],
)
def test_safe_casts_are_made(dtype: str, given: Any, expected: list[Any]) -> None:
    found = converted("f.npy", spec(dtype), given, 0, None)
    assert found.dtype == np.dtype("uint16" if dtype == "bfloat16" else dtype)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "given", "says"),
    [
        ("int64", np.array([1.0, 1.5]), "f.npy: input 'x' has 1.5 at [11], expected whole numbers: it is int64"),
        ("int64", np.array([np.nan, 1.0]), "has nan at [10], expected whole numbers"),
        ("int64", np.array([0.0, 2.0**63]), "at [11], expected -9223372036854775808 to 9223372036854775807"),
        ("uint8", np.array([256, 300]), "has 256 at [10] and 1 more like it, expected 0 to 255: it is uint8"),
        ("uint8", np.array([-1, 3], np.int8), "has -1 at [10], expected 0 to 255"),
        ("int64", np.array([2**63], np.uint64), "has 9223372036854775808 at [10]"),
        ("float32", np.array([1.0, np.nan, np.nan]), "has nan at [11] and 1 more like it, expected finite numbers"),
        ("float32", np.array([np.inf]), "has inf at [10], expected finite numbers"),
        ("bfloat16", np.array([0x7FC0], np.uint16), "has nan at [10], expected finite numbers"),
        ("float16", np.array([1e6]), "has 1000000.0 at [10], which float16 cannot hold"),
        ("float32", np.array([1e300]), "which float32 cannot hold"),
        ("bool", np.array([0, 2]), "has 2 at [11], expected true and false, or 0 and 1"),
        ("float32", np.array(["1"]), "is float32, the file holds string"),
        ("float32", np.array([1j]), "is float32, the file holds complex128"),
        ("string", np.array([1.0]), "takes texts, the file holds float64"),
        ("string", np.array([b"\xff"]), "has a text at [10] that is not UTF-8"),
    ],
)
def test_values_that_do_not_fit_are_named(dtype: str, given: Any, says: str) -> None:
    with warnings.catch_warnings(action="error"), pytest.raises(BadSource) as refused:
        converted("f.npy", spec(dtype), given, 10, None)
    assert says in refused.value.sentence
    assert refused.value.remedy


def test_missing_values_are_taken_where_the_model_says_so() -> None:
    table = spec("float32", missing=True)
    assert np.isnan(converted("f", table, np.array([np.nan]), 0, None)).all()
    with pytest.raises(BadSource, match="has inf"):
        converted("f", table, np.array([np.inf]), 0, None)


# -- what is refused


def _announcing(path: Path, shape: str) -> Path:
    """An npy file whose header announces another shape than what follows."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return text(path, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(24))


def _member(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path


def _saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


OBJECTS = np.array([{"a": 1}, None], object)


@pytest.mark.parametrize(
    ("make", "interface", "says", "remedy"),
    [
        (lambda at: at / "gone.npz", ONE, "gone.npz: there is no such file", "npz, npy, json or image"),
        (lambda at: at, ONE, ": is a folder, expected a file", "npz, npy"),
        (lambda at: text(at / "d.npz", b""), ONE, "d.npz: is empty (0 bytes)", "npz, npy"),
        (lambda at: text(at / "d.parquet", b"1"), ONE, "'.parquet' is no kind of data", "npz, npy"),
        (lambda at: text(at / "d.npz", b"junk"), ONE, "is no npz file that can be read", "numpy.savez"),
        (lambda at: text(at / "d.npy", b"junk"), ONE, "is no npy file that can be read", "numpy.save"),
        (lambda at: text(at / "d.json", b"{"), ONE, "d.json: is not JSON", "fit the model's inputs"),
        (lambda at: text(at / "d.json", b"[[1,2,3],[1]]"), ONE, "d.json: input 'x': its lists have", "fit the"),
        (lambda at: text(at / "d.png", b"junk"), IMAGES, "d.png: is no image that can be read", "fit the"),
        (
            lambda at: npz(at / "d.npz", x=np.ones((4, 3)), w=np.ones(4)), ONE,
            "the model has no input 'w'; it has 'x'", "name the arrays",
        ),
        (
            lambda at: npz(at / "d.npz", ids=np.ones((4, 3), int)), TOKENS,
            "input 'mask' is missing, the file holds 'ids'; the model takes 'ids', 'mask'", "every input",
        ),
        (
            lambda at: npy(at / "d.npy", np.ones((4, 3))), TOKENS,
            "holds one array, the model takes 2 inputs: 'ids', 'mask'", "one npz",
        ),
        (
            lambda at: npy(at / "d.npy", np.ones((4, 2, 3))), ONE,
            "input 'x' has shape [4, 2, 3], expected (rows, 3)", "counts rows",
        ),
        (lambda at: npy(at / "d.npy", np.ones((4, 5))), ONE, "has shape [4, 5], expected (rows, 3)", "reshape"),
        (lambda at: npy(at / "d.npy", np.float32(1)), ONE, "has shape [], expected (rows, 3)", "reshape"),
        (lambda at: npy(at / "d.npy", np.ones((0, 3))), ONE, "holds no rows, its shape is [0, 3]", "at least 2"),
        (lambda at: text(at / "d.json", b"[[1]]"), TOKENS, "holds one array, the model takes 2 inputs", "fit the"),
        (lambda at: text(at / "d.json", b'{"x": []}'), ONE, "has shape [0], expected (rows, 3)", "reshape"),
        (
            lambda at: npz(at / "d.npz", ids=np.ones((4, 3), int), mask=np.ones((5, 3), int)), TOKENS,
            "input 'ids' has 4 rows and input 'mask' has 5, expected as many", "same rows",
        ),
        (
            lambda at: npz(at / "d.npz", ids=np.ones((4, 3), int), mask=np.ones((4, 5), int)), TOKENS,
            "axis 1 of input 'mask' ('seq') is 5, and 3 in another input", "pad",
        ),
        (
            lambda at: npz(at / "d.npz", ids=np.ones((4, 17), int), mask=np.ones((4, 17), int)), TOKENS,
            "axis 1 of input 'ids' ('seq') is 17, expected 1 to 16", "cut or pad",
        ),
        (
            lambda at: npz(at / "d.npz", ids=[[1, 5], [100, 101]], mask=np.ones((2, 2), int)), TOKENS,
            "input 'ids' has 100 at [1, 0] and 1 more like it, expected ids from 0 to 99", "vocabulary",
        ),
        (
            lambda at: npz(at / "d.npz", ids=[[1, -1]], mask=[[1, 1]]), TOKENS,
            "input 'ids' has -1 at [0, 1], expected ids from 0 to 99", "vocabulary",
        ),
        (
            lambda at: npz(at / "d.npz", x=OBJECTS), ONE,
            "array 'x': holds Python objects, which are never unpickled", "astype",
        ),
        (
            lambda at: npy(at / "d.npy", OBJECTS, allow_pickle=True), ONE,
            "d.npy: holds Python objects, which are never unpickled", "astype",
        ),
        (
            lambda at: npy(at / "d.npy", np.zeros(4, [("a", "f4"), ("b", "f4")])), ONE,
            "has shape [4], expected (rows, 3)", "reshape",
        ),
        (
            lambda at: npy(at / "d.npy", np.zeros((4, 3), "datetime64[s]")), ONE,
            "is float32, the file holds datetime64", "float32",
        ),
        (
            lambda at: _announcing(at / "d.npy", "(1000000000000, 3)"), ONE,
            "announces 24000000000000 bytes of values, shape [1000000000000, 3], and holds 24", "",
        ),
        (lambda at: _announcing(at / "d.npy", "(-1, 3)"), ONE, "shape [-1, 3], and holds 24", ""),
        (
            lambda at: _member(at / "d.npz", "x.npy", _announcing(at / "m", "(99, 3)").read_bytes()), ONE,
            "array 'x': announces 2376 bytes of values, shape [99, 3], and holds 24: is it cut short?", "",
        ),
        (lambda at: _member(at / "d.npz", "notes.txt", b"hello there"), ONE, "is no npz file that can be read", ""),
        (lambda at: _member(at / "d.npz", "../x.npy", _saved(np.ones((4, 3)))), ONE, "has no input '../x'", ""),
        (
            lambda at: text(at / "d.json", json.dumps([["a"], ["\ud800"]])), TEXTS,
            "has a text at [1, 0] that is not UTF-8", "UTF-8",
        ),
        (lambda at: text(at / "d.json", '[["1","2","3"]]'), ONE, "is float32, the file holds string", "numbers"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_in_a_sentence(
    make: Callable[[Path], Path], interface: Interface, says: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(BadSource) as refused:
        block(make(tmp_path), interface)
    assert says in refused.value.sentence
    assert "\n" not in refused.value.sentence
    assert "example" not in str(refused.value)
    assert remedy in refused.value.remedy


def test_an_archive_is_measured_before_it_is_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1 << 20, 3), np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 16
    with pytest.raises(BadSource, match=r"bomb.npz: unpacks to 12583040 bytes, expected at most 1048576") as refused:
        files.read(str(tmp_path / "bomb.npz"), ONE, files.Budget(1 << 20))
    assert "give fewer rows" in refused.value.remedy


def test_files_share_one_budget(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x=np.zeros((100, 3), np.float32))
    budget = files.Budget(2000)
    files.read(str(path), ONE, budget)
    with pytest.raises(BadSource, match="all files together"):
        files.read(str(path), ONE, budget)


def test_a_request_of_the_wrong_shape_shows_the_full_one(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"has shape \[4, 5\], expected \(requests, 1, 3, 2\)"):
        block(npy(tmp_path / "d.npy", np.ones((4, 5))), FIXED, batched=False)


# -- labels


def labels(path: Path, rows: int, metric: Metric | None = None, interface: Interface = ONE) -> Any:
    return read_labels(str(path), rows, GateRules(metric=metric), interface)


@pytest.mark.parametrize("kind", ["npy", "npz", "column", "txt", "csv", "heading", "bom"])
def test_every_kind_of_labels(kind: str, tmp_path: Path) -> None:
    values = np.array([3, 0, 9])
    match kind:
        case "npy":
            path = npy(tmp_path / "l.npy", values)
        case "npz":
            path = npz(tmp_path / "l.npz", anything=values.astype(np.uint8))
        case "column":
            path = npy(tmp_path / "l.npy", values[:, None])
        case "txt":
            path = text(tmp_path / "l.txt", "3\n0\n9")
        case "csv":
            path = text(tmp_path / "l.csv", "3\r\n 0\r\n9\r\n\r\n")
        case "heading":
            path = text(tmp_path / "l.csv", "digit\n3\n0\n9\n")
        case _:
            path = text(tmp_path / "l.txt", "\ufeff3\n0\n9\n".encode())
    found = labels(path, 3)
    assert found.dtype == np.int64
    assert found.tolist() == [3, 0, 9]


def test_labels_are_classes_or_targets_as_the_metric_says(tmp_path: Path) -> None:
    whole = npy(tmp_path / "l.npy", np.array([1.0, 2.0]))
    assert labels(whole, 2, Metric.TOP1).dtype == np.int64
    assert labels(whole, 2).dtype == np.float64
    assert labels(npy(tmp_path / "i.npy", np.array([100, 200])), 2, Metric.RMSE).dtype == np.float64


@pytest.mark.parametrize(
    ("make", "metric", "says"),
    [
        (lambda at: at / "gone.npy", None, "gone.npy: there is no such file"),
        (lambda at: at, None, "is a folder, expected a file"),
        (lambda at: text(at / "l.txt", ""), None, "is empty (0 bytes)"),
        (lambda at: npy(at / "l.npy", [1, 2]), None, "holds 2 labels, expected 3: one for each row"),
        (lambda at: npy(at / "l.npy", 5), None, "holds a single number, expected 3"),
        (lambda at: npz(at / "l.npz", a=[1], b=[2]), None, "holds 2 arrays (a, b), expected one"),
        (lambda at: npy(at / "l.npy", ["cat", "dog", "cow"]), None, "labels are str", ),
        (lambda at: npy(at / "l.npy", OBJECTS, allow_pickle=True), None, "holds Python objects"),
        (lambda at: npy(at / "l.npy", [1.0, 2.5, 3.0]), Metric.TOP1, "the label of row 1 is 2.5, expected whole"),
        (lambda at: npy(at / "l.npy", [1.0, np.nan, np.nan]), None, "row 1 is nan and 1 more are like it, expected"),
        (lambda at: npy(at / "l.npy", [1, 10, 2]), None, "row 1 is 10, expected 0 to 9: output 'y' has 10 classes"),
        (lambda at: npy(at / "l.npy", [1, 2, -1]), None, "row 2 is -1, expected 0 to 9"),
        (lambda at: npy(at / "l.npy", np.array([1, 2, 2**63], np.uint64)), Metric.TOP1, "expected the number of a"),
        (lambda at: text(at / "l.csv", "1\n2,3\n4\n"), None, "line 2 is '2,3', expected one number"),
        (lambda at: text(at / "l.csv", "a,b\n1\n2\n3\n"), None, "line 1 is 'a,b', expected one number"),
        (lambda at: text(at / "l.txt", "1\n\n2\n3\n"), None, "line 2 is '', expected one number"),
        (lambda at: text(at / "l.txt", b"\xff\xfe1"), None, "is no text that can be read"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(
    make: Callable[[Path], Path], metric: Metric | None, says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadSource) as refused:
        labels(make(tmp_path), 3, metric)
    assert says in refused.value.sentence
    assert refused.value.remedy


# -- dividing


@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=200).filter(lambda each: len(set(each)) > 1), st.integers(0, 9)
)
def test_both_sides_are_disjoint_cover_all_rows_and_share_no_value(values: list[int], seed: int) -> None:
    order = permuted(len(values), seed, "split")
    target = calibration_target(len(values))
    found = split(order, dict(enumerate(values)), dict.fromkeys(range(len(values)), 8), target)
    assert sorted((*found.calibration, *found.judging)) == list(range(len(values)))
    assert found.calibration
    assert found.judging
    assert not {values[row] for row in found.calibration} & {values[row] for row in found.judging}
    assert list(found.calibration) == sorted(found.calibration)
    assert list(found.judging) == sorted(found.judging)
    if len(set(values)) == len(values):
        assert len(found.calibration) == target


@pytest.mark.parametrize(("rows", "target"), [(2, 1), (3, 1), (30, 10), (768, 256), (10_000, MOST_CALIBRATION)])
def test_a_third_calibrates_and_never_more_than_256(rows: int, target: int) -> None:
    assert calibration_target(rows) == target


def test_the_rest_judges_up_to_its_bounds() -> None:
    order = permuted(5000, 0, "split")
    keys = {row: row for row in order}
    assert len(split(order, keys, dict.fromkeys(order, 8), 256).judging) == MOST_JUDGING
    large = split(order, keys, dict.fromkeys(order, 1 << 28), 256)
    assert (len(large.calibration), len(large.judging)) == (1, 4)


def test_rows_that_are_all_equal_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="no two rows differ"):
        split([0, 1], {0: "a", 1: "a"}, {0: 1, 1: 1}, 1)


def test_an_order_is_decided_by_its_seed() -> None:
    assert sorted(permuted(100, 0, "split")) == list(range(100))
    assert permuted(100, 0, "split") == permuted(100, 0, "split")
    assert permuted(100, 0, "split") != permuted(100, 1, "split")


# -- points


def shape(group: int, rows: int = 10, row_bytes: int = 100, *, asked: bool = False) -> points.Shape:
    return points.Shape(group, rows, row_bytes, {"sequence": 8 * (group + 1)}, asked)


@given(st.integers(1, 12), st.sets(st.integers(1, 512), min_size=1, max_size=12), st.booleans())
def test_points_are_few_unique_and_keep_the_outer_batches(groups: int, batches: set[int], batched: bool) -> None:
    found, notes = points.choose([shape(each) for each in range(groups)], sorted(batches), batched=batched)
    assert 1 <= len(found) <= points.MOST_POINTS
    assert len({each.name for each in found}) == len(found)
    used = {each.batch for each in found}
    assert used == {0} if not batched else {min(batches), max(batches)} <= used <= batches
    full = {(each.group, each.batch) for each in found} == {
        (group, batch) for group in range(groups) for batch in (batches if batched else {0})
    }
    assert full == (not notes)


def test_sizes_that_were_asked_for_are_timed_first() -> None:
    shapes = [shape(each, rows=1000) for each in range(6)] + [shape(6, rows=8, asked=True)]
    found, notes = points.choose(shapes, (1, 32), batched=True)
    assert {each.group for each in found} == {0, 1, 2, 6}
    assert notes == ["timed at 4 of the 7 shapes in the data"]


def test_a_batch_whose_inputs_are_too_large_is_left_out() -> None:
    found, notes = points.choose([shape(0, row_bytes=100 << 20)], (1, 8), batched=True)
    assert [each.name for each in found] == ["batch 1, seq 8"]
    assert notes == ["batch 8, seq 8 is not timed: its inputs take 838860800 bytes, at most 536870912 are used"]
