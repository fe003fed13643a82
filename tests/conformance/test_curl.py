"""What a person types: curl against the shipped models, as the README and the banner show it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.support.serving import RunningServer

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(*arguments: str, data: bytes | None = None) -> str:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", *arguments],
        input=data,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("latin-1")


def test_the_line_of_the_banner_works(server: RunningServer) -> None:
    (line,) = re.findall(r"^try\s+(curl .*)$", server.told(), re.MULTILINE)
    answer = json.loads(curl(*shlex.split(line)[1:]))
    assert answer["outputs"]
    assert "error" not in answer


def test_a_prediction(server: RunningServer) -> None:
    body = {
        "id": "me",
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [1, 16], "data": list(range(16))}
            for name in ("INPUT0", "INPUT1")
        ],
        "outputs": [{"name": "OUTPUT0"}],
    }
    answer = json.loads(curl(f"{server.url}/v2/models/simple/infer", "-d", json.dumps(body)))
    assert answer == {
        "id": "me",
        "model_name": "simple",
        "model_version": "1",
        "outputs": [
            {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 16], "data": [2 * n for n in range(16)]},
        ],
    }


def test_status_and_headers(server: RunningServer) -> None:
    head = curl("-i", f"{server.url}/v2/health/ready")
    assert head.startswith("HTTP/1.1 200")
    assert head.endswith('{"ready":true}')
    for path, status in (("/v2/health/live", "200"), ("/v2/models/nosuch", "404"), ("/v2/models/simple/infer", "405")):
        assert curl("-o", "/dev/null", "-w", "%{http_code}", server.url + path) == status
    assert curl("-I", f"{server.url}/v2/models/nosuch/infer").startswith("HTTP/1.1 405")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_answers(server: RunningServer, coding: str) -> None:
    arguments = [f"{server.url}/v2/models/simple/infer", "-H", "Content-Type: application/json"]
    body = {
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [8, 16], "data": [7] * 128} for name in ("INPUT0", "INPUT1")
        ]
    }
    plain = curl(*arguments, "-d", json.dumps(body))
    head = curl(*arguments, "-d", json.dumps(body), "-H", f"Accept-Encoding: {coding}", "-D", "-", "-o", "/dev/null")
    assert f"content-encoding: {coding}" in head.lower()
    packed = curl("--compressed", *arguments, "-d", json.dumps(body))
    assert json.loads(packed) == json.loads(plain)


def test_a_raw_image_and_its_digit(server: RunningServer, tmp_path: Path) -> None:
    metadata = json.loads(curl(f"{server.url}/v2/models/digits"))
    shape = metadata["inputs"][0]["shape"]
    image = tmp_path / "image.raw"
    image.write_bytes(np.zeros(int(np.prod(shape[1:])), np.float32).tobytes())
    answer = tmp_path / "answer"
    head = curl(
        f"{server.url}/v2/models/digits/infer",
        "-H",
        "Inference-Header-Content-Length: 0",
        "--data-binary",
        f"@{image}",
        "-D",
        "-",
        "-o",
        str(answer),
    )
    (length,) = re.findall(r"(?im)^inference-header-content-length: (\d+)", head)
    document = json.loads(answer.read_bytes()[: int(length)])
    outputs = {output["name"]: output for output in document["outputs"]}
    assert outputs["probabilities"]["shape"] == [1, 10]
    sizes = sum(output["parameters"]["binary_data_size"] for output in outputs.values())
    assert answer.stat().st_size == int(length) + sizes


def test_classification_of_a_digit(server: RunningServer) -> None:
    metadata = json.loads(curl(f"{server.url}/v2/models/digits"))
    entry = metadata["inputs"][0]
    shape = [1, *entry["shape"][1:]]
    body = {
        "inputs": [{"name": entry["name"], "datatype": "FP32", "shape": shape, "data": [0.0] * int(np.prod(shape))}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
    }
    answer = json.loads(curl(f"{server.url}/v2/models/digits/infer", "-d", json.dumps(body)))
    (best,) = answer["outputs"][0]["data"]
    assert re.fullmatch(r"[01]\.\d{6}:\d:\S+", best)


def test_a_body_from_standard_input_and_expect_continue(server: RunningServer) -> None:
    entry = {"datatype": "BYTES", "shape": [1, 1], "data": ["x" * 2_000_000]}
    body = json.dumps({"inputs": [{"name": "INPUT0", **entry}]}).encode()
    url = f"{server.url}/v2/models/simple_identity/infer"
    for headers in ([], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]):
        answer = json.loads(curl(url, *headers, "--data-binary", "@-", data=body))
        assert answer["outputs"][0]["data"] == entry["data"]


def test_metrics_and_statistics(server: RunningServer) -> None:
    assert "nv_inference_request_success{" in curl(f"http://{server.metrics}/metrics")
    assert json.loads(curl(f"{server.url}/v2/models/simple/stats"))["model_stats"][0]["name"] == "simple"
    assert json.loads(curl(f"{server.url}/v2/models/simple/config"))["max_batch_size"] == 8
    assert {e["name"] for e in json.loads(curl("-X", "POST", f"{server.url}/v2/repository/index"))} == {
        "digits",
        "simple",
        "simple_identity",
    }
