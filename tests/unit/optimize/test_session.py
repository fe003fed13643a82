"""Sessions as the server makes them: options, providers, values, and errors in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, helper
from tests.support import graphs

from tensorquay.backends.api import LoadRequest
from tensorquay.backends.onnxruntime import options as server
from tensorquay.backends.onnxruntime import providers as server_providers
from tensorquay.backends.onnxruntime.runtime import Machine
from tensorquay.config.model import ExecutionConfig, InstanceKind, ProviderConfig
from tensorquay_convert.errors import BadSource, ExitCode, Unsupported
from tensorquay_convert.optimize import session
from tensorquay_convert.optimize.session import DoesNotRun, Opened, open_session, session_options
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.surroundings import usable_cpus

ENTRIES = (
    "session.intra_op.allow_spinning", "session.inter_op.allow_spinning", "session.record_ep_graph_assignment_info",
    "session.set_denormal_as_zero",
)  # fmt: skip
FIELDS = (
    "intra_op_num_threads", "inter_op_num_threads", "execution_mode", "graph_optimization_level",
    "enable_cpu_mem_arena", "enable_mem_pattern", "log_severity_level",
)  # fmt: skip


def opened(proto: ModelProto, folder: Path, settings: Settings | None = None) -> Opened:
    return open_session(graphs.write(proto, folder / "model.onnx"), settings or Settings())


def described(options: Any) -> dict[str, Any]:
    found = {field: getattr(options, field) for field in FIELDS}
    for entry in ENTRIES:
        try:
            found[entry] = options.get_session_config_entry(entry)
        except RuntimeError:
            found[entry] = None
    return found


@given(
    level=st.sampled_from(["disabled", "basic", "extended", "all"]),
    intra=st.integers(0, 4),
    inter=st.integers(0, 3),
    parallel=st.booleans(),
    spinning=st.booleans(),
    denormals=st.booleans(),
)
def test_options_are_the_servers(
    level: str, intra: int, inter: int, parallel: bool, spinning: bool, denormals: bool
) -> None:
    extra = {"session.set_denormal_as_zero": "1"} if denormals else {}
    ours = Settings(
        graph_optimization=level, intra_op_threads=intra, inter_op_threads=inter, parallel=parallel,
        spinning=spinning, session_options=extra,
    )  # fmt: skip
    execution = ExecutionConfig(
        graph_optimization=level, intra_op_threads=intra, inter_op_threads=inter, parallel=parallel,
        spinning=spinning, session_options=extra,
    )  # fmt: skip
    request = LoadRequest(Path("model.onnx"), execution, InstanceKind.CPU, 0, thread_budget=usable_cpus())
    threads = server.plan_threads(execution, usable_cpus())
    expected = server.session_options(onnxruntime, request, threads)
    assert described(session_options(ours)) == described(expected)


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_providers_are_the_servers(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = tuple(server_providers.SHORT_NAMES.values())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(every))
    made = FakeSession.catch(monkeypatch, every)
    own = {"do_copy_in_default_stream": "0"} if provider != "cpu" else {}
    open_session(Path("model.onnx"), Settings(provider=provider, provider_options=own))
    config = ExecutionConfig(providers=(ProviderConfig(provider, own),))
    kind = InstanceKind.CPU if provider == "cpu" else InstanceKind.GPU
    choice = server_providers.choose(
        LoadRequest(Path("model.onnx"), config, kind, 0, 1), Machine(every, 1, ("onnxruntime-gpu",))
    )
    assert made["providers"] == [(each.name, dict(each.options)) for each in choice.providers]
    assert (made["enable_fallback"], made["read_config_from_model"]) == (0, 0)


class FakeSession:
    """Attaches what it was told, whatever is asked for."""

    def __init__(self, attached: tuple[str, ...]) -> None:
        self._attached = attached

    @classmethod
    def catch(cls, monkeypatch: pytest.MonkeyPatch, attached: tuple[str, ...]) -> dict[str, Any]:
        """Instead of sessions; returns what the next one is asked for."""
        asked: dict[str, Any] = {}

        def make(path: str, options: Any, **others: Any) -> FakeSession:
            asked.update(others)
            return cls(attached)

        monkeypatch.setattr(onnxruntime, "InferenceSession", make)
        return asked

    def get_providers(self) -> list[str]:
        return list(self._attached)

    def disable_fallback(self) -> None: ...

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_overridable_initializers = get_inputs


def test_a_provider_that_does_not_attach_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [session.CUDA, session.CPU])
    FakeSession.catch(monkeypatch, (session.CPU,))
    with pytest.raises(
        Unsupported, match=r"'cuda' cannot be had here: .* did not attach; .*CUDA_VISIBLE_DEVICES"
    ) as told:
        open_session(Path("model.onnx"), Settings(provider="cuda"))
    assert told.value.facts == {"provider": "cuda"}


@pytest.mark.parametrize(("provider", "lacks"), [("cuda", "cuda"), ("tensorrt", "tensorrt")])
def test_a_provider_that_is_not_built_in_says_what_to_install(
    provider: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [session.CPU])
    with pytest.raises(Unsupported, match=rf"'{lacks}' .* not in this build .* has cpu; .*tensorquay\[gpu\]"):
        open_session(Path("model.onnx"), Settings(provider=provider))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(provider="tpu"), "the provider is 'tpu', expected cpu, cuda, tensorrt"),
        (Settings(graph_optimization="most"), "graph_optimization is 'most', expected disabled"),
        (Settings(intra_op_threads=5000), "intra_op_threads is 5000, expected 1 to 1024"),
        (Settings(intra_op_threads=-1), "intra_op_threads is -1"),
        (Settings(parallel=True, inter_op_threads=2000), "inter_op_threads is 2000"),
        (Settings(session_options={"session.optimized_model_file_path": "x"}), "names files"),
        (Settings(session_options={"session." + "x" * 5000: "y"}), "was refused"),
    ],
)
def test_settings_that_no_server_takes(settings: Settings, said: str, tmp_path: Path) -> None:
    path = graphs.write(graphs.scale(), tmp_path / "model.onnx")
    with pytest.raises(BadSource, match=said):
        open_session(path, settings)


def test_a_run_gives_all_outputs_by_name(tmp_path: Path) -> None:
    model = opened(graphs.add_sub(), tmp_path)
    rows = np.arange(32, dtype=np.int32).reshape(2, 16)
    found = model.run({"INPUT0": rows, "INPUT1": rows, "not an input": rows})
    assert model.outputs == ("OUTPUT0", "OUTPUT1")
    assert np.array_equal(found["OUTPUT0"], rows * 2)
    assert not found["OUTPUT1"].any()
    assert model.providers == (session.CPU,)
    assert model.nodes == {session.CPU: 2}
    assert model.load_seconds > 0
    model.close()


def test_rows_that_are_not_contiguous_are_numbers_all_the_same(tmp_path: Path) -> None:
    model = opened(graphs.scale(), tmp_path)
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::2]
    name = next(iter(model._inputs))
    assert np.array_equal(next(iter(model.run({name: wide}).values())), wide * 2)


def test_texts_go_in_and_come_out_as_bytes(tmp_path: Path) -> None:
    model = opened(graphs.identity("BYTES"), tmp_path)
    texts = np.array([[b"", "ö".encode()]], object)
    (found,) = model.run({next(iter(model._inputs)): texts}).values()
    assert found.tolist() == texts.tolist()
    model.prepared({next(iter(model._inputs)): texts})()


def test_bfloat16_is_its_bits(tmp_path: Path) -> None:
    model = opened(graphs.identity("BF16"), tmp_path)
    bits = np.array([[0x3F80, 0x4000]], np.uint16)
    (found,) = model.run({next(iter(model._inputs)): bits}).values()
    assert np.array_equal(found, bits)
    assert model.bfloat16 == set(model.outputs)
    model.prepared({next(iter(model._inputs)): bits})()


def test_outputs_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", graphs.ONNX_TYPES["FP32"], None)
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("Identity", ["x"], ["y"])]
    proto = graphs.model(nodes, [graphs.value("x", "FP32", ["n"])], [sequence, graphs.value("y", "FP32", ["n"])])
    assert list(opened(proto, tmp_path).run({"x": np.ones(2, np.float32)})) == ["y"]


def test_what_is_prepared_runs_with_the_same_inputs_again(tmp_path: Path) -> None:
    model = opened(graphs.add_sub(), tmp_path)
    rows = np.ones((2, 16), np.int32)
    call = model.prepared({"INPUT0": rows, "INPUT1": rows})
    call()
    call()


@pytest.mark.parametrize("way", ["run", "prepared"])
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "has an input 'INPUT0' and the samples have none"),
        ({"INPUT0": np.ones((2, 16), np.int32)}, "'INPUT1'"),
        ({name: np.ones((2, 15), np.int32) for name in ("INPUT0", "INPUT1")}, "INPUT[01] .* Got: 15 Expected: 16"),
        ({name: np.ones((2, 16), np.float64) for name in ("INPUT0", "INPUT1")}, "Unexpected input data type"),
    ],
)
def test_inputs_that_do_not_fit_are_told_in_words(way: str, inputs: Any, said: str, tmp_path: Path) -> None:
    model = opened(graphs.add_sub(), tmp_path)
    with pytest.raises(DoesNotRun, match=said) as told:
        getattr(model, way)(inputs)
    assert str(tmp_path) not in str(told.value)
    assert told.value.code is ExitCode.BAD_SOURCE


def test_a_node_that_fails_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "i"], ["y"], name="/encoder/Gather")
    table = helper.make_tensor("table", graphs.ONNX_TYPES["FP32"], [2], [1.0, 2.0])
    proto = graphs.model([node], [graphs.value("i", "INT64", ["n"])], [graphs.value("y", "FP32", ["n"])], [table])
    with pytest.raises(DoesNotRun, match="Gather node '/encoder/Gather': ") as told:
        opened(proto, tmp_path).run({"i": np.array([5])})
    assert (told.value.node, told.value.operator) == ("/encoder/Gather", "Gather")
    assert ".cc:" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"garbage", graphs.scale().SerializeToString()[:40]])
def test_a_file_that_is_no_model_is_told_without_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DoesNotRun, match="ONNX Runtime does not load the model: ") as told:
        open_session(path, Settings())
    assert str(tmp_path) not in str(told.value)


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    assert len(session.clean("[ONNXRuntimeError] : 1 : FAIL : " + "x" * 10_000, tmp_path)) == 400
    assert session.clean("", tmp_path) == "the runtime gave no reason"
    signature = "/src/a/b.cc:77 void ns::Class::Method(int, const T&) const cond == 1 was false. Too many rows"
    assert session.clean(signature, tmp_path) == "Too many rows"
