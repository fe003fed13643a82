"""The small pure parts: states, instances, labels, index lines, leases, look-up errors."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from pathlib import Path

import pytest

from tensorquay.config.model import (
    ExecutionConfig,
    InstanceGroup,
    InstanceKind,
    ModelConfig,
    ProviderConfig,
    TensorConfig,
)
from tensorquay.core.errors import InvariantViolation, ModelFailed, NotFound, Unavailable
from tensorquay.core.ids import VersionId
from tensorquay.core.messages import IndexEntry
from tensorquay.lifecycle.index import Remarks, entries
from tensorquay.lifecycle.instances import MAX_INSTANCES, PlannedSession, plan_instances
from tensorquay.lifecycle.labels import read_labels
from tensorquay.lifecycle.lookup import not_served
from tensorquay.lifecycle.plan import Load, Row, Stamp
from tensorquay.lifecycle.state import Event, State, next_state
from tensorquay.lifecycle.table import VersionTable

ALLOWED = {
    (State.UNKNOWN, Event.LOAD): State.LOADING,
    (State.LOADING, Event.LOADED): State.READY,
    (State.LOADING, Event.FAILED): State.UNAVAILABLE,
    (State.READY, Event.RETIRE): State.UNLOADING,
    (State.UNLOADING, Event.DRAINED): State.UNAVAILABLE,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_the_transition_table_is_the_one_of_the_design(state, event):
    if (state, event) in ALLOWED:
        assert next_state(state, event) is ALLOWED[state, event]
    else:
        with pytest.raises(InvariantViolation):
            next_state(state, event)


def test_a_finished_row_gives_way_to_a_newer_generation_and_a_failed_newer_one_stays():
    table = VersionTable()
    one, two, three = (VersionId("m", 1, generation) for generation in (1, 2, 3))
    table.begin(Load(one, Stamp(())))
    table.apply(one, Event.LOADED)
    table.begin(Load(two, Stamp(())))
    table.apply(two, Event.FAILED, "bad")
    assert [row.id for row in table.of("m")] == [one, two]
    table.begin(Load(three, Stamp(())))
    assert [row.id for row in table.of("m")] == [one, three]
    with pytest.raises(InvariantViolation):
        table.begin(Load(three, Stamp(())))
    with pytest.raises(InvariantViolation):
        table.apply(two, Event.LOADED)


CPU, GPU, AUTO = InstanceKind.CPU, InstanceKind.GPU, InstanceKind.AUTO


@pytest.mark.parametrize(
    ("groups", "gpus", "planned"),
    [
        ((), (), [(CPU, 0, 1)]),
        ((), (0, 1), [(GPU, 0, 1), (GPU, 1, 1)]),
        ((InstanceGroup(AUTO, 3),), (), [(CPU, 0, 3)]),
        ((InstanceGroup(CPU, 2), InstanceGroup(CPU, 1)), (0,), [(CPU, 0, 3)]),
        ((InstanceGroup(GPU, 2, (1,)),), (0, 1), [(GPU, 1, 1), (GPU, 1, 1)]),
    ],
)
def test_cpu_slots_share_one_session_and_gpu_instances_have_their_own(groups, gpus, planned):
    assert plan_instances(groups, gpus) == tuple(PlannedSession(*each) for each in planned)


@pytest.mark.parametrize(
    ("groups", "gpus", "text"),
    [
        ((InstanceGroup(CPU, 2_000_000),), (), "expected 1 to 256, got 2000000"),
        ((InstanceGroup(CPU, 0),), (), "expected 1 to 256, got 0"),
        ((InstanceGroup(CPU, 200), InstanceGroup(CPU, 200)), (), "400 instances together"),
        ((InstanceGroup(GPU, MAX_INSTANCES),), tuple(range(1000)), "instances together"),
        ((InstanceGroup(GPU),), (), "asks for a GPU, the runtime has no GPU"),
        ((InstanceGroup(GPU, 1, (3,)),), (0,), r"asks for GPU 3, the runtime has GPUs \[0\]"),
        ((InstanceGroup(AUTO, 1, (0,)),), (), "asks for GPU 0"),
    ],
)
def test_instances_that_cannot_be_are_refused_with_the_remedy(groups, gpus, text):
    with pytest.raises(ModelFailed, match=text):
        plan_instances(groups, gpus)


def asks(*providers: str, fallback: bool = False) -> ExecutionConfig:
    return ExecutionConfig(providers=tuple(map(ProviderConfig, providers)), allow_fallback=fallback)


@pytest.mark.parametrize(
    ("groups", "execution", "words"),
    [
        ((InstanceGroup(GPU, 2, name="g"),), asks(), "instance_group 'g': asks for a GPU, the runtime has no GPU: why"),
        ((InstanceGroup(name="m_0", count=2),), asks("cuda", "cpu"), "providers cuda, cpu: ask for a GPU"),
        ((InstanceGroup(count=2),), asks("cuda"), "execution providers cuda: ask for a GPU, .* no GPU: why"),
        ((InstanceGroup(GPU, 2),), asks("cuda"), "instance_group 0: asks for a GPU"),
        ((InstanceGroup(AUTO, 2, (0,)),), asks(), "asks for GPU 0"),
        ((InstanceGroup(AUTO, 2),), asks("tensorrt", "cuda", "cpu"), "providers tensorrt, cuda, cpu: ask for a GPU"),
    ],
)
def test_who_asks_for_a_gpu_gets_it_or_an_error_or_with_leave_the_cpu_and_a_sentence(groups, execution, words):
    with pytest.raises(ModelFailed, match=words) as caught:
        plan_instances(groups, (), execution, no_gpu_because="why and what to do")
    assert "KIND_CPU" not in caught.value.message, "nobody wrote that"
    assert "allow_fallback = true" in caught.value.message
    assert "allow_provider_fallback" in caught.value.message
    allowed = dataclasses.replace(execution, allow_fallback=True)
    (planned,) = plan_instances(groups, (), allowed, no_gpu_because="why and what to do")
    assert (planned.kind, planned.slots) == (CPU, 2)
    assert re.search(words, planned.fallback)
    assert planned.fallback.endswith("why and what to do; runs on the CPU (allow_fallback)")


@pytest.mark.parametrize(
    ("groups", "gpus", "execution", "kinds"),
    [
        ((), (), asks(fallback=True), [CPU]),
        ((), (0,), asks("cuda", "cpu"), [GPU]),
        ((), (0,), asks("cuda", "cpu", fallback=True), [GPU]),
        ((), (0,), asks("cpu"), [CPU]),
        ((), (0,), asks("openvino", "cpu"), [CPU]),
        ((InstanceGroup(AUTO, 1, (0,)),), (0,), asks("openvino", "cpu"), [GPU]),
        ((), (), asks("openvino", "cpu"), [CPU]),
    ],
)
def test_a_list_of_providers_decides_what_auto_means(groups, gpus, execution, kinds):
    planned = plan_instances(groups, gpus, execution)
    assert [each.kind for each in planned] == kinds
    assert all(each.fallback == "" for each in planned)


def test_only_the_group_whose_gpu_is_missing_falls_back():
    groups = (InstanceGroup(GPU, 1, (0,)), InstanceGroup(GPU, 2, (7,), "far"))
    one, two = plan_instances(groups, (0,), asks(fallback=True))
    assert one == PlannedSession(GPU, 0, 1)
    assert (two.kind, two.slots) == (CPU, 2)
    assert two.fallback.startswith("instance_group 'far': asks for GPU 7, the runtime has GPUs [0]")


def labelled(name: str) -> ModelConfig:
    return ModelConfig(outputs=(TensorConfig("y", labels_file=name),))


def test_labels_are_lines_without_trailing_blanks(tmp_path: Path):
    (tmp_path / "labels.txt").write_bytes("zero\r\neins\n\nüber\n\n".encode())
    assert read_labels(tmp_path, labelled("labels.txt")) == {"y": ("zero", "eins", "", "über")}
    assert read_labels(tmp_path, ModelConfig()) == {}


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/../../secret", "link", "missing", "pipe", "binary", "a\0b"]
)
def test_labels_from_elsewhere_are_never_read(tmp_path: Path, name: str):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelFailed, match="output 'y': label_filename") as caught:
        read_labels(folder, labelled(name))
    assert str(tmp_path) not in caught.value.message


def row(version: int, generation: int, state: State, reason: str = "", *, failed: bool = False) -> Row:
    return Row(VersionId("m", version, generation), state, Stamp(()), reason, failed)


@pytest.mark.parametrize(
    ("rows", "remarks", "lines"),
    [
        ([], Remarks(), [("", "", "")]),
        ([], Remarks("no versions"), [("", "UNAVAILABLE", "no versions")]),
        ([row(1, 1, State.READY)], Remarks(), [("1", "READY", "")]),
        (
            [row(1, 1, State.READY), row(1, 2, State.UNAVAILABLE, "bad", failed=True)],
            Remarks(),
            [("1", "READY", "generation 1 serves; the newer one failed: bad")],
        ),
        (
            [row(1, 1, State.READY), row(1, 2, State.UNAVAILABLE, "bad", failed=True)],
            Remarks("no TOML"),
            [("1", "READY", "generation 1 serves; not loaded again: no TOML")],
        ),
        ([row(1, 1, State.UNLOADING), row(1, 2, State.LOADING)], Remarks(), [("1", "LOADING", "")]),
        ([row(1, 1, State.UNLOADING), row(1, 2, State.READY)], Remarks(), [("1", "READY", "")]),
        (
            [row(2, 1, State.READY), row(10, 1, State.UNAVAILABLE, "unloaded")],
            Remarks("", {3: "no file"}),
            [("2", "READY", ""), ("3", "UNAVAILABLE", "no file"), ("10", "UNAVAILABLE", "unloaded")],
        ),
    ],
)
def test_index_lines(rows, remarks, lines):
    assert entries("m", rows, remarks) == [IndexEntry("m", *line) for line in lines]


@pytest.mark.parametrize(
    ("version", "rows", "known", "kind", "text"),
    [
        (None, [], False, NotFound, "Request for unknown model: 'm' is not found"),
        (3, [], False, NotFound, "Request for unknown model: 'm' is not found"),
        (3, [], True, NotFound, "Request for unknown model: 'm' version 3 is not found"),
        (None, [], True, NotFound, "Request for unknown model: 'm' has no available versions"),
        (
            None,
            [row(1, 1, State.UNAVAILABLE, "x", failed=True)],
            True,
            NotFound,
            "Request for unknown model: 'm' has no available versions: x",
        ),
        (
            1,
            [row(1, 1, State.UNAVAILABLE, "x", failed=True)],
            True,
            Unavailable,
            "Request for unknown model: 'm' version 1 is not at ready state: x",
        ),
        (
            1,
            [row(1, 1, State.UNAVAILABLE, "x" * 5000, failed=True)],
            True,
            Unavailable,
            f"Request for unknown model: 'm' version 1 is not at ready state: {'x' * 1000}…",
        ),
        (
            None,
            [row(1, 1, State.LOADING)],
            True,
            Unavailable,
            "Request for unknown model: 'm' version 1 is not at ready state",
        ),
        (
            1,
            [row(1, 1, State.UNAVAILABLE, "unloaded")],
            True,
            NotFound,
            "Request for unknown model: 'm' version 1 is not found",
        ),
    ],
)
def test_what_is_not_served_is_told_in_tritons_words(version, rows, known, kind, text):
    error = not_served("m", version, rows, known=known)
    assert type(error) is kind
    assert error.message == text
