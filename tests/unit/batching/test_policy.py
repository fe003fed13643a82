"""The batching policy as a table: queue, limits, now → decision."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tensorquay.batching.policy import BatchLimits, Dispatch, WaitUntil, decide


@dataclass(frozen=True)
class Item:
    key: str
    rows: int
    enqueued_ns: int = 0


def queue(text: str) -> list[Item]:
    """ "a1 b2@5" → an `a` of one row since 0, a `b` of two rows since 5 ns."""
    items = []
    for word in text.split():
        body, _, age = word.partition("@")
        items.append(Item(body[0], int(body[1:]), int(age or 0)))
    return items


CASES = [
    ("what waits leaves at once without a delay", "a1 a1 a1", BatchLimits(8), 0, Dispatch((0, 1, 2))),
    ("a full batch leaves before its delay", "a4 a4", BatchLimits(8, 100), 0, Dispatch((0, 1))),
    ("a part batch waits for its delay", "a1 a1@5", BatchLimits(8, 100), 50, WaitUntil(100)),
    ("a part batch leaves when its oldest is due", "a1 a1@5", BatchLimits(8, 100), 100, Dispatch((0, 1))),
    ("one that does not fit stays and closes the batch", "a5 a4 a1", BatchLimits(8, 100), 0, Dispatch((0,))),
    ("other shapes are passed over, not mixed", "a1 b1 a1", BatchLimits(8), 0, Dispatch((0, 2))),
    ("a request as large as the maximum rides alone", "a8 a1", BatchLimits(8), 0, Dispatch((0,))),
    ("the largest preferred leaves early", "a1 a1 a1 a1 a1", BatchLimits(8, 100, (2, 4)), 0, Dispatch((0, 1, 2, 3))),
    ("a smaller preferred size waits for a larger one", "a1 a1 a1", BatchLimits(8, 100, (2, 4)), 0, WaitUntil(100)),
    ("at the end of the delay everything leaves", "a1 a1 a1", BatchLimits(8, 100, (2, 4)), 100, Dispatch((0, 1, 2))),
    ("full without a larger preferred: the preferred part", "a2 a1 a6", BatchLimits(8, 100, (2,)), 0, Dispatch((0,))),
    ("no batching: one rider a run", "a1 a1", BatchLimits(8, max_riders=1), 0, Dispatch((0,))),
    ("zero rows ride along", "a0 a1", BatchLimits(8), 0, Dispatch((0, 1))),
]


@pytest.mark.parametrize(("text", "limits", "now", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_decision(text, limits, now, expected):
    assert decide(queue(text), limits, now) == expected
