"""The quantization libraries without their noise and without their litter.

They print, they log to the root logger, and they keep copies of the model in the system's temporary folder. What they
raise is never held back.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import onnxruntime

from tensorquay_convert.optimize.passes import graphs
from tensorquay_convert.optimize.passes.api import Workbench

_ERRORS_ONLY = 3
_MOST_NOTES = 5
_LONGEST = 200
_KNOWN = (
    "pre-processing",
    "already quantized",
)
"""Warnings that say nothing here: advice to do what was done, or what the pass itself checks."""


@contextmanager
def workshop(bench: Workbench) -> Iterator[Path]:
    """An empty folder in the scratch folder; gone afterwards, whatever happens. Raises: OSError."""
    with tempfile.TemporaryDirectory(prefix="quantize-", dir=bench.scratch) as folder:
        yield Path(folder)


@contextmanager
def quiet(folder: Path) -> Iterator[list[str]]:
    """Run library code: its temporary files go to `folder`, what it prints and warns of nowhere.

    Yields: warnings it logged, each once and at most a few, filled when the block ends.
    The process must have one thread that runs Python: the temporary folder and the streams belong to all of it.
    """
    told: list[str] = []
    before = tempfile.tempdir
    # The calibrators make sessions of their own, with the default severity.
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    tempfile.tempdir = str(folder)
    try:
        with graphs.quiet() as heard, warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield told
    finally:
        tempfile.tempdir = before
    lines = (each.strip().partition("\n")[0][:_LONGEST] for each in heard)
    told.extend(dict.fromkeys(each for each in lines if not any(known in each for known in _KNOWN)))
    del told[_MOST_NOTES:]
