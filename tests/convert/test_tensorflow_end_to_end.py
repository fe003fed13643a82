"""From a TensorFlow file to an answer over HTTP: import in a worker, serve, predict, compare with the framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.convert.tensorflow_zoo import TRAINED_ON, Zoo, digits, opened
from tests.support.serving import RunningServer

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.importing import import_model
from tensorquay_convert.job import SourceKind

pytestmark = [pytest.mark.frameworks, pytest.mark.long, pytest.mark.timeout(600)]

SOURCES = {
    "savedmodel": (SourceKind.SAVED_MODEL, lambda zoo: zoo.exported("cnn")),
    "keras": (SourceKind.KERAS, lambda zoo: zoo.saved("cnn")),
    "h5": (SourceKind.KERAS, lambda zoo: zoo.saved("cnn", ".h5")),
    "graphdef": (SourceKind.GRAPH_DEF, lambda zoo: zoo.frozen),
    "tflite": (SourceKind.TFLITE, lambda zoo: zoo.lite("float")),
}


def _predict(server: RunningServer, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    datatypes = {"float32": "FP32", "int32": "INT32"}
    asked = [
        {"name": key, "shape": list(each.shape), "datatype": datatypes[each.dtype.name], "data": each.ravel().tolist()}
        for key, each in inputs.items()
    ]
    reply = httpx.post(f"{server.url}/v2/models/{name}/infer", json={"inputs": asked}, timeout=30)
    assert reply.status_code == 200, reply.text
    return {each["name"]: np.array(each["data"], np.float32).reshape(each["shape"]) for each in reply.json()["outputs"]}


def test_each_kind_of_file_is_served_as_its_framework_answers(
    tensorflow_zoo: Zoo, tmp_path: Path, serve: Callable[..., RunningServer], capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    images = digits()[0][TRAINED_ON : TRAINED_ON + 5]
    for name, (kind, path) in SOURCES.items():
        result = import_model(path(tensorflow_zoo), name=name, repository=repository)
        assert result.kind is kind
        with capsys.disabled():
            print(f"\n{name}: {result.seconds:.1f} s, peak {result.peak_rss_bytes / 2**20:.0f} MiB", end="")
    pair = import_model(tensorflow_zoo.saved("pair"), name="pair", repository=repository)
    assert pair.proof["passed"]
    server = serve([repository])
    for name, (kind, path) in SOURCES.items():
        source = opened(kind, path(tensorflow_zoo))
        (spec,) = source.facts.interface.inputs
        expected = source.run({spec.name: images})
        for key, value in _predict(server, name, {spec.name: images}).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5)
    given: dict[str, Any] = {
        "ids": np.array([[3, 9, 29, 0], [1, 2, 0, 0]], np.int32),
        "mask": np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32),
    }
    expected = opened(SourceKind.KERAS, tensorflow_zoo.saved("pair")).run(given)
    answer = _predict(server, "pair", given)
    assert answer.keys() == expected.keys()
    for key, value in answer.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5)


def test_a_refused_source_leaves_nothing_behind(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    with pytest.raises(Unsupported, match="its batch axis is fixed at 1"):
        import_model(tensorflow_zoo.lite("fixed"), name="fixed", repository=repository, report=tmp_path / "report")
    cut = tmp_path / "cut.keras"
    cut.write_bytes(tensorflow_zoo.saved("cnn").read_bytes()[:-300])
    with pytest.raises(BadSource):
        import_model(cut, name="cut", repository=repository, report=tmp_path / "report2")
    assert list(repository.iterdir()) == []
