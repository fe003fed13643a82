"""System shared memory with tritonclient as it is (protocol 1.14): in, out, both, and every wrong use."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from tests.support.serving import RunningServer
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from strangers import Stranger, connect

KINDS = pytest.mark.parametrize("kind", ["http", "grpc"])
_NUMBERS = itertools.count()

Region = Callable[[int], tuple[str, Any]]


@pytest.fixture(scope="module")
def strangers(server: RunningServer) -> Iterator[dict[str, Stranger]]:
    opened = {kind: connect(kind, server) for kind in ("http", "grpc")}
    yield opened
    for each in opened.values():
        each.client.close()


@pytest.fixture
def stranger(strangers: dict[str, Stranger], kind: str) -> Stranger:
    return strangers[kind]


@pytest.fixture
def region(stranger: Stranger) -> Iterator[Region]:
    """Makes a region of so many bytes and registers it; gives its name and tritonclient's handle."""
    made: list[tuple[str, Any]] = []

    def make(byte_size: int) -> tuple[str, Any]:
        name = f"tq_conformance_{stranger.kind}_{next(_NUMBERS)}"
        handle = shm.create_shared_memory_region(name, f"/{name}", byte_size)
        made.append((name, handle))
        stranger.client.register_system_shared_memory(name, f"/{name}", byte_size)
        return name, handle

    yield make
    for name, handle in made:
        stranger.client.unregister_system_shared_memory(name)
        shm.destroy_shared_memory_region(handle)


def shared_input(stranger: Stranger, name: str, where: str, byte_size: int, offset: int = 0, rows: int = 1) -> Any:
    tensor = stranger.module.InferInput(name, [rows, 16], "INT32")
    tensor.set_shared_memory(where, byte_size, offset)
    return tensor


def regions(stranger: Stranger) -> dict[str, dict[str, Any]]:
    answer = stranger.ask("get_system_shared_memory_status")
    if stranger.is_http:
        return {entry["name"]: entry for entry in answer}
    found: dict[str, dict[str, Any]] = answer.get("regions", {})
    return found


@KINDS
def test_inputs_and_outputs_in_shared_memory(stranger: Stranger, region: Region) -> None:
    a, b = np.arange(16, dtype=np.int32), np.full(16, 5, np.int32)
    there, source = region(128)
    back, target = region(128)
    shm.set_shared_memory_region(source, [a, b])
    outputs = [stranger.output("OUTPUT0"), stranger.output("OUTPUT1")]
    outputs[0].set_shared_memory(back, 64)
    outputs[1].set_shared_memory(back, 64, 64)
    result = stranger.client.infer(
        "simple",
        [shared_input(stranger, "INPUT0", there, 64), shared_input(stranger, "INPUT1", there, 64, 64)],
        outputs=outputs,
    )
    assert np.array_equal(shm.get_contents_as_numpy(target, np.int32, [1, 16]), (a + b)[None])
    assert np.array_equal(shm.get_contents_as_numpy(target, np.int32, [1, 16], 64), (a - b)[None])
    # The answer does not carry the outputs. Over HTTP it has no parameters either: Triton's C++ client (and with it
    # perf_analyzer) expects binary data wherever an output has any.
    output = result.get_output("OUTPUT1")
    if stranger.is_http:
        assert output == {"name": "OUTPUT1", "datatype": "INT32", "shape": [1, 16]}
    else:
        assert output.parameters["shared_memory_region"].string_param == back
        assert [bytes(raw) for raw in result.get_response().raw_output_contents] == [b"", b""]


@KINDS
def test_one_input_shared_and_one_sent(stranger: Stranger, region: Region) -> None:
    a, b = np.arange(16, dtype=np.int32), np.full((1, 16), 5, np.int32)
    there, source = region(64)
    shm.set_shared_memory_region(source, [a])
    result = stranger.client.infer("simple", [stranger.input("INPUT1", b), shared_input(stranger, "INPUT0", there, 64)])
    assert np.array_equal(result.as_numpy("OUTPUT0"), a + b)
    assert np.array_equal(result.as_numpy("OUTPUT1"), a - b)


@KINDS
def test_one_output_shared_and_one_answered(stranger: Stranger, region: Region) -> None:
    a = np.arange(16, dtype=np.int32).reshape(1, 16)
    back, target = region(64)
    outputs = [stranger.output("OUTPUT0"), stranger.output("OUTPUT1")]
    outputs[0].set_shared_memory(back, 64)
    result = stranger.client.infer(
        "simple", [stranger.input("INPUT0", a), stranger.input("INPUT1", a)], outputs=outputs
    )
    assert np.array_equal(shm.get_contents_as_numpy(target, np.int32, [1, 16]), a + a)
    assert np.array_equal(result.as_numpy("OUTPUT1"), a - a)


@KINDS
def test_bytes_in_shared_memory(stranger: Stranger, region: Region) -> None:
    items = np.array([[b"\xff\x00", b"", b"text"]], dtype=np.object_)
    packed = serialize_byte_tensor(items)
    there, source = region(len(packed.item()))
    back, target = region(256)
    shm.set_shared_memory_region(source, [packed])
    tensor = stranger.module.InferInput("INPUT0", [1, 3], "BYTES")
    tensor.set_shared_memory(there, len(packed.item()))
    output = stranger.output("OUTPUT0")
    output.set_shared_memory(back, 256)
    stranger.client.infer("simple_identity", [tensor], outputs=[output])
    got = shm.get_contents_as_numpy(target, np.object_, [1, 3])
    assert np.array_equal(got, items)


@KINDS
def test_status_of_one_and_of_all(stranger: Stranger, region: Region) -> None:
    first, _ = region(64)
    second, _ = region(128)
    everything = regions(stranger)
    assert {first, second} <= set(everything)
    entry = everything[second]
    assert (entry["key"], int(entry.get("offset", 0)), int(entry["byte_size"])) == (f"/{second}", 0, 128)
    stranger.client.unregister_system_shared_memory(first)
    assert first not in regions(stranger)
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory region"):
        stranger.ask("get_system_shared_memory_status", first)


@KINDS
def test_a_region_with_an_offset(stranger: Stranger) -> None:
    name = f"tq_conformance_offset_{stranger.kind}"
    handle = shm.create_shared_memory_region(name, f"/{name}", 128)
    try:
        stranger.client.register_system_shared_memory(name, f"/{name}", 64, 64)
        a = np.arange(16, dtype=np.int32)
        shm.set_shared_memory_region(handle, [a], 64)
        inputs = [shared_input(stranger, each, name, 64) for each in ("INPUT0", "INPUT1")]
        assert np.array_equal(stranger.client.infer("simple", inputs).as_numpy("OUTPUT0"), (a + a)[None])
        with pytest.raises(InferenceServerException, match="Invalid offset"):
            stranger.client.infer("simple", [inputs[0], shared_input(stranger, "INPUT1", name, 64, 4)])
    finally:
        stranger.client.unregister_system_shared_memory(name)
        shm.destroy_shared_memory_region(handle)


@KINDS
def test_wrong_registrations(stranger: Stranger, region: Region) -> None:
    there, _ = region(64)
    for name, key, byte_size, offset in (
        (there, f"/{there}", 64, 0),  # taken
        ("r", "/tq_conformance_nosuch", 64, 0),
        ("r", "../../etc/passwd", 64, 0),
        ("r", "/etc/passwd", 64, 0),
        ("r", f"/{there}", 65, 0),
        ("r", f"/{there}", 64, 1),
        ("r", f"/{there}", 0, 0),
        ("r", f"/{there}", 2**62, 2**62),
    ):
        with pytest.raises(InferenceServerException) as caught:
            stranger.client.register_system_shared_memory(name, key, byte_size, offset)
        taken = "StatusCode.ALREADY_EXISTS" if name == there else "StatusCode.INVALID_ARGUMENT"
        assert caught.value.status() == ("400" if stranger.is_http else taken)
    assert "r" not in regions(stranger)


@KINDS
def test_wrong_uses(stranger: Stranger, region: Region) -> None:
    there, _ = region(64)
    sent = stranger.input("INPUT1", np.zeros((1, 16), np.int32))
    for tensor, status in (
        (shared_input(stranger, "INPUT0", "nosuch", 64), ("404", "StatusCode.NOT_FOUND")),
        (shared_input(stranger, "INPUT0", there, 128), ("400", "StatusCode.INVALID_ARGUMENT")),
        (shared_input(stranger, "INPUT0", there, 64, 64), ("400", "StatusCode.INVALID_ARGUMENT")),
        (shared_input(stranger, "INPUT0", there, 60), ("400", "StatusCode.INVALID_ARGUMENT")),
        (shared_input(stranger, "INPUT0", there, 2**62, 2**62), ("400", "StatusCode.INVALID_ARGUMENT")),
    ):
        with pytest.raises(InferenceServerException) as caught:
            stranger.client.infer("simple", [tensor, sent])
        assert caught.value.status() == status[0 if stranger.is_http else 1]
    small = stranger.output("OUTPUT0")
    small.set_shared_memory(there, 60)
    other = stranger.input("INPUT0", np.zeros((1, 16), np.int32))
    with pytest.raises(InferenceServerException, match="should be at least 64 bytes to hold the results"):
        stranger.client.infer("simple", [other, sent], outputs=[small])
    nowhere = stranger.output("OUTPUT0")
    nowhere.set_shared_memory("nosuch", 64)
    with pytest.raises(InferenceServerException, match="nosuch"):
        stranger.client.infer("simple", [other, sent], outputs=[nowhere])


def test_1_6_classification_cannot_go_to_shared_memory(strangers: dict[str, Stranger], server: RunningServer) -> None:
    parameters = {"classification": 1, "shared_memory_region": "r", "shared_memory_byte_size": 64}
    entry = {"datatype": "INT32", "shape": [1, 16], "data": [0] * 16}
    body = {
        "inputs": [{"name": "INPUT0", **entry}, {"name": "INPUT1", **entry}],
        "outputs": [{"name": "OUTPUT0", "parameters": parameters}],
    }
    answer = httpx.post(f"{server.url}/v2/models/simple/infer", json=body, trust_env=False)
    assert answer.status_code == 400
    assert "cannot be combined" in answer.json()["error"]


@KINDS
def test_what_clients_do_before_they_begin(stranger: Stranger) -> None:
    # Triton's own examples forget every region of both kinds first.
    stranger.client.unregister_system_shared_memory()
    stranger.client.unregister_cuda_shared_memory()
    assert regions(stranger) == {}
    assert not stranger.ask("get_cuda_shared_memory_status")
    with pytest.raises(InferenceServerException, match="CUDA shared memory is not supported") as caught:
        stranger.client.register_cuda_shared_memory("r", base64.b64encode(b"handle"), 0, 64)
    assert caught.value.status() in {"501", "StatusCode.UNIMPLEMENTED"}
