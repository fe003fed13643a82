from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tensorquay.core.clock import SystemClock
from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.exposition import Page, number
from tensorquay.telemetry.machine import CpuMeter, memory
from tensorquay.telemetry.prometheus import Metrics, VersionState
from tensorquay.telemetry.statistics import FailureReason, Histogram, StatisticsTable

TRITON_COUNTERS = [
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
]
TRITON_GAUGES = ["nv_inference_pending_request_count", "nv_model_load_duration_secs"]


@pytest.fixture
def table() -> StatisticsTable:
    return StatisticsTable(SystemClock())


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\nHugePages_Total: 0\n")
    (tmp_path / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    return tmp_path


def page(table: StatisticsTable, proc: Path, **options: object) -> str:
    given: dict[str, object] = {"states": list, "build": {"version": "1.0"}, **options}
    body, content_type = Metrics(table, proc=proc, **given).render()  # type: ignore[arg-type]
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return body.decode()


def test_tritons_names_are_exact_and_zero_as_soon_as_a_model_is_there(table: StatisticsTable, proc: Path) -> None:
    table.of(VersionKey("simple", 1))
    text = page(table, proc)
    for name in TRITON_COUNTERS:
        assert f"# TYPE {name} counter\n" in text
    for name in TRITON_GAUGES:
        assert f"# TYPE {name} gauge\n" in text
    for name in {*TRITON_COUNTERS, *TRITON_GAUGES} - {"nv_inference_request_failure"}:
        assert f'\n{name}{{model="simple",version="1"}} 0\n' in "\n" + text
    for reason in FailureReason:
        line = f'nv_inference_request_failure{{model="simple",reason="{reason.value}",version="1"}} 0\n'
        assert line in text


def test_the_counters_are_the_tables_in_tritons_units(table: StatisticsTable, proc: Path) -> None:
    stats = table.of(VersionKey("m", 2))
    stats.batch_executed(rows=3, input_ns=1_000, infer_ns=2_000_999, output_ns=3_000, now_wall_ms=1)
    stats.request_succeeded(queue_ns=5_000, input_ns=1_000, infer_ns=2_000_999, output_ns=3_000, total_ns=9_000_000)
    stats.request_failed(FailureReason.REJECTED, 7)
    stats.pending = 4
    stats.load_seconds = 1.5
    text = page(table, proc)
    for name, value in {
        "nv_inference_request_success": "1",
        "nv_inference_count": "3",
        "nv_inference_exec_count": "1",
        "nv_inference_request_duration_us": "9000",
        "nv_inference_queue_duration_us": "5",
        "nv_inference_compute_input_duration_us": "1",
        "nv_inference_compute_infer_duration_us": "2000",
        "nv_inference_compute_output_duration_us": "3",
        "nv_inference_pending_request_count": "4",
        "nv_model_load_duration_secs": "1.5",
        "tensorquay_batch_rows_sum": "3",
        "tensorquay_request_seconds_sum": "0.009",
    }.items():
        assert f'{name}{{model="m",version="2"}} {value}\n' in text
    assert 'nv_inference_request_failure{model="m",reason="REJECTED",version="2"} 1\n' in text


def test_prometheus_own_parser_reads_the_page(table: StatisticsTable, proc: Path) -> None:
    awkward = 'quo"te\\back\nline'
    table.of(VersionKey(awkward, 1)).batch_executed(rows=2, input_ns=1, infer_ns=1, output_ns=1, now_wall_ms=1)
    text = page(
        table,
        proc,
        states=lambda: [VersionState(awkward, "1", "READY")],
        rejected=lambda: {"requests": 3},
        inflight=lambda: (2, 700),
        tags=lambda _name: {"team": "red", "cost-centre": "7"},
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE")
    sample = families["nv_inference_count"].samples[0]
    assert sample.labels == {"model": awkward, "version": "1", "_team": "red", "_cost_centre": "7"}
    assert sample.value == 2
    states = {sample.labels["state"]: sample.value for sample in families["tensorquay_model_state"].samples}
    assert states == {"UNKNOWN": 0, "LOADING": 0, "READY": 1, "UNLOADING": 0, "UNAVAILABLE": 0}
    assert families["tensorquay_admission_rejected"].samples[0].value == 3
    assert families["tensorquay_inflight_bytes"].samples[0].value == 700
    assert families["tensorquay_build_info"].samples[0].labels == {"version": "1.0"}
    assert families["nv_cpu_memory_used_bytes"].samples[0].value == 600 * 1024


def test_no_series_is_told_twice(table: StatisticsTable, proc: Path) -> None:
    table.of(VersionKey("m", 1))
    twice = [VersionState("m", "1", "READY"), VersionState("m", "1", "UNLOADING")]
    series = [line.rsplit(" ", 1)[0] for line in page(table, proc, states=lambda: twice).splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))


@given(st.lists(st.integers(0, 10**11), max_size=50))
def test_a_histograms_buckets_are_cumulative_and_end_with_the_count(values: list[int]) -> None:
    table = StatisticsTable(SystemClock())
    stats = table.of(VersionKey("m", 1))
    for value in values:
        stats.queue_time.observe(value)
    family = next(
        family
        for family in text_string_to_metric_families(page(table, Path("/nonexistent")))
        if family.name == "tensorquay_queue_seconds"
    )
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]
    for bound, count in buckets:
        assert count == sum(value <= bound * 1e9 for value in values)
    assert buckets[-1] == (float("inf"), len(values))
    total = next(s.value for s in family.samples if s.name.endswith("_sum"))
    assert total == pytest.approx(sum(values) / 1e9)


def test_a_machine_without_proc_has_no_cpu_metrics(table: StatisticsTable) -> None:
    text = page(table, Path("/nonexistent"))
    assert "nv_cpu" not in text
    assert "tensorquay_build_info" in text


def test_cpu_use_is_the_share_since_the_last_look(proc: Path) -> None:
    meter = CpuMeter(proc)
    (proc / "stat").write_text("cpu  30 0 10 50 10 0 0 0 0 0\n")
    assert meter.read() == pytest.approx(0.4)
    assert meter.read() == pytest.approx(0.4), "no time passed: the last answer stays"
    (proc / "stat").write_text("cpu  30 0 10 150 10 0 0 0 0 0\n")
    assert meter.read() == 0
    (proc / "stat").write_text("nonsense\n")
    assert meter.read() is None


@pytest.mark.parametrize("content", ["", "MemTotal: x kB\n", "MemTotal: 5 kB\n"])
def test_memory_that_cannot_be_read_is_not_told(proc: Path, content: str) -> None:
    (proc / "meminfo").write_text(content)
    assert memory(proc) is None


def test_two_servers_in_one_process_share_no_registry(table: StatisticsTable, proc: Path) -> None:
    first, second = page(table, proc), page(table, proc)
    assert first.count("# TYPE process_cpu_seconds") == second.count("# TYPE process_cpu_seconds") == 1
    assert "python_gc" not in first, "the default registry's collectors are not ours"


def test_families_without_samples_leave_no_trace() -> None:
    made = Page()
    made.family("a", "gauge", "help", [])
    made.histogram("b", "help", [])
    assert made.encode() == b"\n"


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.0, "1"), (0.25, "0.25"), (1e300, "1e+300"), (10**18, "1" + "0" * 18)]
)
def test_numbers_are_short_and_exact(value: float, text: str) -> None:
    assert number(value) == text
    assert float(text) == value


def test_an_empty_histogram_has_all_its_buckets() -> None:
    assert Histogram((1, 2)).counts == [0, 0, 0]
