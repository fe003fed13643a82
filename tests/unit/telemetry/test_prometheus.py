from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tensorquay.core.clock import SystemClock
from tensorquay.core.errors import ErrorKind, InvariantViolation, Rejection
from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.exposition import Page, histogram_names, number
from tensorquay.telemetry.families import FAMILIES, Kind
from tensorquay.telemetry.jobs import JobCounters
from tensorquay.telemetry.machine import CpuMeter, memory
from tensorquay.telemetry.prometheus import Metrics, ReadyVersion, ServerFigures, VersionState
from tensorquay.telemetry.statistics import ROW_BUCKETS, FailureReason, StatisticsTable
from tensorquay.telemetry.version_page import Tags
from tensorquay.testing.manual_clock import ManualClock

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
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\nHugePages_Total: 0\n")
    (proc / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    return proc


def metrics(table: StatisticsTable, proc: Path, tags: Tags | None = None, **figures: Any) -> Metrics:
    given = ServerFigures(**{"states": list, **figures})
    return Metrics(table, given, build={"version": "1.0", "python": "3.11"}, tags=tags, root=proc.parent)


def page(table: StatisticsTable, proc: Path, tags: Tags | None = None, **figures: Any) -> str:
    body, content_type = asyncio.run(metrics(table, proc, tags, **figures).render())
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
    assert families["tensorquay_build_info"].samples[0].labels == {"version": "1.0", "python": "3.11"}
    assert families["nv_cpu_memory_used_bytes"].samples[0].value == 600 * 1024


def test_no_series_is_told_twice(table: StatisticsTable, proc: Path) -> None:
    table.of(VersionKey("m", 1))
    twice = [VersionState("m", "1", "READY"), VersionState("m", "1", "UNLOADING")]
    series = [line.rsplit(" ", 1)[0] for line in page(table, proc, states=lambda: twice).splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 10**11), max_size=50))
def test_a_histograms_buckets_are_cumulative_and_end_with_the_count(values: list[int]) -> None:
    table = StatisticsTable(SystemClock())
    stats = table.of(VersionKey("m", 1))
    for value in values:
        stats.request_succeeded(value, 1, 1, 1, value)
    family = next(
        family
        for family in text_string_to_metric_families(page(table, Path("/nonexistent/proc")))
        if family.name == "tensorquay_queue_seconds"
    )
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]
    for bound, count in buckets:
        assert count == sum(value <= bound * 1e9 for value in values)
    assert buckets[-1] == (float("inf"), len(values))
    total = next(s.value for s in family.samples if s.name.endswith("_sum"))
    assert total == pytest.approx(sum(values) / 1e9)


def test_a_machine_without_proc_has_no_cpu_metrics(table: StatisticsTable) -> None:
    text = page(table, Path("/nonexistent/proc"))
    assert "nv_cpu" not in text
    assert "tensorquay_build_info" in text


def test_cpu_use_is_the_share_since_the_last_look(proc: Path) -> None:
    meter = CpuMeter(proc, second=100)
    (proc / "stat").write_text("cpu  30 0 10 50 10 0 0 0 0 0\n")
    assert meter.read() == pytest.approx(0.4)
    assert meter.read() == pytest.approx(0.4), "no time passed: the last answer stays"
    (proc / "stat").write_text("cpu  30 0 10 150 10 0 0 0 0 0\n")
    assert meter.read() == 0
    (proc / "stat").write_text("nonsense\n")
    assert meter.read() is None


def test_a_second_prometheus_right_after_the_first_hears_the_same(proc: Path) -> None:
    meter = CpuMeter(proc, second=100)
    told = []
    for seconds in range(1, 6):
        (proc / "stat").write_text(f"cpu  {seconds * 300} 0 0 {seconds * 700} 0 0 0 0 0 0\n")
        told.append(meter.read())
        # One tick later, which somebody used.
        (proc / "stat").write_text(f"cpu  {seconds * 300 + 1} 0 0 {seconds * 700} 0 0 0 0 0 0\n")
        told.append(meter.read())
    assert told == pytest.approx([0.3] * 10, abs=0.002)


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
    made.family("tensorquay_frontends", [])
    made.lines("tensorquay_request_seconds", [])
    assert made.encode() == b""


def test_only_what_is_declared_can_be_written_and_only_as_it_is_declared() -> None:
    made = Page()
    with pytest.raises(InvariantViolation, match="tensorquay_made_up is not declared"):
        made.family("tensorquay_made_up", [({}, 1)])
    with pytest.raises(InvariantViolation, match="not declared"):
        made.lines("tensorquay_made_up", [])
    with pytest.raises(InvariantViolation, match=r"expected labels \['model', 'version'\], got \['model'\]"):
        made.family("tensorquay_model_bytes", [({"model": "m"}, 1)])
    made.family("tensorquay_model_loads_total", [({"model": "m", "version": "1", "_team": "red"}, 1)])
    with pytest.raises(InvariantViolation, match="written twice"):
        made.family("tensorquay_model_loads_total", [])
    with pytest.raises(InvariantViolation, match="is a gauge"):
        histogram_names(FAMILIES["tensorquay_frontends"])


def test_declarations_keep_prometheus_rules() -> None:
    for family in FAMILIES.values():
        ours = family.name.startswith("tensorquay_")
        assert re.fullmatch(r"[a-z_]+", family.name)
        assert family.help, family.name
        assert "\n" not in family.help
        assert family.name.endswith("_total") is (family.kind is Kind.COUNTER) or not ours, family.name
        if ours and family.unit in {"seconds", "bytes", "cores"}:
            assert family.unit in family.name, family.name
        if family.same_as:
            assert family.same_as in FAMILIES, family.name


def test_every_version_family_is_written_for_a_version_and_keeps_up_with_its_tags(
    table: StatisticsTable, proc: Path
) -> None:
    stats = table.of(VersionKey("100%", 3))
    tags: dict[str, str] = {}
    made = metrics(table, proc, lambda _: tags)
    first = asyncio.run(made.render())[0].decode()
    assert 'tensorquay_queue_requests{model="100%",version="3"} 0\n' in first
    tags["team"] = "red"
    stats.pending = 7
    second = asyncio.run(made.render())[0].decode()
    assert 'tensorquay_queue_requests{_team="red",model="100%",version="3"} 7\n' in second
    assert all('_team="red"' in line for line in second.splitlines() if 'version="3"' in line)
    assert first.count("\n") == second.count("\n")


def test_the_long_tail_of_figures_is_told_where_it_is_known(table: StatisticsTable, proc: Path) -> None:
    clock = ManualClock(5_000_000_000)
    timed = StatisticsTable(clock)
    stats = timed.of(VersionKey("m", 1))
    stats.request_failed(FailureReason.REJECTED, 1, Rejection.QUEUE_FULL)
    timed.refused(ErrorKind.NOT_FOUND)
    timed.swaps["m"].swapped = 2
    jobs = JobCounters(("imported", "failed"))
    jobs.ended("failed")
    ready = ReadyVersion(
        VersionKey("m", 1),
        slots=1,
        inline=False,
        oldest_ns=3_500_000_000,
        node_shares={"CUDAExecutionProvider": 0.75, "CPUExecutionProvider": 0.25},
        file_bytes=1234,
    )
    with jobs.one():
        text = page(timed, proc, ready=lambda: [ready], imports=jobs, utilization=lambda: 1.5, frontends=lambda: (2, 1))
    for line in (
        'tensorquay_rejected_total{model="m",reason="queue_full",version="1"} 1',
        'tensorquay_rejected_total{model="m",reason="unloading",version="1"} 0',
        'tensorquay_refused_requests_total{reason="not_found"} 1',
        'tensorquay_refused_requests_total{reason="invalid_argument"} 0',
        'tensorquay_queue_oldest_seconds{model="m",version="1"} 1.5',
        'tensorquay_provider_node_share{model="m",provider="CUDAExecutionProvider",version="1"} 0.75',
        'tensorquay_model_bytes{model="m",version="1"} 1234',
        'tensorquay_model_swaps_total{model="m",result="swapped"} 2',
        'tensorquay_model_swaps_total{model="m",result="failed"} 0',
        'tensorquay_imports_total{result="failed"} 1',
        "tensorquay_imports_running 1",
        "tensorquay_utilization 1.5",
        "tensorquay_frontends 2",
    ):
        assert f"\n{line}\n" in text, line
    assert "tensorquay_optimizations" not in text


def test_a_wait_that_began_after_now_is_no_wait(table: StatisticsTable, proc: Path) -> None:
    early = ReadyVersion(VersionKey("m", 1), slots=1, inline=False, oldest_ns=2**62)
    assert 'tensorquay_queue_oldest_seconds{model="m",version="1"} 0\n' in page(table, proc, ready=lambda: [early])


def test_a_thousand_models_make_a_page_of_bounded_size(table: StatisticsTable, proc: Path) -> None:
    for place in range(1000):
        table.of(VersionKey(f"model-{place:04d}", 1)).batch_executed(
            rows=4, input_ns=10, infer_ns=10**6, output_ns=10, now_wall_ms=1
        )
    text = page(table, proc)
    lines = [line for line in text.splitlines() if 'model="model-0007"' in line]
    assert len(lines) <= 165
    assert len(text) < 20_000_000
    assert text.count("# TYPE") == len(set(re.findall(r"# TYPE (\S+)", text)))


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.0, "1"), (0.25, "0.25"), (1e300, "1e+300"), (10**18, "1" + "0" * 18)]
)
def test_numbers_are_short_and_exact(value: float, text: str) -> None:
    assert number(value) == text
    assert float(text) == value


def test_an_empty_histogram_has_all_its_buckets(table: StatisticsTable) -> None:
    stats = table.of(VersionKey("m", 1))
    for histogram in (stats.request_time, stats.batch_rows):
        assert len(histogram.counts) == len(histogram.bounds) + 1
        assert not any(histogram.counts)


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 10**10), st.integers(0, 10**10)), max_size=30))
def test_what_is_reckoned_is_what_was_recorded(runs: list[tuple[int, int, int]]) -> None:
    stats = StatisticsTable(SystemClock()).of(VersionKey("m", 1))
    for rows, short, long in runs:
        stats.batch_executed(rows=rows, input_ns=short, infer_ns=long, output_ns=1, now_wall_ms=1)
        stats.request_succeeded(short, short, long, 1, long)
    count = len(runs)
    assert stats.execution_count == stats.success_count == count
    assert stats.inference_count == stats.batch_rows.total == sum(rows for rows, _, _ in runs)
    assert stats.compute_time.total == sum(short + long + 1 for _, short, long in runs)
    assert stats.input_time.total == stats.queue_time.total == sum(short for _, short, _ in runs)
    assert stats.infer_time.total == stats.request_time.total == sum(long for _, _, long in runs)
    assert stats.output_time.total == count
    for each in (stats.batch_rows, stats.compute_time, stats.input_time, stats.infer_time, stats.output_time):
        assert sum(each.counts) == count
    for place, bound in enumerate(ROW_BUCKETS):
        assert sum(stats.batch_rows.counts[: place + 1]) == sum(rows <= bound for rows, _, _ in runs)


@given(st.text(max_size=20), st.text(alphabet='a"\\\0\n%{}<>,=', max_size=10))
@settings(max_examples=50)
def test_whatever_a_name_or_a_tag_holds_the_page_can_be_read(name: str, tag: str) -> None:
    table = StatisticsTable(SystemClock())
    table.of(VersionKey(name, 1)).request_failed(FailureReason.OTHER, 1)
    text = page(table, Path("/nonexistent/proc"), lambda _: {"team": tag})
    expected = {"model": name, "version": "1", "_team": tag}
    read = {family.name: family for family in text_string_to_metric_families(text)}
    (loads,) = read["tensorquay_model_loads"].samples
    assert loads.labels == expected
    assert {sample.labels["reason"] for sample in read["tensorquay_rejected"].samples} == {r.value for r in Rejection}
    buckets = [sample for sample in read["tensorquay_queue_seconds"].samples if sample.name.endswith("_bucket")]
    assert all({**sample.labels, "le": ""} == {**expected, "le": ""} for sample in buckets)


def test_a_page_of_many_models_is_written_in_turns_and_is_whole(table: StatisticsTable, proc: Path) -> None:
    for version in range(1, 301):
        table.of(VersionKey("many", version))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def render() -> str:
        others = asyncio.ensure_future(count_turns())
        try:
            return (await metrics(table, proc).render())[0].decode()
        finally:
            others.cancel()

    text = asyncio.run(render())
    assert turns > 50
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert text.count("\nnv_inference_count{") == 300
    assert text.count('\ntensorquay_request_seconds_bucket{le="+Inf"') == 300
