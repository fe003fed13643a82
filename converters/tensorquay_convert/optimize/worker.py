"""The process that does one job of an optimisation (`working.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorquay_convert import worker_process
from tensorquay_convert.progress import Teller

_SHARES = {"job": 1.0}


def main(descriptor: int, parent: int) -> int:
    """See `worker_process.run`."""
    return worker_process.run(descriptor, parent, _work, name="the optimisation", shares=_SHARES)


def _work(request: Mapping[str, Any], teller: Teller) -> Mapping[str, Any]:
    # After the process has been set up: what it brings takes a second.
    from tensorquay_convert.optimize import working  # noqa: PLC0415

    return working.perform(request, teller.say)
