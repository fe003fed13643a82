"""How the tests of tabular models prove a source: opened, exported, finished, run at several batches, served."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tests.support.serving import RunningServer

from tensorquay_convert.api import OpenSource
from tensorquay_convert.importing import ImportResult, import_model
from tensorquay_convert.proof.verify import ProofOptions, verify
from tensorquay_convert.sources import onnx_rules

BATCHES = (1, 2, 3, 7, 32)


def say(_: str) -> None:
    return None


def finished(source: OpenSource, folder: Path) -> Path:
    """The exported model, as an import would publish it, with the interface's names and axes."""
    path = folder / "model.onnx"
    source.export(path, say)
    onnx_rules.finish(path, source.facts.interface, say)
    graph = onnx.load(path).graph
    interface = source.facts.interface
    for declared, specs in ((graph.input, interface.inputs), (graph.output, interface.outputs)):
        assert [each.name for each in declared] == [each.name for each in specs]
        for each, spec in zip(declared, specs, strict=True):
            assert tuple(dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim) == spec.shape
    return path


def run_onnx(path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    session = onnx_rules.session_for(path)
    names = [each.name for each in session.get_outputs()]
    given = {name: _texts(value) for name, value in inputs.items()}
    return dict(zip(names, session.run(names, given), strict=True))


def _texts(value: Any) -> Any:
    if value.dtype != object:
        return value
    return np.vectorize(lambda each: each.decode() if isinstance(each, bytes) else each, otypes=[object])(value)


def assert_same(got: dict[str, Any], expected: Any, *, atol: float = 2e-5) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].shape == value.shape
        if value.dtype == object:
            assert _texts(got[name]).tolist() == _texts(value).tolist()
        elif value.dtype.kind == "f":
            assert got[name].dtype == value.dtype
            np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=atol)
        else:
            np.testing.assert_array_equal(got[name], value)


def prove(source: OpenSource, folder: Path, rows: Any = None, *, atol: float = 2e-5) -> Path:
    """The finished model says what the source says, to rows of real data and to the proof's own inputs."""
    path = finished(source, folder)
    if rows is not None:
        name = source.facts.interface.inputs[0].name
        for batch in BATCHES:
            assert_same(run_onnx(path, {name: rows[:batch]}), dict(source.run({name: rows[:batch]})), atol=atol)
    verification = verify(source, path, ProofOptions(), say)
    assert verification.problems == ()
    assert not any(case.outside for case in verification.cases)
    return path


def imported_and_served(
    sources: Mapping[str, Path | str], repository: Path, serve: Callable[..., RunningServer], rows: Any, **job: Any
) -> tuple[dict[str, ImportResult], dict[str, dict[str, Any]]]:
    """Import sources under their names, and ask one real server for each about `rows`, over HTTP."""
    repository.mkdir()
    results = {name: import_model(path, name=name, repository=repository, **job) for name, path in sources.items()}
    server = serve([repository])
    told: dict[str, dict[str, Any]] = {}
    body = {"inputs": [{"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}]}
    for name in sources:
        request = urllib.request.Request(
            f"{server.url}/v2/models/{name}/infer", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            outputs = json.load(answer)["outputs"]
        told[name] = {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in outputs}
    assert server.stop() == 0, server.told()
    return results, told
