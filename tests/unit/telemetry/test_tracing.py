from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.config.server import ServerConfig
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument, Overloaded, ServingError, Unimplemented
from tensorquay.core.tensors import Tensor
from tensorquay.telemetry import tracing
from tensorquay.telemetry.trace_files import TraceWriter
from tensorquay.telemetry.tracing import Trace, TraceRecorder

INITIAL = {
    "trace_level": ["TIMESTAMPS"],
    "trace_rate": "1",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}


def recorder(file: Path, **settings: object) -> TraceRecorder:
    given: dict[str, object] = {"trace_level": "TIMESTAMPS", "trace_rate": 1, **settings}
    return TraceRecorder(ServerConfig(trace_file=file, **given))  # type: ignore[arg-type]


def take(traces: TraceRecorder, model: str = "m", count: int = 1) -> list[Trace]:
    return [found for _ in range(count) if (found := traces.sample(model)) is not None]


def finish(traces: TraceRecorder, model: str = "m", count: int = 1) -> int:
    taken = take(traces, model, count)
    for trace in taken:
        trace.event("REQUEST_START", 1)
        trace.finish()
    return len(taken)


def ids(file: Path) -> list[object]:
    return [record["id"] for record in json.loads(file.read_text()) if "model_name" in record]


def test_off_costs_nothing_and_says_so() -> None:
    traces = TraceRecorder(ServerConfig())
    assert traces.enabled is False
    assert traces.sample("m") is None
    assert traces.settings() == {
        "trace_level": ["OFF"],
        "trace_rate": "1000",
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_file": "",
        "trace_mode": "triton",
    }
    traces.close()


def test_a_trace_is_written_in_tritons_format(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    traces = recorder(file)
    trace = traces.sample("simple", 3, "req-1")
    assert trace is not None
    trace.event("REQUEST_START", 100)
    trace.event("REQUEST_END", 250)
    trace.finish()
    trace.finish()
    traces.close()
    assert json.loads(file.read_text()) == [
        {"id": 1, "model_name": "simple", "model_version": 3, "request_id": "req-1"},
        {"id": 1, "timestamps": [{"name": "REQUEST_START", "ns": 100}]},
        {"id": 1, "timestamps": [{"name": "REQUEST_END", "ns": 250}]},
    ]


def test_tensors_are_kept_at_their_level_only(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    traces = recorder(file, trace_level="TENSORS")
    (trace,) = take(traces)
    trace.event("REQUEST_START", 1)
    trace.tensor("TENSOR_QUEUE_INPUT", Tensor("x", DataType.INT32, np.array([[1, 2]], np.int32)))
    trace.tensor("TENSOR_QUEUE_INPUT", Tensor("b", DataType.BYTES, np.array([b"a\xff"], np.object_)))
    trace.finish()
    traces.update({"trace_level": ["TIMESTAMPS"]})
    (second,) = take(traces)
    second.tensor("TENSOR_QUEUE_INPUT", Tensor("x", DataType.INT32, np.array([1], np.int32)))
    second.finish()
    traces.close()
    records = json.loads(file.read_text())
    assert [record["tensor"] for record in records if "tensor" in record] == [
        {"name": "x", "data": "1,2", "shape": "1,2", "dtype": "INT32"},
        {"name": "b", "data": '"a\\xff"', "shape": "1", "dtype": "BYTES"},
    ]
    assert not any("timestamps" in record for record in records)


def test_a_huge_tensor_and_endless_events_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    traces = recorder(file, trace_level=("TIMESTAMPS", "TENSORS"))
    (trace,) = take(traces)
    trace.tensor("T", Tensor("x", DataType.FP32, np.zeros(tracing.MAX_ELEMENTS + 1, np.float32)))
    for number in range(10_000):
        trace.event("E", number)
    trace.finish()
    traces.close()
    records = json.loads(file.read_text())
    assert len(records) == 1 + tracing.MAX_EVENTS
    assert records[1]["tensor"]["data"] == ""


@given(rate=st.integers(1, 20), requests=st.integers(0, 100))
def test_one_in_rate_is_taken(rate: int, requests: int) -> None:
    traces = recorder(Path("/nonexistent/x"), trace_rate=rate)
    assert len(take(traces, count=requests)) == requests // rate


def test_the_count_counts_down_and_then_nothing_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "t"
    traces = recorder(file, trace_count=3)
    assert finish(traces, count=2) == 2
    assert traces.settings()["trace_count"] == "1"
    assert finish(traces, count=10) == 1
    assert traces.settings()["trace_count"] == "0"
    traces.close()
    assert ids(tmp_path / "t.0") == [1, 2, 3]
    assert not file.exists()


def test_a_trace_that_never_finishes_gives_its_place_back(tmp_path: Path) -> None:
    traces = recorder(tmp_path / "t", trace_count=1)
    assert len(take(traces)) == 1
    assert traces.settings()["trace_count"] == "1"
    assert finish(traces) == 1
    traces.close()
    assert ids(tmp_path / "t.0") == [2]


def test_numbered_files_hold_so_many_traces_each(tmp_path: Path) -> None:
    traces = recorder(tmp_path / "t", trace_log_frequency=2)
    finish(traces, count=5)
    traces.close()
    assert [ids(tmp_path / f"t.{number}") for number in range(3)] == [[1, 2], [3, 4], [5]]


def test_one_file_is_complete_json_after_every_write(tmp_path: Path) -> None:
    file = tmp_path / "t"
    writer = TraceWriter()
    for number in range(3):
        writer._save(str(file), False, [[{"id": number, "model_name": "m"}]])
        assert ids(file) == list(range(number + 1))
    writer._close_files()


def test_a_model_follows_the_server_in_what_it_did_not_say(tmp_path: Path) -> None:
    file = tmp_path / "t"
    traces, start = recorder(file), INITIAL | {"trace_file": str(file)}
    assert traces.settings() == traces.settings("simple") == start
    assert traces.update({"trace_rate": "12", "log_frequency": "34"}, "simple") == start | {
        "trace_rate": "12",
        "log_frequency": "34",
    }
    traces.update({"trace_rate": "56", "trace_count": "78", "trace_level": ["OFF"]})
    assert traces.settings("simple") == start | {
        "trace_rate": "12",
        "log_frequency": "34",
        "trace_count": "78",
        "trace_level": ["OFF"],
    }
    assert traces.settings("other") == traces.settings()
    # Clearing: the server returns to its command line, the model to the server.
    assert traces.update({"trace_rate": None, "trace_count": []}) == start | {"trace_level": ["OFF"]}
    assert traces.settings("simple")["trace_rate"] == "12"
    cleared = traces.update({"trace_rate": None, "trace_level": None}, "simple")
    assert cleared == start | {"trace_level": ["OFF"], "log_frequency": "34"}
    assert traces.update({"log_frequency": None}, "simple") == traces.settings()
    traces.close()


def test_a_model_can_be_traced_alone(tmp_path: Path) -> None:
    traces = recorder(tmp_path / "t", trace_level="OFF")
    assert traces.enabled is False
    traces.update({"trace_level": ["TENSORS", "TIMESTAMPS"]}, "m")
    assert traces.settings("m")["trace_level"] == ["TIMESTAMPS", "TENSORS"]
    assert traces.enabled is True
    assert len(take(traces, "m")) == 1
    assert take(traces, "other") == []
    traces.forget("m")
    assert take(traces, "m") == []
    traces.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"trace_rate": "0"}, "Attempting to set invalid trace setting :sample rate must be non-zero"),
        ({"trace_rate": "-1"}, "Unable to parse 'trace_rate', value is out of range [ 0, 4294967295 ], got: -1"),
        ({"trace_rate": str(2**32)}, "out of range"),
        ({"trace_rate": "9" * 5000}, "Unable to parse 'trace_rate'"),
        ({"trace_rate": "ten"}, "Unable to parse 'trace_rate', got: ten"),
        ({"trace_rate": "1_0"}, "Unable to parse 'trace_rate', got: 1_0"),
        ({"trace_rate": ["1", "2"]}, "expect only 1 value for 'trace_rate'"),
        ({"trace_rate": 5}, "Unable to parse 'trace_rate'"),
        ({"trace_rate": {"a": 1}}, "Unable to parse 'trace_rate'"),
        ({"trace_count": "-2"}, "Unable to parse 'trace_count'. Expecting value >= -1, got: -2"),
        ({"trace_count": str(2**31)}, "out of range [ -1, 2147483647 ]"),
        ({"log_frequency": "-1"}, "Unable to parse 'log_frequency', value is out of range"),
        ({"trace_level": ["OFF", "TENSORS"]}, "Expect only one trace level 'OFF' is specified"),
        ({"trace_level": ["MAXIMUM"]}, "got: MAXIMUM"),
        ({"trace_level": [None]}, "Unable to parse 'trace_level'"),
        ({"trace_mode": "opentelemetry"}, "unknown trace setting 'trace_mode'"),
    ],
)
@pytest.mark.parametrize("model", [None, "simple"])
def test_a_wrong_change_is_refused_and_nothing_changes(
    tmp_path: Path, change: dict[str, object], text: str, model: str | None
) -> None:
    traces = recorder(tmp_path / "t")
    before = traces.settings(model)
    with pytest.raises(InvalidArgument) as caught:
        traces.update({"log_frequency": "7", **change}, model)
    assert text in str(caught.value)
    assert traces.settings(model) == before
    traces.close()


def test_the_file_cannot_be_changed(tmp_path: Path) -> None:
    traces = recorder(tmp_path / "t")
    with pytest.raises(Unimplemented, match="trace file location can not be updated through network protocol"):
        traces.update({"trace_file": "x", "trace_rate": "7"})
    assert traces.settings()["trace_rate"] == "1"


def test_without_a_file_nothing_can_be_traced() -> None:
    traces = TraceRecorder(ServerConfig())
    with pytest.raises(InvalidArgument, match="trace file name is not given"):
        traces.update({"trace_level": ["TIMESTAMPS"]})
    traces.update({"trace_rate": "5"})
    assert traces.settings()["trace_rate"] == "5"


def test_a_server_change_that_a_model_cannot_follow_changes_nothing(tmp_path: Path) -> None:
    traces = recorder(tmp_path / "t", trace_level="OFF")
    traces.update({"trace_rate": "0"})
    traces.update({"trace_rate": "1", "trace_level": ["TIMESTAMPS"]}, "m")
    traces.update({"trace_rate": None}, "other")
    traces.update({"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}, "n")
    traces.update({"trace_rate": "2"})
    traces.update({"trace_rate": None}, "n")
    before = traces.settings(), traces.settings("n")
    with pytest.raises(InvalidArgument):
        traces.update({"trace_rate": "0"})
    assert (traces.settings(), traces.settings("n")) == before
    traces.close()


def test_the_number_of_models_with_own_settings_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_MODELS", 1)
    traces = recorder(tmp_path / "t")
    traces.update({"trace_rate": "2"}, "a")
    traces.update({"trace_rate": "3"}, "a")
    with pytest.raises(Overloaded):
        traces.update({"trace_rate": "2"}, "b")


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    traces = recorder(tmp_path / "absent" / "t", trace_log_frequency=1)
    with caplog.at_level(logging.ERROR):
        finish(traces, count=5)
        traces.close()
    assert [record.message for record in caplog.records if "cannot write the trace file" in record.message] != []
    assert len(caplog.records) == 1


def test_a_failed_write_leaves_complete_json_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t"
    writer = TraceWriter()
    writer._save(str(file), False, [[{"id": 1, "model_name": "m"}]])

    class Full:
        """The file, whose disk becomes full in the middle of the second write."""

        def __init__(self, inner: object) -> None:
            self.inner, self.writes = inner, 0

        def write(self, data: bytes) -> int:
            self.writes += 1
            if self.writes == 1:
                return self.inner.write(bytes(data)[:5])  # type: ignore[attr-defined,no-any-return]
            if self.writes == 2:
                raise OSError(28, "No space left on device")
            return self.inner.write(data)  # type: ignore[attr-defined,no-any-return]

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    writer._open[str(file)] = Full(writer._open[str(file)])  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        writer._save(str(file), False, [[{"id": 2, "model_name": "m"}]])
    assert ids(file) == [1]
    writer._save(str(file), False, [[{"id": 3, "model_name": "m"}]])
    assert ids(file) == [1, 3]
    writer._close_files()


def test_a_writer_that_is_behind_drops_and_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    writer = TraceWriter(queue_jobs=1)
    monkeypatch.setattr(writer, "_thread", object())
    writer.write(str(tmp_path / "t"), [[], []], numbered=True)
    writer.write(str(tmp_path / "t"), [[], []], numbered=True)
    assert writer.dropped == 2


SETTING = st.sampled_from(["trace_level", "trace_rate", "trace_count", "log_frequency", "trace_file", "colour"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["OFF", "1", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(SETTING, ANYTHING, max_size=4), st.sampled_from([None, "m"]))
def test_any_change_is_applied_or_refused_with_a_serving_error(changes: dict[str, object], model: str | None) -> None:
    traces = recorder(Path("/nonexistent/x"))
    before = traces.settings(model)
    try:
        after = traces.update(changes, model)
    except ServingError:
        assert traces.settings(model) == before
    else:
        assert after == traces.settings(model)
        assert set(after) == set(before)
