"""Trained models dropped into a running server: imported, proven, served, and answering as their framework does."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.serving import RunningServer

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

Serve = Callable[..., RunningServer]
DEADLINE_S = 300.0

TRITON_CONFIG = """
platform: "pytorch_libtorch"
max_batch_size: 16
input { name: "INPUT__0" data_type: TYPE_FP32 dims: [1, 8, 8] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [10] }
dynamic_batching {}
"""


def line_of(server: RunningServer, name: str, version: str = "1") -> dict[str, Any]:
    lines = httpx.post(f"{server.url}/v2/repository/index", json={}, timeout=30).json()
    return next((line for line in lines if line["name"] == name and line.get("version") == version), {})


def served(server: RunningServer, name: str, version: str = "1") -> list[str]:
    """Wait until that version is READY; what the index said on the way."""
    end, reasons = time.monotonic() + DEADLINE_S, []
    while time.monotonic() < end:
        line = line_of(server, name, version)
        if line.get("state") == "READY":
            return reasons
        assert line.get("state") in {None, "LOADING"}, line
        if line.get("reason") and line["reason"] not in reasons:
            reasons.append(line["reason"])
    raise AssertionError(f"{name} was not served; the server said:\n{server.told()}")


def asked(server: RunningServer, name: str, tensor: str, rows: np.ndarray) -> np.ndarray:
    body = {"inputs": [{"name": tensor, "shape": rows.shape, "datatype": "FP32", "data": rows.ravel().tolist()}]}
    answer = httpx.post(f"{server.url}/v2/models/{name}/infer", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (first, *_) = answer.json()["outputs"]
    return np.array(first["data"]).reshape(first["shape"])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def server(repository: Path, tmp_path: Path, serve: Serve) -> RunningServer:
    return serve(
        [repository],
        *("--model-control-mode=poll", "--repository-poll-secs=0.3", "--settle-secs=0"),
        f"--import-cache={tmp_path / 'cache'}",
    )


def test_an_exported_program_is_served_and_a_restart_does_not_import_again(
    repository: Path, tmp_path: Path, server: RunningServer, serve: Serve
) -> None:
    torch = pytest.importorskip("torch")
    from tests.convert import torch_zoo

    net, (images, _) = copy.deepcopy(torch_zoo.trained()).eval(), torch_zoo.digits()
    program = torch.export.export(
        net, (torch.from_numpy(images[:3]),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    folder = repository / "digits" / ".new"
    folder.mkdir(parents=True)
    torch.export.save(program, folder / "model.pt2")
    folder.rename(repository / "digits" / "1")
    reasons = served(server, "digits")
    assert any(reason.startswith("importing: ") for reason in reasons), reasons
    with torch.inference_mode():
        expected = net(torch.from_numpy(images[:7])).numpy()
    metadata = httpx.get(f"{server.url}/v2/models/digits").json()
    (taken,) = metadata["inputs"]
    np.testing.assert_allclose(asked(server, "digits", taken["name"], images[:7]), expected, atol=1e-4, rtol=1e-4)
    assert [each.name for each in (repository / "digits" / "1").iterdir()] == ["model.pt2"], "the drop is the user's"
    assert server.stop() == 0
    again = serve([repository], f"--import-cache={tmp_path / 'cache'}", "--import-python=/nonexistent")
    assert line_of(again, "digits")["state"] == "READY"


def test_a_repository_made_for_tritons_pytorch_backend_loads_unchanged(repository: Path, server: RunningServer) -> None:
    torch = pytest.importorskip("torch")
    from tests.convert import torch_zoo

    net, (images, _) = copy.deepcopy(torch_zoo.trained()).eval(), torch_zoo.digits()
    folder = repository / "script" / ".new"
    folder.mkdir(parents=True)
    (repository / "script" / "config.pbtxt").write_text(TRITON_CONFIG)
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(net), folder / "model.pt")
    folder.rename(repository / "script" / "1")
    served(server, "script")
    with torch.inference_mode():
        expected = net(torch.from_numpy(images[:5])).numpy()
    body = {
        "inputs": [
            {"name": "INPUT__0", "shape": [5, 1, 8, 8], "datatype": "FP32", "data": images[:5].ravel().tolist()}
        ],
        "outputs": [{"name": "OUTPUT__0"}],
    }
    answer = httpx.post(f"{server.url}/v2/models/script/infer", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    got = np.array(answer.json()["outputs"][0]["data"]).reshape(5, 10)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_a_tensorflow_serving_base_path_loads_unchanged(
    repository: Path, server: RunningServer, tensorflow_zoo: Any
) -> None:
    from tests.convert.tensorflow_zoo import digits

    folder = repository / "saved" / ".new"
    folder.parent.mkdir()
    shutil.copytree(tensorflow_zoo.exported("cnn"), folder)
    folder.rename(repository / "saved" / "1")
    served(server, "saved")
    images, labels = digits()
    (taken,) = httpx.get(f"{server.url}/v2/models/saved").json()["inputs"]
    found = asked(server, "saved", taken["name"], images[1500:1600]).argmax(axis=1)
    assert (found == labels[1500:1600]).mean() > 0.85


@pytest.mark.long
def test_a_static_export_is_refused_in_the_index_with_what_to_do(repository: Path, server: RunningServer) -> None:
    torch = pytest.importorskip("torch")
    from tests.convert import torch_zoo

    net, (images, _) = copy.deepcopy(torch_zoo.trained()).eval(), torch_zoo.digits()
    folder = repository / "digits" / ".new"
    folder.mkdir(parents=True)
    torch.export.save(torch.export.export(net, (torch.from_numpy(images[:3]),)), folder / "model.pt2")
    folder.rename(repository / "digits" / "1")
    end = time.monotonic() + DEADLINE_S
    while line_of(server, "digits").get("state") != "UNAVAILABLE":
        assert time.monotonic() < end, server.told()
    assert "dynamic_shapes" in line_of(server, "digits")["reason"]
