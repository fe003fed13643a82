"""The ONNX Runtime backend with real sessions: every data type, every refusal, exact bytes both ways."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import graphs
from tensorquay.backends.api import LoadRequest
from tensorquay.backends.onnxruntime.backend import OnnxRuntimeBackend
from tensorquay.backends.onnxruntime.runtime import Machine
from tensorquay.config.model import ExecutionConfig, InstanceKind, ProviderConfig
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument, InvariantViolation, ModelFailed
from tensorquay.testing import check_backend

NOT_UTF8 = [b"\xff", b"\x80\x00\xfe\x00", b"caf\xe9", bytes(range(256)), b"\xed\xa0\x80", b"\xf0\x9f\x98"]
UTF8 = [b"", b"plain", "é€😀".encode(), b"nul\x00inside\x00", b"x" * 10_000, "\ufeff\u202e".encode()]


@pytest.fixture(scope="module")
def backend():
    return OnnxRuntimeBackend()


@pytest.fixture
def load(backend, tmp_path):
    sessions = []

    def make(proto, execution=ExecutionConfig(), *, kind=InstanceKind.CPU, threads=1, on=backend):  # noqa: B008
        path = graphs.write(proto, tmp_path / f"{len(sessions)}" / "model.onnx")
        session = on.load(LoadRequest(path, execution, kind, 0, threads))
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


def objects(items, shape=None):
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array if shape is None else array.reshape(shape)


def sample(datatype, shape):
    if datatype is DataType.BYTES:
        items = [*UTF8, *NOT_UTF8]
        count = int(np.prod(shape, dtype=int))
        return objects([items[i % len(items)] for i in range(count)], shape)
    bits = np.random.default_rng(7).integers(0, 256, (*shape, datatype.item_bytes), np.uint8)
    if datatype is DataType.BOOL:
        bits &= 1
    return bits.reshape(-1).view(datatype.numpy).reshape(shape)


def same(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    if left.dtype == np.object_:
        assert left.ravel().tolist() == right.ravel().tolist()
    else:
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 5), (0, 4), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("datatype", list(DataType), ids=lambda d: d.wire)
def test_every_type_and_shape_comes_back_bit_for_bit(load, datatype, shape):
    session = load(graphs.identity(datatype.wire, [f"d{i}" for i in range(len(shape))]))
    array = sample(datatype, shape)
    (out,) = session.run({"x": array}, ["y"])
    same(out, array)
    assert not np.shares_memory(out, array)


def test_the_contract_holds_for_real_models(tmp_path):
    models = {
        "add_sub": graphs.add_sub(),
        "scalar": graphs.identity("FP64", []),
        "optional": graphs.optional_input(),
        "lookup": graphs.lookup(),
        "pass_through": graphs.pass_through(),
        "mixed": graphs.mixed(),
        "strings": graphs.strings_from_both([b"\xff", b"ok"]),
        **{wire: graphs.identity(wire) for wire in graphs.ONNX_TYPES},
    }
    paths = [graphs.write(proto, tmp_path / name / "model.onnx") for name, proto in models.items()]
    paths.append(graphs.write_external(tmp_path / "external")[0])
    paths.append(graphs.write_external(tmp_path / "folder" / "model.onnx")[0].parent)
    assert check_backend(OnnxRuntimeBackend, paths) == len(models) + 2


def test_outputs_come_in_the_order_asked_for(load):
    session = load(graphs.add_sub(["n"]))
    feed = {"INPUT0": np.array([5], np.int32), "INPUT1": np.array([3], np.int32)}
    assert [array.tolist() for array in session.run(feed, ["OUTPUT1", "OUTPUT0"])] == [[2], [8]]
    assert [array.tolist() for array in session.run(feed, ("OUTPUT1",))] == [[2]]
    assert session.run(feed, []) == []


def test_an_optional_input_may_be_absent_or_given(load):
    session = load(graphs.optional_input())
    x = np.array([1, 2], np.float32)
    assert session.run({"x": x}, ["y"])[0].tolist() == [2, 3]
    assert session.run({"x": x, "w": np.array([10], np.float32)}, ["y"])[0].tolist() == [11, 12]


def test_an_old_model_that_lists_its_weights_as_inputs_runs(load):
    session = load(graphs.optional_input(ir_version=3, opset=8))
    assert session.run({"x": np.ones(2, np.float32)}, ["y"])[0].tolist() == [2, 2]


@pytest.mark.parametrize("wire", ["FP32", "FP16", "BF16", "INT64"])
def test_awkward_memory_is_read_as_it_is_meant(load, wire):
    session = load(graphs.identity(wire, ["a", "b"]))
    numpy_type = DataType.from_wire(wire).numpy
    plain = np.arange(12).reshape(3, 4).astype(numpy_type)
    unaligned = np.frombuffer(b"\0" + plain.tobytes(), numpy_type, offset=1).reshape(3, 4)
    assert not unaligned.flags.aligned
    assert not unaligned.flags.writeable
    for array in (plain, unaligned, np.asfortranarray(plain), plain.T.copy().T, plain[:, ::-1][:, ::-1]):
        same(session.run({"x": array}, ["y"])[0], plain)
    same(session.run({"x": plain[:, ::2]}, ["y"])[0], plain[:, ::2].copy())


def test_a_foreign_byte_order_or_type_is_refused_not_misread(load):
    session = load(graphs.identity("FP32", ["n"]))
    for array in (np.ones(2, ">f4"), np.ones(2, np.float64), np.ones(2, np.int32)):
        with pytest.raises(InvalidArgument, match="expected FP32"):
            session.run({"x": array}, ["y"])


@pytest.mark.parametrize("item", [*NOT_UTF8, *UTF8], ids=lambda b: repr(b[:6]))
def test_arbitrary_bytes_are_echoed(load, item):
    session = load(graphs.identity("BYTES", ["n"]))
    array = objects([item, b"other"])
    same(session.run({"x": array}, ["y"])[0], array)


def test_bytes_that_the_model_itself_makes_come_out_exactly(load):
    items = [*NOT_UTF8, *UTF8]
    session = load(graphs.strings_table(items))
    out = session.run({"index": np.arange(len(items))[::-1].copy()}, ["y"])[0]
    assert out.tolist() == items[::-1]


def test_bytes_in_that_are_text_and_bytes_out_that_are_not(load):
    session = load(graphs.strings_from_both([b"\xff\x00", b"text"]))
    text = objects([b"a", "ü".encode()])
    y, echo = session.run({"text": text, "index": np.array([0, 1])}, ["y", "echo"])
    assert y.tolist() == [b"\xff\x00", b"text"]
    assert echo.tolist() == text.tolist()


@pytest.mark.parametrize("text", [[b"a", b"b"], [b"\xff", b"b"]], ids=["utf8", "bytes"])
@pytest.mark.parametrize("names", [["text_out", "bits_out", "x_out"], ["x_out"], ["bits_out"], ["x_out", "text_out"]])
def test_bytes_bf16_and_numbers_in_one_model(load, text, names):
    session = load(graphs.mixed())
    feed = {
        "text": objects(text),
        "bits": np.array([0x3F80, 0x7F81], np.uint16),  # 1.0 and a signalling NaN
        "x": np.array([0.5, 1.0], np.float32),
    }
    got = dict(zip(names, session.run(feed, names), strict=True))
    if "text_out" in names:
        assert got["text_out"].tolist() == text
    if "bits_out" in names:
        assert got["bits_out"].tolist() == [0x3F80, 0x7F81]
    if "x_out" in names:
        assert got["x_out"][0] == 1.5


def test_every_bf16_pattern_survives(load):
    session = load(graphs.identity("BF16", ["n"]))
    every = np.arange(2**16, dtype=np.uint16)
    same(session.run({"x": every}, ["y"])[0], every)


def test_without_proof_of_the_layout_bytes_are_refused_by_name_and_text_still_passes(load, monkeypatch):
    session = load(graphs.identity("BYTES", ["n"]))
    monkeypatch.setattr(session._native.exchange, "_raw_strings", False)
    same(session.run({"x": objects(UTF8)}, ["y"])[0], objects(UTF8))
    with pytest.raises(InvalidArgument, match="input 'x': element 1 is not valid UTF-8"):
        session.run({"x": objects([b"ok", b"\xff"])}, ["y"])
    table = load(graphs.strings_table([b"\xff"]))
    with pytest.raises(ModelFailed, match="output 'y' holds bytes that are not UTF-8"):
        table.run({"index": np.array([0])}, ["y"])


@pytest.mark.skipif(sys.platform != "linux", reason="the layout is known for libstdc++ on Linux only")
def test_this_platform_carries_arbitrary_bytes(load):
    assert load(graphs.identity("BYTES"))._native.exchange.any_bytes


# --- what goes wrong in a run -----------------------------------------------------------------------------------------


def test_input_values_that_the_model_refuses_are_the_callers_fault(load):
    session = load(graphs.lookup())
    with pytest.raises(InvalidArgument) as caught:
        session.run({"index": np.array([0, 9])}, ["y"])
    text = str(caught.value)
    assert "Gather node 'lookup'" in text
    assert "idx=9" in text
    assert "ONNXRuntimeError" not in text
    assert session.run({"index": np.array([2])}, ["y"])[0].tolist() == [30]


@pytest.mark.parametrize("size", [2**38, 2**62])
def test_a_run_that_asks_for_absurd_memory_fails_alone(load, size, capfd):
    session = load(graphs.expand())
    x = np.ones(1, np.float32)
    with pytest.raises(ModelFailed) as caught:
        session.run({"x": x, "shape": np.array([size])}, ["y"])
    assert ".cc" not in str(caught.value)
    assert "::" not in str(caught.value)
    assert session.run({"x": x, "shape": np.array([2])}, ["y"])[0].tolist() == [1, 1]
    assert capfd.readouterr() == ("", "")


def test_a_failure_inside_the_model_keeps_the_useful_words(load):
    session = load(graphs.reshape())
    with pytest.raises(ModelFailed) as caught:
        session.run({"x": np.ones(6, np.float32), "shape": np.array([4, 4])}, ["y"])
    assert str(caught.value) == (
        "the model failed: Reshape node 'fold': The input tensor cannot be reshaped to the requested shape. "
        "Input shape:{6}, requested shape:{4,4}"
    )


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ({}, "INPUT0"),
        ({"INPUT0": np.zeros((1, 16), np.int32)}, "INPUT1"),
        ({"NOPE": np.zeros((1, 16), np.int32)}, "no input 'NOPE'"),
        ({"INPUT0": np.zeros((1, 3), np.int32), "INPUT1": np.zeros((1, 3), np.int32)}, "Expected: 16"),
        ({"INPUT0": np.zeros(16, np.int32), "INPUT1": np.zeros(16, np.int32)}, "Expected: 2"),
    ],
)
def test_wrong_inputs_are_named(load, feed, words):
    with pytest.raises(InvalidArgument, match=words):
        load(graphs.add_sub()).run(feed, ["OUTPUT0"])


@pytest.mark.parametrize("wire", ["FP32", "BF16", "BYTES"])
def test_an_unknown_output_is_refused_on_every_path(load, wire):
    session = load(graphs.identity(wire, ["n"]))
    with pytest.raises(InvalidArgument, match="nope"):
        session.run({"x": sample(DataType.from_wire(wire), (1,))}, ["nope"])


def test_running_after_close_is_our_bug(load):
    session = load(graphs.scale())
    session.close()
    with pytest.raises(InvariantViolation):
        session.run({"x": np.zeros((1, 4), np.float32)}, ["y"])


def test_many_threads_share_a_session(load):
    session = load(graphs.mixed(), threads=2)
    start = threading.Barrier(6)
    failures = []

    def work(number):
        text = objects([bytes([0x80 + number]), str(number).encode()] if number % 2 else [b"t", b"u"])
        bits = np.array([number, 0x3F80], np.uint16)
        start.wait(30)
        for _ in range(20):
            out = session.run(
                {"text": text, "bits": bits, "x": np.array([0, number], np.float32)}, ["x_out", "bits_out", "text_out"]
            )
            if out[0][1] != 1 + number or out[1].tolist() != bits.tolist() or out[2].tolist() != text.tolist():
                failures.append((number, out))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- loading ----------------------------------------------------------------------------------------------------------


def test_the_placement_tells_threads_providers_and_nodes(load):
    placement = load(graphs.add_sub(), threads=2).placement
    assert placement.providers == ("CPUExecutionProvider",)
    assert (placement.intra_op_threads, placement.inter_op_threads) == (2, 1)
    assert placement.nodes == {"CPUExecutionProvider": 2}
    assert placement.notes == ()


def test_the_configurations_thread_counts_win_over_the_budget(load):
    execution = ExecutionConfig(intra_op_threads=2, inter_op_threads=3, parallel=True)
    placement = load(graphs.add_sub(), execution, threads=1).placement
    assert (placement.intra_op_threads, placement.inter_op_threads) == (2, 3)


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_every_setting_gives_the_same_answer(load, level):
    execution = ExecutionConfig(
        graph_optimization=level,
        spinning=level == "all",
        memory_arena=level != "basic",
        memory_pattern=level != "extended",
        arena_shrinkage="cpu:0" if level != "basic" else "",
        session_options={"session.set_denormal_as_zero": "1"},
    )
    session = load(graphs.scale(3), execution)
    assert session.run({"x": np.ones((1, 4), np.float32)}, ["y"])[0].tolist() == [[3] * 4]


@pytest.mark.parametrize(
    ("execution", "words"),
    [
        (ExecutionConfig(graph_optimization="turbo"), "graph_optimization is 'turbo'"),
        (ExecutionConfig(intra_op_threads=10**6), "intra_op_threads is 1000000"),
        (ExecutionConfig(intra_op_threads=-1), "intra_op_threads is -1"),
        (ExecutionConfig(session_options={"k" * 5000: "1"}), "session option 'kkk"),
        (ExecutionConfig(session_options={"ep.context_file_path": "/tmp/x"}), "names files"),
        (ExecutionConfig(providers=(ProviderConfig("cuda"),)), "'cuda' is not in this build"),
        (ExecutionConfig(providers=(ProviderConfig("Nonsense"),)), "'Nonsense' is not in this build"),
        (ExecutionConfig(providers=(ProviderConfig("cpu"), ProviderConfig("CPU"))), "listed twice"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_load(load, execution, words):
    with pytest.raises(ModelFailed, match=words):
        load(graphs.scale(), execution, kind=InstanceKind.AUTO)


def test_a_gpu_that_is_not_there_is_refused_or_noted(load, backend):
    if "CUDAExecutionProvider" in backend.machine.available:
        pytest.skip("this build knows CUDA")
    with pytest.raises(ModelFailed, match=r"tensorquay\[gpu\]"):
        load(graphs.scale(), kind=InstanceKind.GPU)
    placement = load(graphs.scale(), ExecutionConfig(allow_fallback=True), kind=InstanceKind.GPU).placement
    assert placement.providers == ("CPUExecutionProvider",)
    assert "falling back" in placement.notes[0]
    assert load(graphs.scale(), kind=InstanceKind.AUTO).placement.notes == ()


def test_a_provider_that_the_runtime_drops_silently_fails_the_load(load, backend, capfd):
    """The runtime here has no CUDA and only warns; a build whose CUDA library does not load behaves the same."""
    if "CUDAExecutionProvider" in backend.machine.available:
        pytest.skip("this build knows CUDA")
    machine = Machine(("CUDAExecutionProvider", "CPUExecutionProvider"), gpus=1, wheels=("onnxruntime-gpu",))
    pretending = OnnxRuntimeBackend(machine=machine)
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(ModelFailed) as caught:
        load(graphs.scale(), kind=InstanceKind.AUTO, on=pretending)
    assert "'cuda' was asked for and did not attach" in str(caught.value)
    assert "libonnxruntime_providers_cuda.so could not be loaded" in str(caught.value)
    assert "allow_fallback" in str(caught.value)
    with pytest.warns(UserWarning, match="not in available"):
        session = load(graphs.scale(), ExecutionConfig(allow_fallback=True), kind=InstanceKind.GPU, on=pretending)
    assert session.placement.providers == ("CPUExecutionProvider",)
    assert "did not attach" in session.placement.notes[0]
    assert session.run({"x": np.ones((1, 4), np.float32)}, ["y"])[0].tolist() == [[2] * 4]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.graph.node.append(helper.make_node("NoSuchOp", ["x"], ["q"])), "NoSuchOp"),
        (lambda p: p.opset_import.add(domain="", version=99_999), "opset"),
        (lambda p: p.graph.node[0].input.__setitem__(0, "dangling"), "dangling"),
    ],
)
def test_a_model_that_the_runtime_refuses_says_why_without_paths(load, tmp_path, spoil, words, capfd):
    proto = graphs.scale()
    spoil(proto)
    with pytest.raises(ModelFailed, match=words) as caught:
        load(proto)
    assert str(tmp_path) not in str(caught.value)
    assert "'model.onnx'" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_weights_beside_the_model_are_used_and_checked_again_at_load(backend, tmp_path):
    path, weights = graphs.write_external(tmp_path / "m")
    request = LoadRequest(path, ExecutionConfig(), InstanceKind.CPU, 0, 1)
    session = backend.load(request)
    x = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(session.run({"x": x}, ["y"])[0], x @ weights, rtol=1e-5)
    session.close()
    secret = tmp_path / "secret"
    (path.parent / "weights.bin").rename(secret)
    (path.parent / "weights.bin").symlink_to(secret)
    with pytest.raises(ModelFailed, match="points outside the model's folder"):
        backend.load(request)


def test_a_replaced_file_is_inspected_anew(backend, tmp_path):
    path = graphs.write(graphs.identity("FP32"), tmp_path / "model.onnx")
    assert backend.inspect(path).inputs[0].datatype is DataType.FP32
    fresh = graphs.write(graphs.identity("INT64"), tmp_path / "new" / "model.onnx")
    os.replace(fresh, path)  # noqa: PTH105
    assert backend.inspect(path).inputs[0].datatype is DataType.INT64


def test_a_file_swapped_after_its_inspection_is_not_served_under_the_old_signature(backend, tmp_path, monkeypatch):
    path = graphs.write(graphs.identity("FP32"), tmp_path / "model.onnx")
    inspection = backend._inspect(path)
    graphs.write(graphs.add_sub(), path)
    monkeypatch.setattr(backend, "_inspect", lambda _: inspection)
    with pytest.raises(ModelFailed, match="changed while it was being loaded"):
        backend.load(LoadRequest(path, ExecutionConfig(), InstanceKind.CPU, 0, 1))


def test_importing_the_rooms_does_not_import_a_runtime():
    code = (
        "import sys, tensorquay, tensorquay.backends.registry, tensorquay.backends.onnxruntime.backend, "
        "tensorquay.testing\nprint([m for m in ('onnxruntime', 'onnx') if m in sys.modules])"
    )
    server = Path(__file__).parents[2] / "server"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(server)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
