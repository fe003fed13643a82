"""`optimization.json` as strangers write it: read for what it is worth, refused as a whole, never believed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimized import CPU, optimization, write_optimization
from outcomes import HEAD, encoder, nothing_helped
from tensorquay.config.model import ExecutionConfig, ProviderConfig
from tensorquay.repository.files import UnusableFile
from tensorquay.repository.optimization import Optimization, OptimizedOn, read_optimization
from tensorquay_convert.optimize.report import record

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ("winner", "sentence", "settings", "machine", "baseline", "subject", "trials")


def read(plain: Any, folder: Path) -> Optimization | None:
    (folder / "optimization.json").write_text(json.dumps(plain))
    return read_optimization(folder)


def test_it_says_who_won_where_and_how_to_run_it(tmp_path: Path) -> None:
    settings = {
        "provider": "cuda",
        "provider_options": {"use_tf32": False, "n": 3},
        "intra_op_threads": 4,
        "graph_optimization": "extended",
        "session_options": {"session.disable_prepacking": "1"},
    }
    found = read(optimization(settings=settings, baseline={"version": 3, "sha256": "AB" * 32}), tmp_path)
    assert found == Optimization(
        winner="static int8, minmax",
        sentence="static int8, minmax is 1.7 × as fast",
        execution=ExecutionConfig(
            providers=(ProviderConfig("cuda", {"use_tf32": "0", "n": "3"}),),
            graph_optimization="extended",
            intra_op_threads=4,
            session_options={"session.disable_prepacking": "1"},
        ),
        machine=OptimizedOn(CPU.name, CPU.features, 8, "1.31.0", ""),
        source_sha256="ab" * 32,
        source_version=3,
        score=1.704,
    )
    assert found.provider == "cuda"


@pytest.mark.parametrize("outcome", [encoder(), nothing_helped()])
def test_what_the_optimizer_writes_is_understood(tmp_path: Path, outcome: Any) -> None:
    plain = record.record(outcome, **HEAD)
    found = read(plain, tmp_path)
    assert found is not None
    assert found.problem == ""
    assert found.winner == outcome.winner
    assert found.machine.cpu == outcome.machine.cpu
    assert found.machine.features == outcome.machine.features
    assert found.machine.onnxruntime == outcome.machine.onnxruntime
    assert found.source_sha256 == HEAD["baseline"]["sha256"]
    assert found.source_version == 1
    assert found.execution is not None
    assert found.execution.providers[0].name == outcome.settings.provider
    assert found.execution.graph_optimization == outcome.settings.graph_optimization
    won = [each.score for each in outcome.trials if each.variant.name == outcome.winner]
    assert found.score == (won[0] if outcome.winner else None)


def test_a_model_without_one_was_not_optimised(tmp_path: Path) -> None:
    assert read_optimization(tmp_path) is None
    assert read_optimization(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"9" * 5000, "not JSON"),
        (b"[]", "has the schema ''"),
        (b"{}", "has the schema ''"),
        (b'{"schema": "tensorquay.optimization/2"}', "'tensorquay.optimization/2', expected"),
        (b'{"schema": "\\u001b[31mred"}', r"'\\x1b[31mred'"),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "optimization.json").write_bytes(content)
    with pytest.raises(UnusableFile) as caught:
        read_optimization(tmp_path)
    assert said.replace("\\\\", "\\") in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_it_is_read_inside_the_versions_folder_only(tmp_path: Path) -> None:
    outside = write_optimization(tmp_path / "elsewhere")
    (tmp_path / "1").mkdir()
    (tmp_path / "1/optimization.json").symlink_to(outside)
    with pytest.raises(UnusableFile, match="leads out"):
        read_optimization(tmp_path / "1")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_opened(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "optimization.json")
    with pytest.raises(UnusableFile):
        read_optimization(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"provider": "tpu"}, "unknown provider"),
        ({"graph_optimization": "most"}, "graph_optimization"),
        ({"session_options": {"session.optimized_model_filepath": "/tmp/x"}}, "name files or folders"),
        ({"session_options": {"ep.context_file_path": "/tmp/x"}}, "name files or folders"),
        ({"session_options": {"session.custom_ops_library": "x.so"}}, "name files or folders"),
        ({"session_options": {"whatever": "1"}}, "session options begin with"),
        ({"session_options": {"session.intra_op.allow_spinning": "1"}}, "its own key, spinning"),
        ({"session_options": {"session.a": [1]}}, "no text"),
        ({"session_options": {"session.a": "x" * 500}}, "no text"),
        ({"provider": "tensorrt", "provider_options": {"trt_engine_cache_path": "/tmp"}}, "name files or folders"),
        ({"provider": "tensorrt", "provider_options": {"trt_int8_calibration_table_name": "x"}}, "name files"),
        ({"provider": "cuda", "provider_options": {"device_id": "1"}}, "instances choose the device"),
        ({"provider": "cuda", "provider_options": {"user_compute_stream": "1"}}, "address inside a process"),
    ],
)
def test_settings_that_a_configuration_could_not_have_are_not_taken(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    found = read(optimization(settings=settings), tmp_path)
    assert found is not None
    assert found.execution is None
    assert found.problem.startswith("optimization.json: ")
    assert said in found.problem
    assert "dynamic_batching" not in found.problem


def test_options_of_a_profile_are_no_files(tmp_path: Path) -> None:
    found = read(
        optimization(settings={"provider": "tensorrt", "provider_options": {"trt_profile_min_shapes": "x:1"}}), tmp_path
    )
    assert found is not None
    assert found.execution is not None


@given(changes=st.dictionaries(st.sampled_from(MEMBERS), values, max_size=4))
@settings(max_examples=150)
def test_whatever_its_members_are_it_is_read_or_refused(tmp_path_factory: Any, changes: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("version")
    plain = {**optimization(), **changes}
    found = read(plain, folder)
    assert found is not None
    assert (found.execution is None) == bool(found.problem)
    assert found.source_version >= 0
    assert all(letter.isprintable() for letter in found.winner + found.problem)
