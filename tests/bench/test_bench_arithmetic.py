"""What the bench computes and prints. No measurement here: figures are never a reason for a test to fail."""

from __future__ import annotations

import json

import pytest
from tests.bench import report
from tests.bench.arithmetic import RawPoint, best, percentile, ratios, rows_per_batch, spread, whole_batches
from tests.bench.cases import CASES
from tests.bench.environment import stolen_share
from tests.bench.suite import narrowed, with_in_flight


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 1001)], 0.99, 990.0),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values, fraction, expected):
    assert percentile(values, fraction) == expected


@pytest.mark.parametrize(
    ("rate", "seconds", "multiple", "expected"),
    [(100.0, 6.0, 16, 608), (0.5, 1.0, 8, 8), (1e-9, 1.0, 32, 32), (25.0, 6.0, 8, 152), (10_000.0, 1.0, 1, 10_000)],
)
def test_a_window_holds_whole_batches(rate, seconds, multiple, expected):
    assert whole_batches(rate, seconds, multiple) == expected


def point(batch: int, items_s: float, *, spinning: bool = False) -> RawPoint:
    return {"batch": batch, "spinning": spinning, "items_s": items_s, "run_ms": batch / items_s * 1e3, "cpu_us": 1.0}


def test_the_best_raw_point_is_the_fastest_and_of_equals_the_smallest_batch():
    assert best([point(1, 20), point(8, 30), point(4, 30), point(16, 29)])["batch"] == 4


def test_ratios_pair_neighbours_and_spread_keeps_them_all():
    assert spread(ratios([90, 99, 60], [100, 100, 50])) == {
        "median": 0.99,
        "low": 0.9,
        "high": 1.2,
        "all": [0.9, 0.99, 1.2],
    }


def test_rows_per_batch_counts_only_what_ran_between_the_two_looks():
    before = {"inference_count": 100, "execution_count": 100}
    assert rows_per_batch(before, {"inference_count": 900, "execution_count": 200}) == 8.0
    assert rows_per_batch(before, before) is None


def test_stolen_time_is_a_share_of_what_passed_between():
    assert stolen_share((10, 1000), (30, 1200)) == 0.1
    assert stolen_share((10, 1000), (10, 1000)) == 0.0


@pytest.mark.parametrize(
    ("value", "shown"),
    [(123_456.7, "123,457"), (100, "100"), (99.94, "99.9"), (12.345, "12.3"), (1.239, "1.24"), (0.0123, "0.012")],
)
def test_numbers_are_short_and_without_exponents(value, shown):
    assert report.number(value) == shown


def door(name: str, *, raw: bool = True) -> dict:
    row = {"door": name, "in_flight": 8, "connections": 8, "requests": 100}
    row |= {
        figure: spread([1.0, 2.0, 3.0]) for figure in ("rate_s", "p50_ms", "p99_ms", "server_cpu_us", "load_cpu_us")
    }
    return row | ({"of_raw": spread([0.9, 0.95, 0.97]), "rows_per_batch": spread([4.0])} if raw else {})


DOCUMENT = {
    "environment": {
        "when": "2030-01-01T00:00:00+00:00",
        "cpu": "Some CPU",
        "cores": 2,
        "budget": "2 threads: affinity",
        "memory": "much",
        "system": "Linux 6",
        "python": "3.11.7",
        "packages": {"onnxruntime": "1.31.1"},
        "load_average_before": [0.1, 0.2, 0.3],
        "stolen_percent": 0.5,
    },
    "settings": {"threads": 2, "rounds": 3, "seconds": 6.0},
    "models": [
        {
            "name": "simple",
            "raw": {
                "batch": 8,
                "spinning": True,
                "items_s": spread([10.0]),
                "run_ms": spread([800.0]),
                "cpu_us": spread([1.0]),
            },
            "max_batch_size": 8,
            "resident_bytes_before": 100 * 2**20,
            "peak_bytes": 120 * 2**20,
            "doors": [door("http binary")],
            "single": [door("http binary", raw=False)],
        }
    ],
    "floors": [door("http health", raw=False)],
}


def test_the_tables_have_a_row_per_door_and_say_what_they_were_measured_on():
    text = report.table(DOCUMENT)
    rows = [line for line in text.splitlines() if "http" in line]
    assert len(rows) == 3
    assert "95 % (90 %–97 %)" in rows[0]
    assert "Some CPU" in text
    assert "onnxruntime 1.31.1" in text


def test_the_page_gets_the_tables_between_its_markers_and_nothing_else_changes():
    page = f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n"
    new = report.replaced(page, report.markdown(DOCUMENT))
    assert new.startswith("# Before\n\n")
    assert new.endswith(f"{report.END}\n\nafter\n")
    assert "old" not in new
    assert "| simple | http binary | 8 |" in new
    assert report.replaced(new, report.markdown(DOCUMENT)) == new


@pytest.mark.parametrize("page", ["", report.BEGIN, report.END + report.BEGIN, (report.BEGIN + report.END) * 2])
def test_a_page_without_its_markers_is_left_alone(page):
    with pytest.raises(ValueError, match="needs the lines"):
        report.replaced(page, "new")


def test_the_document_is_json():
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_cases_are_chosen_by_name():
    assert [case.name for case in narrowed(CASES, ["bert", "simple"])] == ["simple", "bert"]
    assert len(narrowed(CASES, [])) == len(CASES)
    with pytest.raises(ValueError, match="no 'resnet'"):
        narrowed(CASES, ["resnet"])
    assert {case.in_flight for case in with_in_flight(CASES, 5)} == {5}
