"""The models that are shipped do what their README says, run by ONNX Runtime itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).parents[3]
REPOSITORY = ROOT / "model_repo"
README = (REPOSITORY / "README.md").read_text()
FILES = sorted(REPOSITORY.glob("*/*/model.onnx"))


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The images and digits that training never saw: the split of train_digits.py."""
    data = load_digits()
    images = data.images.astype(np.float32)[:, None]
    _, test_images, _, test_digits = train_test_split(
        images, data.target, test_size=450, random_state=20, stratify=data.target
    )
    return test_images, test_digits


def accuracy(version: int, held_out: tuple[np.ndarray, np.ndarray]) -> float:
    images, digits = held_out
    (answers,) = session(REPOSITORY / "digits" / str(version) / "model.onnx").run(["digit"], {"image": images})
    return float((answers == digits).mean())


def test_digits_are_as_accurate_as_the_readme_says(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    measured = {version: accuracy(version, held_out) for version in (1, 2)}
    assert measured[2] > measured[1] > 0.9
    stated = {int(v): float(percent) for v, percent in re.findall(r"version (\d): (\d\d\.\d) %", README)}
    assert stated == {version: round(100 * share, 1) for version, share in measured.items()}


@pytest.mark.parametrize("version", [1, 2])
def test_digits_give_probabilities_and_their_largest_at_any_batch_size(
    version: int, held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    model = session(REPOSITORY / "digits" / str(version) / "model.onnx")
    images = held_out[0][:33]
    together, digits = model.run(["probabilities", "digit"], {"image": images})
    assert together.shape == (33, 10)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(together.argmax(axis=1), digits)
    for row in (0, 32):
        alone, _ = model.run(["probabilities", "digit"], {"image": images[row : row + 1]})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_the_readmes_digit_and_the_picture_are_the_same_held_out_six(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    (request,) = re.findall(r"-d '(\{.*?\})'$", README, flags=re.MULTILINE)
    (entry,) = json.loads(request)["inputs"]
    image = np.array(entry["data"], dtype=np.float32).reshape(entry["shape"])
    (place,) = np.flatnonzero((held_out[0] == image).all(axis=(1, 2, 3)))
    assert held_out[1][place] == 6
    for version in (1, 2):
        (digit,) = session(REPOSITORY / "digits" / str(version) / "model.onnx").run(["digit"], {"image": image})
        assert digit.tolist() == [6]
    with Image.open(ROOT / "docs" / "images" / "digit.png") as picture:
        assert (picture.size, picture.mode) == ((80, 80), "L")
        np.testing.assert_array_equal(np.rint(np.asarray(picture)[::10, ::10] * (16 / 255)), image[0, 0])


def test_the_configuration_of_digits_hides_no_output() -> None:
    config = tomllib.loads((REPOSITORY / "digits" / "config.toml").read_text())
    for version in (1, 2):
        graph = onnx.load(REPOSITORY / "digits" / str(version) / "model.onnx").graph
        assert [entry["name"] for entry in config["output"]] == [value.name for value in graph.output]


def test_labels_name_the_ten_digits() -> None:
    labels = (REPOSITORY / "digits" / "labels.txt").read_text().splitlines()
    assert labels == ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_simple_adds_and_subtracts() -> None:
    left = np.arange(32, dtype=np.int32).reshape(2, 16)
    right = np.full((2, 16), 2**31 - 1, dtype=np.int32)
    total, difference = session(REPOSITORY / "simple" / "1" / "model.onnx").run(
        ["OUTPUT0", "OUTPUT1"], {"INPUT0": left, "INPUT1": right}
    )
    np.testing.assert_array_equal(total, left + right)
    np.testing.assert_array_equal(difference, left - right)


def test_simple_identity_echoes_text() -> None:
    words = np.array([["hello", "", "zwölf"]], dtype=object)
    (echo,) = session(REPOSITORY / "simple_identity" / "1" / "model.onnx").run(["OUTPUT0"], {"INPUT0": words})
    assert echo.tolist() == words.tolist()


def test_the_repository_is_small_enough_to_commit() -> None:
    assert sum(path.stat().st_size for path in REPOSITORY.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_files_load_in_any_current_runtime_and_batch(path: Path) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert max(entry.version for entry in model.opset_import) <= 21
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch", value.name
    assert not any(entry.data_location == onnx.TensorProto.EXTERNAL for entry in model.graph.initializer)


def test_all_models_are_here() -> None:
    assert ["/".join(path.parts[-3:-1]) for path in FILES] == ["digits/1", "digits/2", "simple/1", "simple_identity/1"]
