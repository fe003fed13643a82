"""What an inference request gets, right or wrong: one table for every door (protocol sections 1.1 to 1.8)."""

from __future__ import annotations

from cases import Case, check, over_doors
from doors import Door
from right_requests import ANSWERS
from wrong_requests import REFUSALS


@over_doors(ANSWERS)
def test_infer_answers_as_the_protocol_says(door: Door, case: Case) -> None:
    check(door, case)


@over_doors(REFUSALS)
def test_infer_refuses_as_the_protocol_says(door: Door, case: Case) -> None:
    check(door, case)
