"""A server that records its metrics by turns: now as built, now not at all. For `metrics_cost.py` only.

    python -m tests.bench.metrics_server serve …      (see `turns.py`)

While nothing is recorded, one addition is left: somebody must count the requests. So what is compared is everything
else that `VersionStatistics` does per request and per run.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.bench.turns import Turns, serve

from tensorquay.telemetry.statistics import VersionStatistics

SLICE_S = 0.1

_RECORDING = {
    name: getattr(VersionStatistics, name) for name in ("request_succeeded", "batch_executed", "request_failed")
}


def _only_count(stats: VersionStatistics, *_: int) -> None:
    stats._request[0] += 1


def _nothing(*_: Any, **__: Any) -> None:
    return


_NULL = {"request_succeeded": _only_count, "batch_executed": _nothing, "request_failed": _nothing}


class MetricsTurns(Turns):
    """Records, or not."""

    def switch(self, *, on: bool) -> None:
        for name, what in (_RECORDING if on else _NULL).items():
            setattr(VersionStatistics, name, what)


if __name__ == "__main__":
    sys.exit(serve(lambda figures: MetricsTurns(figures, SLICE_S)))
