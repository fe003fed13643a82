"""Run a session before anybody waits for it, and measure whether it is cheap enough for the event loop.

Called in a load thread. Samples the configuration asks for must run, or the load fails. Zeros, which we run on our own
account, may not suit a model; then that is only noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorquay.backends.api import Session
from tensorquay.config.model import WarmupSample
from tensorquay.config.rules import MAX_WARMUP_RUNS
from tensorquay.core.clock import Clock
from tensorquay.core.datatypes import Array
from tensorquay.core.errors import ModelFailed, ServingError
from tensorquay.core.packed import as_array
from tensorquay.core.signature import Signature
from tensorquay.core.tensors import Tensor
from tensorquay.lifecycle.samples import configured, has_variable_axes, zeros, zeros_bytes

INLINE_BELOW_NS = 200_000
"""A model whose fastest run is below this runs on the loop: a thread's round trip costs half as much again."""

_DEFAULT_BYTES = 64 << 20
_PROBE_SIZE = 128
_MEASURED_RUNS = 5
_MEASURE_BUDGET_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class WarmupReport:
    """What the runs told. `run_ns` is the fastest run at the largest batch tried, 0 when nothing could be measured.

    `cheap`: measured below `INLINE_BELOW_NS`, also for longer variable axes. `batch_lost`: which output did not keep
    the batch, and how; empty when all did.
    """

    run_ns: int
    cheap: bool
    notes: tuple[str, ...] = ()
    batch_lost: str = ""


def warm_up(
    sessions: Sequence[Session],
    signature: Signature,
    samples: Sequence[WarmupSample],
    folder: Path,
    clock: Clock,
) -> WarmupReport:
    """Run the configured `samples` and then zeros on every one of `sessions`; measure the first.

    Raises: ModelFailed when a configured sample does not fit or does not run.
    """
    for sample in samples:
        _run_configured(sessions, signature, sample, folder)
    notes: list[str] = []
    rows = _largest(signature, notes)
    for session in sessions:
        problem, lost = _try_zeros(session, signature, sorted({1, rows}))
        if problem or lost:
            notes.append(problem or f"{lost}; set max_batch_size to 0")
            return WarmupReport(0, cheap=False, notes=tuple(notes), batch_lost=lost)
    run_ns = _measure(sessions[0], signature, rows, 1, clock)
    cheap = run_ns is not None and run_ns < INLINE_BELOW_NS
    if cheap and has_variable_axes(signature):
        probed = None
        if zeros_bytes(signature, rows, _PROBE_SIZE) <= _DEFAULT_BYTES:
            probed = _measure(sessions[0], signature, rows, _PROBE_SIZE, clock)
        cheap = probed is not None and probed < INLINE_BELOW_NS
    return WarmupReport(run_ns or 0, cheap=cheap, notes=tuple(notes))


def _run_configured(sessions: Sequence[Session], signature: Signature, sample: WarmupSample, folder: Path) -> None:
    runs = max(sample.count, 1)
    if runs > MAX_WARMUP_RUNS:
        raise ModelFailed(f"model_warmup '{sample.name}': count: expected at most {MAX_WARMUP_RUNS}, got {runs}")
    tensors = configured(sample, signature, folder)
    try:
        feed = _feed(signature, tensors)
        for session in sessions:
            for _ in range(runs):
                session.run(feed, _output_names(signature))
    except ServingError as exc:
        raise ModelFailed(f"model_warmup '{sample.name}' failed: {exc.message}") from exc


def _largest(signature: Signature, notes: list[str]) -> int:
    """Rows of the largest default run: the maximum, unless that alone would fill the memory."""
    rows = max(signature.max_batch_size, 1)
    full = rows
    while rows > 1 and zeros_bytes(signature, rows, 1) > _DEFAULT_BYTES:
        rows //= 2
    if rows < full:
        notes.append(f"warmed up to batch {rows} only: a batch of {full} is larger than {_DEFAULT_BYTES >> 20} MiB")
    return rows


def _try_zeros(session: Session, signature: Signature, sizes: Sequence[int]) -> tuple[str, str]:
    """Run zeros of each size; the note to make when the model does not take them, and which output lost the batch."""
    names = _output_names(signature)
    if zeros_bytes(signature, 1, 1) > _DEFAULT_BYTES * 4:
        return "not warmed up: a single request is too large to make one up", ""
    for rows in sizes:
        try:
            arrays = session.run(_feed(signature, zeros(signature, rows, 1)), names)
        except Exception as exc:  # noqa: BLE001  a native runtime may raise anything at zeros that mean nothing to it
            text = exc.message if isinstance(exc, ServingError) else type(exc).__name__
            return f"not warmed up with batch {rows}, the model does not take zeros: {text}", ""
        lost = _batch_lost(signature, names, arrays, rows)
        if lost:
            return "", lost
    return "", ""


def _batch_lost(signature: Signature, names: Sequence[str], arrays: Sequence[Array], rows: int) -> str:
    if signature.batches and rows > 1:
        for name, array in zip(names, arrays, strict=True):
            if array.ndim == 0 or array.shape[0] != rows:
                return (
                    f"output '{name}' does not keep the batch: {rows} rows went in, shape {list(array.shape)} came out"
                )
    return ""


def _measure(session: Session, signature: Signature, rows: int, variable: int, clock: Clock) -> int | None:
    """Fastest run in ns; None when it fails. Other loads run beside this: what disturbs a run only makes it longer."""
    names = _output_names(signature)
    times: list[int] = []
    try:
        feed = _feed(signature, zeros(signature, rows, variable))
        session.run(feed, names)
        begun_ns = clock.now_ns()
        while len(times) < _MEASURED_RUNS and clock.now_ns() - begun_ns < _MEASURE_BUDGET_NS:
            started_ns = clock.now_ns()
            session.run(feed, names)
            times.append(clock.now_ns() - started_ns)
    except Exception:  # noqa: BLE001  zeros of another length may not suit the model; then it counts as not cheap
        return None
    return min(times, default=None)


def _feed(signature: Signature, tensors: Sequence[Tensor]) -> Mapping[str, Array]:
    """What a session takes for `tensors`, by the way every request goes."""
    parts, _, _, _ = signature.check(tensors)
    # Arrays went in, so arrays come out: `()` is the shape of nothing here.
    return {
        spec.name: as_array(part, spec.datatype, ())
        for spec, part in zip(signature.inputs, parts, strict=True)
        if part is not None
    }


def _output_names(signature: Signature) -> list[str]:
    return [spec.name for spec in signature.outputs]
