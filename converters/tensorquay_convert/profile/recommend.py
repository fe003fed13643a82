"""Which batch size and thread count to use, from a measured curve. Pure.

A setting is worth a line of configuration when it beats what a server does without it: by more than the rounds differ
among themselves, and by at least `_WORTH`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tensorquay_convert.optimize.spread import median_interval
from tensorquay_convert.profile.results import Advice, Cell, Pick

REACHED = 0.95
"""Of the best: what reaches it with a smaller batch or fewer threads is the better choice."""
_WORTH = 1.05
_BUSY = 1.25
"""From the slowest to the fastest round, above which it is said that nothing is sure."""


def advise(cells: Sequence[Cell], default_threads: int) -> Advice:
    """What to set.

    Args:
        cells: not empty; all with the same rounds, at least 3.
        default_threads: intra-op threads of a session when nothing says otherwise.
    """
    by_rows = sorted(cells, key=lambda each: (each.batch, each.threads))
    fastest = max(by_rows, key=lambda each: each.items_s)
    throughput = next(each for each in by_rows if _items_ratio(each, fastest) >= REACHED)
    single = [each for each in by_rows if each.batch == by_rows[0].batch]
    quickest = min(single, key=lambda each: each.p50_s)
    latency = next(each for each in single if _items_ratio(each, quickest) >= REACHED)
    largest = max(each.batch for each in by_rows)
    default = _cell(by_rows, largest, default_threads)
    lines, sentences = _settings(by_rows, throughput, default_threads)
    return Advice(
        throughput=_pick(throughput, _items_ratio(throughput, fastest)),
        latency=_pick(latency, _items_ratio(latency, quickest)),
        default=None if default is None else _pick(default, _items_ratio(default, fastest)),
        default_threads=default_threads,
        snippet=lines,
        sentences=sentences,
    )


def _settings(cells: Sequence[Cell], best: Cell, default_threads: int) -> tuple[str, tuple[str, ...]]:
    """Lines for config.toml and the reasons."""
    sentences = []
    head, execution = "", ""
    usual = _cell(cells, best.batch, default_threads)
    threads = default_threads
    if usual is None:
        sentences.append(
            f"the default of {_threads(default_threads)} was not measured, so nothing is said about thread counts"
        )
        threads = best.threads
    elif best.threads != default_threads and _worth(best, usual):
        ratio, low, high = _items(best, usual)
        threads = best.threads
        execution = f"[execution]\nintra_op_threads = {threads}\n"
        sentences.append(
            f"with {_threads(threads)} it does {ratio:.2f} × the items/s of the default {default_threads} {_at(best)} "
            f"({low:.2f} to {high:.2f})"
        )
        sentences += _cost_alone(cells, threads, default_threads)
    spread = median(each.high / each.low for each in cells)
    largest = max(each.batch for each in cells)
    chosen, full = _cell(cells, best.batch, threads), _cell(cells, largest, threads)
    if chosen is not None and full is not None and 0 < best.batch < largest:
        ratio, low, high = _items(chosen, full)
        if _worth(chosen, full):
            head = f"max_batch_size = {best.batch}\n"
            sentences.append(
                f"batches of {best.batch} give {ratio:.2f} × the items/s of batches of {largest} "
                f"({low:.2f} to {high:.2f}): larger ones only wait longer"
            )
        elif spread <= _BUSY:
            sentences.append(
                f"batches above {best.batch} bring next to nothing, and do no harm: nothing is to be set for that"
            )
    if spread > _BUSY:
        sentences.append(
            f"this machine was busy, or its speed changed: a usual cell differs by {spread:.2f} × from round to round; "
            "measure again when it is idle"
        )
    snippet = "\n".join(each for each in (head, execution) if each)
    if not snippet and usual is not None:
        sentences.insert(0, "the defaults are fine: nothing that was measured beats them by more than the noise")
    return snippet, tuple(sentences)


def _cost_alone(cells: Sequence[Cell], threads: int, default_threads: int) -> list[str]:
    """What the thread count costs a request that comes alone."""
    smallest = min(each.batch for each in cells)
    alone, before = _cell(cells, smallest, threads), _cell(cells, smallest, default_threads)
    if alone is None or before is None or not _worth(before, alone):
        return []
    return [
        f"a request alone then takes {alone.p50_s * 1e3:.3g} ms instead of {before.p50_s * 1e3:.3g} ms: "
        "leave it out where that matters more"
    ]


def _worth(one: Cell, other: Cell) -> bool:
    """Whether `one` gives more items/s than `other`, beyond noise and by enough to be worth a setting."""
    ratio, low, _ = _items(one, other)
    return low > 1 and ratio >= _WORTH


def _items(one: Cell, other: Cell) -> tuple[float, float, float]:
    """Items per second of `one` as multiples of `other`'s, round by round: median and bounds."""
    scale = max(1, one.batch) / max(1, other.batch)
    ratios = [theirs / ours for ours, theirs in zip(one.rounds, other.rounds, strict=True)]
    ratio, low, high = median_interval(ratios)
    return ratio * scale, low * scale, high * scale


def _items_ratio(one: Cell, other: Cell) -> float:
    return _items(one, other)[0]


def _cell(cells: Sequence[Cell], batch: int, threads: int) -> Cell | None:
    return next((each for each in cells if each.batch == batch and each.threads == threads), None)


def _pick(cell: Cell, share: float) -> Pick:
    return Pick(cell.batch, cell.threads, cell.items_s, cell.p50_s, share)


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _at(cell: Cell) -> str:
    return f"at batch {cell.batch}" if cell.batch else "for a request"
