"""`tensorquay infer`, over a made-up transport to the real digits model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tensorquay_client import HttpClient, Retry, cli
from tensorquay_client.cli_images import Layout, image_tensor, layout_of, value_range
from tensorquay_client.errors import InvalidArgument
from tensorquay_client.messages import TensorMetadata

ROOT = Path(__file__).parents[3]
DIGIT = ROOT / "docs" / "images" / "digit.png"
LABELS = (ROOT / "model_repo" / "digits" / "labels.txt").read_text().split()

METADATA = {
    "digits": {
        "name": "digits",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "digit", "datatype": "INT64", "shape": [-1]},
        ],
    },
    "pair": {
        "name": "pair",
        "versions": ["1"],
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("A", "B")],
        "outputs": [{"name": "A", "datatype": "BYTES", "shape": [-1]}],
    },
}


class Server:
    """As much of a V2 server as the command uses."""

    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(
            ROOT / "model_repo" / "digits" / "2" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        self.extensions = ["classification"]
        self.parameters: dict[str, Any] | None = {"image_range": {"string_value": "0,16"}}
        self.sent: dict[str, Any] = {}
        self.secrets: set[str | None] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.secrets.add(request.headers.get("x-admin"))
        match request.url.path.removeprefix("/v2").split("/")[1:]:
            case []:
                return httpx.Response(200, json={"name": "s", "version": "1", "extensions": self.extensions})
            case ["models", ("digits" | "pair") as name]:
                return httpx.Response(200, json=METADATA[name])
            case ["models", "digits", "config"] if self.parameters is not None:
                return httpx.Response(200, json={"parameters": self.parameters})
            case ["models", "digits", "infer"]:
                return self.digits(*self.read(request))
            case ["models", "pair", "infer"]:
                head, tail = self.read(request)
                output = {**head["inputs"][0], "name": "A"}
                size = output["parameters"]["binary_data_size"]
                return self.respond([output], tail[:size])
        return httpx.Response(404, json={"error": "Request for unknown model: 'nosuch' is not found"})

    def read(self, request: httpx.Request) -> tuple[dict[str, Any], bytes]:
        length = int(request.headers["Inference-Header-Content-Length"])
        self.sent = json.loads(request.content[:length])
        return self.sent, request.content[length:]

    def digits(self, head: dict[str, Any], tail: bytes) -> httpx.Response:
        (entry,) = head["inputs"]
        if entry["shape"][1:] != [1, 8, 8]:
            return httpx.Response(400, json={"error": f"unexpected shape for input 'image': {entry['shape']}"})
        image = np.frombuffer(tail, "<f4").reshape(entry["shape"])
        probabilities, digit = self.session.run(["probabilities", "digit"], {"image": image})
        outputs: list[dict[str, Any]] = [
            {"name": "digit", "datatype": "INT64", "shape": list(digit.shape), "data": digit.tolist()}
        ]
        wanted = {output["name"]: output["parameters"] for output in head.get("outputs", ())}
        top = wanted.get("probabilities", {}).get("classification")
        if top:
            rows = [[f"{row[i]:f}:{i}:{LABELS[i]}" for i in np.argsort(-row)[:top]] for row in probabilities]
            flat = [item for row in rows for item in row]
            first = {"name": "probabilities", "datatype": "BYTES", "shape": [len(rows), top], "data": flat}
        else:
            shape = list(probabilities.shape)
            first = {"name": "probabilities", "datatype": "FP32", "shape": shape, "data": probabilities.tolist()}
        return self.respond([first, *outputs], b"")

    def respond(self, outputs: list[dict[str, Any]], tail: bytes) -> httpx.Response:
        head = json.dumps({"model_name": "m", "model_version": "2", "outputs": outputs}).encode()
        return httpx.Response(200, content=head + tail, headers={"Inference-Header-Content-Length": str(len(head))})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def connect(
        url: str | None, *, use_grpc: bool, timeout_s: float, headers: Mapping[str, str], tls: object
    ) -> HttpClient:
        transport = httpx.MockTransport(server)
        return HttpClient(url or "h:1", headers=headers, transport=transport, retry=Retry(attempts=1))

    monkeypatch.setattr(cli, "_connect", connect)
    return lambda *arguments: CliRunner().invoke(cli.infer, list(map(str, arguments)))


def test_the_documented_picture_is_a_six(run: Callable[..., Result]) -> None:
    result = run("digits", "--image", DIGIT)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    first = next(index for index, line in enumerate(lines) if line.split() == ["class", "label", "value"])
    assert lines[first + 1].split()[:2] == ["6", "six"]
    assert float(lines[first + 1].split()[2]) > 0.99
    assert "INT64" in result.output


def test_json_for_programs(run: Callable[..., Result]) -> None:
    answer = json.loads(run("digits", "--image", DIGIT, "--image", DIGIT, "--json", "--top", 2).output)
    assert answer["outputs"][1] == {"name": "digit", "datatype": "INT64", "shape": [2], "data": [6, 6]}
    rows = answer["outputs"][0]["classes"]
    assert [len(row) for row in rows] == [2, 2]
    assert rows[0][0]["label"] == "six"
    plain = json.loads(run("digits", "--image", DIGIT, "--json", "--top", 0).output)
    assert plain["outputs"][0]["shape"] == [1, 10]


def test_a_server_without_classification_gets_a_plain_request(run: Callable[..., Result], server: Server) -> None:
    server.extensions = []
    result = run("digits", "--image", DIGIT)
    assert result.exit_code == 0
    assert "outputs" not in server.sent
    assert "FP32" in result.output


def test_the_scale_can_be_said_and_has_a_default(run: Callable[..., Result], server: Server) -> None:
    server.parameters = None
    assert json.loads(run("digits", "--image", DIGIT, "--scale", "0..16", "--json").output)["outputs"][1]["data"] == [6]
    assert run("digits", "--image", DIGIT).exit_code == 0  # 0..1: served, if dimly
    inverted = Image.eval(Image.open(DIGIT), lambda value: 255 - value)
    assert inverted.getpixel((0, 0)) == 255


def test_pictures_of_other_modes_and_sizes(run: Callable[..., Result], tmp_path: Path) -> None:
    with Image.open(DIGIT) as opened:
        digit = opened.copy()
    Image.eval(digit, lambda value: 255 - value).convert("RGB").resize((200, 200)).save(tmp_path / "black_on_white.png")
    Image.fromarray(np.asarray(digit).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    transparent = Image.new("RGBA", digit.size, (0, 0, 0, 0))
    transparent.putalpha(digit)
    transparent.save(tmp_path / "transparent.png")
    for name, arguments in {"black_on_white": ["--invert"], "deep": [], "transparent": ["--invert"]}.items():
        result = run("digits", "--image", tmp_path / f"{name}.png", "--json", *arguments)
        assert json.loads(result.output)["outputs"][1]["data"] == [6], name


def test_arrays_from_files(run: Callable[..., Result], tmp_path: Path) -> None:
    with Image.open(DIGIT) as opened:
        pixels = np.rint(np.asarray(opened)[::10, ::10] * (16 / 255)).astype(int)
    np.save(tmp_path / "a.npy", pixels.reshape(1, 1, 8, 8))
    np.savez(tmp_path / "a.npz", image=pixels.astype(np.float64))
    body = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": pixels.flatten().tolist()}]}
    documents = {
        "list": pixels.tolist(),
        "flat": pixels.flatten().tolist(),
        "object": {"image": [[pixels.tolist()]]},
        "body": body,
    }
    for name, content in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name in ("a.npy", "a.npz", "list.json", "flat.json", "object.json", "body.json"):
        result = run("digits", "--input", tmp_path / name, "--json")
        assert result.exit_code == 0, (name, result.output)
        assert json.loads(result.output)["outputs"][1]["data"] == [6], name


def test_named_inputs_and_text(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text('["é", "b"]')
    result = run("pair", "--input", f"A={tmp_path / 'words.json'}", "--input", f"B={tmp_path / 'words.json'}")
    assert result.exit_code == 0, result.output
    assert "['é', 'b']" in result.output


def refusals(folder: Path) -> dict[str, tuple[list[object], str]]:
    (folder / "words.json").write_text('["a"]')
    (folder / "broken.json").write_text("[1,")
    (folder / "ragged.json").write_text("[[1],[2,3]]")
    (folder / "other.json").write_text('{"picture": [1]}')
    (folder / "no.png").write_text("not a picture")
    np.save(folder / "half.npy", np.full((1, 1, 8, 8), "x"))
    np.save(folder / "object.npy", np.array([None]), allow_pickle=True)
    return {
        "unknown model": (["nosuch", "--input", folder / "words.json"], "unknown model: 'nosuch'"),
        "two inputs": (["pair", "--input", folder / "words.json"], "has the inputs 'A', 'B': say which"),
        "no image input": (["pair", "--image", DIGIT], "no input of 'pair' take"),
        "no such file": (["digits", "--input", folder / "none.npy"], "No such file"),
        "no such name": (["digits", "--input", "x=none.npy"], "'x' is no input of 'digits', which has 'image'"),
        "suffix": (["digits", "--input", folder / "no.png"], "expected .npy, .npz or .json"),
        "broken": (["digits", "--input", folder / "broken.json"], "cannot be read"),
        "ragged": (["digits", "--input", folder / "ragged.json"], "do not make an array"),
        "other name": (["digits", "--input", folder / "other.json"], "'picture' is no input of 'digits'"),
        "type": (["digits", "--input", folder / "half.npy"], "the model expects FP32"),
        "pickle": (["digits", "--input", folder / "object.npy"], "cannot be read"),
        "no picture": (["digits", "--image", folder / "no.png"], "cannot be read as a picture"),
        "scale": (["digits", "--image", DIGIT, "--scale", "dark"], "--scale: 'dark' is no range"),
        "twice": (["digits", "--image", DIGIT, "--input", folder / "a.npy"], "given twice"),
        "address": (["digits", "--image", DIGIT, "--url", "ftp://x"], "'ftp://x' is no server address"),
    }


def test_mistakes_get_one_sentence_and_exit_code_1(run: Callable[..., Result], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 1, 8, 8)))
    for name, (arguments, text) in refusals(tmp_path).items():
        result = run(*arguments)
        assert result.exit_code == 1, name
        assert text in result.output, (name, result.output)
        assert result.output.startswith("Error: "), name
        assert result.output.count("\n") == 1, name


def test_nothing_to_send_is_a_wrong_use(run: Callable[..., Result]) -> None:
    result = run("digits")
    assert result.exit_code == 2
    assert "give --image FILE or --input FILE" in result.output


def test_no_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    monkeypatch.setattr(
        cli,
        "_connect",
        lambda url, **_: HttpClient("h:1", transport=httpx.MockTransport(refuse), retry=Retry(attempts=1)),
    )
    result = CliRunner().invoke(cli.infer, ["digits", "--image", str(DIGIT)])
    assert result.exit_code == 1
    assert "cannot reach http://h:1: Connection refused" in result.output


def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORQUAY_URL", "a:1")
    monkeypatch.setenv("TENSORQUAY_GRPC_URL", "b:2")
    for use_grpc, shown in ((False, "HttpClient('a:1')"), (True, "GrpcClient('b:2')")):
        with cli._connect(None, use_grpc=use_grpc, timeout_s=1.0, headers={}) as client:
            assert repr(client) == shown


def test_a_header_goes_with_every_request(run: Callable[..., Result], server: Server) -> None:
    assert run("digits", "--image", DIGIT, "--header", "X-Admin=a=b").exit_code == 0
    assert server.secrets == {"a=b"}


def test_a_header_becomes_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("tensorquay_client.grpc_client.GrpcClient", lambda _url, **rest: given.update(rest))
    cli._connect("h:1", use_grpc=True, timeout_s=1.0, headers={"Triton-Grpc-Protocol-X-Admin": "Geheim"})
    assert given["headers"] == {"triton-grpc-protocol-x-admin": "Geheim"}


@pytest.mark.parametrize("header", ["secret", "=secret", "a b=secret", "a=secret\r\nb: c"])
def test_what_is_no_header_is_a_wrong_use_and_not_repeated(run: Callable[..., Result], header: str) -> None:
    result = run("digits", "--image", DIGIT, "--header", header)
    assert result.exit_code == 2
    assert "expected NAME=VALUE" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("shape", "datatype", "layout"),
    [
        ((-1, 1, 8, 8), "FP32", Layout(1, 8, 8, channels_first=True, batched=True)),
        ((1, 224, 200, 3), "UINT8", Layout(3, 224, 200, channels_first=False, batched=True)),
        ((3, -1, -1), "FP16", Layout(3, -1, -1, channels_first=True, batched=False)),
        ((8, 3, 8, 8), "FP32", None),
        ((-1, 7, 8, 8), "FP32", None),
        ((-1, 16), "FP32", None),
        ((-1, 1, 8, 8), "BYTES", None),
    ],
)
def test_which_inputs_take_images(shape: tuple[int, ...], datatype: str, layout: Layout | None) -> None:
    assert layout_of(TensorMetadata("x", datatype, shape)) == layout


def test_pictures_fill_the_axes_of_the_input(tmp_path: Path) -> None:
    path = tmp_path / "rgb.png"
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10).save(path)
    whole = image_tensor([path], TensorMetadata("x", "UINT8", (-1, -1, -1, 3)), darkest=0, brightest=255, invert=False)
    assert whole.array.tolist() == [(np.arange(24).reshape(2, 4, 3) * 10).tolist()]
    first = image_tensor([path], TensorMetadata("x", "FP32", (3, 2, 4)), darkest=-1, brightest=1, invert=True)
    assert first.shape == (3, 2, 4)
    assert first.array[0, 0, 0] == 1.0
    with pytest.raises(InvalidArgument, match="one image at a time"):
        image_tensor([path, path], TensorMetadata("x", "FP32", (3, 2, 4)), darkest=0, brightest=1, invert=False)


@pytest.mark.parametrize("text", ["", "1", "1..", "a..b", "1..1", "0..nan", "0,inf"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|float"):
        value_range(text)
