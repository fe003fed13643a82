"""The cost of metrics: what is compared, and one run so short that its figure means nothing."""

from __future__ import annotations

import pytest
from tests.bench.metrics_cost import CASES, NoResult, measure, quartiles, ratios

ON, OFF = True, False


def test_neighbours_are_compared_whichever_comes_first() -> None:
    slices = [(ON, 100, 3300), (OFF, 100, 3000), (ON, 50, 1650)]
    assert ratios(slices, least=1) == pytest.approx([1.1, 1.1])


def test_turns_without_load_are_left_out() -> None:
    slices = [(ON, 0, 10), (OFF, 3, 1000), (ON, 100, 3000), (OFF, 100, 3000), (ON, 0, 0)]
    assert ratios(slices, least=50) == [1.0]


def test_too_few_pairs_are_no_result() -> None:
    assert quartiles([1.0, 1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)
    with pytest.raises(NoResult, match="3 pairs"):
        quartiles([1.0, 1.0, 1.0])


@pytest.mark.slow
def test_a_short_run_measures() -> None:
    line = measure(CASES[1], 2.0, 1)
    assert line.startswith("http binary, 64 in flight, one request per run: ")
    assert line.endswith("us of CPU per request without")
