"""Ranges of activations, from calibration samples: once per variant, and the same for the same samples.

The library runs the graph and finds thresholds; here is decided what it sees. Ranges are found in a first run over the
samples. The methods that count values (entropy, percentile) run over them again, with histograms that are laid out for
the whole range: the library would widen them as it goes, without a bound, and the result would depend on the order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import HistogramCollector, TensorsData

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.passes.quiet import quiet
from tensorquay_convert.sources import onnx_graph, onnx_rules
from tensorquay_convert.tensors import Array, Arrays

METHODS: Mapping[str, Any] = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
MOST_ROWS = 256
"""Rows that are calibrated with; more hardly move a range."""
MOST_COUNTED = 96
"""The same where every value of every activation is counted."""
FEWEST_ROWS = 8
"""Fewer leave the ranges to chance."""
_BATCH = 16
_COUNTED_BATCH = 4
"""All activations of a batch are in memory at once where they are counted."""
_BATCH_BYTES = 2 << 20
"""Of a batch's inputs: activations are many times larger, and nothing is fused while it calibrates."""
_ENTROPY_BINS, _QUANTIZED_BINS = 512, 128
"""The library's 128 bins leave the entropy method nothing to choose; its search takes the square of them."""
_PERCENTILE_BINS = 4096
_PERCENTILE = 99.999

Range = tuple[float, float]


def calibrated(path: Path, operators: Collection[str], method: str, folder: Path, bench: Workbench) -> TensorsData:
    """Ranges of what nodes of these operators in the model at `path` read and write.

    Args: method: of `METHODS`. folder: for temporary files.
    Returns: the library's own ranges, in the order of names.
    Raises: BadSource for too few samples, or samples that are not finite; Unsupported when a range is not finite, or
        all of them are zero.
    """
    batches = _Batches(bench, _BATCH, MOST_ROWS)
    if batches.rows < FEWEST_ROWS:
        raise BadSource(
            f"calibration needs {FEWEST_ROWS} samples or more, there are {batches.rows}",
            remedy="give more rows with --data",
        )
    calibrator = _calibrator(path, operators, "minmax", folder)
    # In the graph's order, so that the first value that is wrong is named, and not what came of it.
    made = [name for node in calibrator.model.graph.node for name in node.output]
    places = {name: place for place, name in enumerate([*(each.name for each in calibrator.model.graph.input), *made])}
    ranges: dict[str, Range] = {}
    for inputs in batches.said("calibrating"):
        # One batch's ranges at a time: what the library merges may hide NaN.
        calibrator.calibrate_tensors_range = None
        with quiet(folder):
            calibrator.collect_data(_Once(inputs))
            found = calibrator.compute_data()
        for name in sorted(found.keys(), key=lambda each: places[each]):
            low, high = (float(np.asarray(bound).reshape(-1)[0]) for bound in found[name].range_value)
            ranges[name] = _merged(name, ranges.get(name), low, high)
    del calibrator
    _check(ranges)
    if method != "minmax":
        return _counted(path, operators, method, folder, bench, ranges)
    kept = {name: (_float32(low), _float32(high)) for name, (low, high) in sorted(ranges.items())}
    return TensorsData(CalibrationMethod.MinMax, kept)


def silent(ranges: TensorsData) -> frozenset[str]:
    """Values that were zero throughout: nothing is known of their range."""
    return frozenset(name for name, each in ranges.items() if not any(np.any(bound) for bound in each.range_value))


class _Batches:
    """Calibration inputs in batches, spread evenly over the samples when there are more than `most` rows."""

    def __init__(self, bench: Workbench, size: int, most: int) -> None:
        index = bench.samples.index
        first = next(bench.samples.calibration(1), {})
        row = sum(each.nbytes for each in first.values())
        self._bench, self._size = bench, max(1, min(size, _BATCH_BYTES // max(1, row)))
        step = self._size if index.batched else 1
        rows = [
            min(step, len(group.calibration) - start)
            for group in index.groups
            for start in range(0, len(group.calibration), step)
        ]
        wanted = min(len(rows), max(1, most // step))
        self._picked = {place * len(rows) // wanted for place in range(wanted)} if rows else set()
        self.rows = sum(rows[place] for place in self._picked)

    def __iter__(self) -> Iterator[Arrays]:
        for place, inputs in enumerate(self._bench.samples.calibration(self._size)):
            if place in self._picked:
                yield inputs

    def said(self, what: str) -> Iterator[Arrays]:
        """Each, said and looked at. Raises: BadSource."""
        for number, inputs in enumerate(self, start=1):
            self._bench.say(f"{what}, {number} of {len(self._picked)}")
            for name, value in inputs.items():
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    raise BadSource(
                        f"the calibration samples of input '{name}' hold NaN or infinite values",
                        remedy="leave those rows out of the data",
                    )
            yield inputs


class _Once:
    """One batch, as the library's `CalibrationDataReader`."""

    def __init__(self, inputs: Arrays) -> None:
        self._left: list[Arrays] = [inputs]

    def get_next(self) -> Arrays | None:
        return self._left.pop() if self._left else None


def _calibrator(path: Path, operators: Collection[str], method: str, folder: Path) -> Any:
    large = path.stat().st_size > onnx_rules.INLINE_BYTES or path.with_name(path.name + ".data").exists()
    extra = {
        "entropy": {"num_bins": _ENTROPY_BINS, "num_quantized_bins": _QUANTIZED_BINS},
        "percentile": {"num_bins": _PERCENTILE_BINS, "percentile": _PERCENTILE, "symmetric": False},
    }
    with quiet(folder):
        return create_calibrator(
            path,
            sorted(operators),
            augmented_model_path=str(folder / f"augmented-{method}.onnx"),
            calibrate_method=METHODS[method],
            use_external_data_format=large,
            extra_options=extra.get(method, {}),
        )


def _merged(name: str, before: Range | None, low: float, high: float) -> Range:
    # The difference is what a scale is made of, in float32.
    with np.errstate(over="ignore"):
        spread = float(_float32(high) - _float32(low))
    if not math.isfinite(spread):
        raise Unsupported(
            f"calibration found values of {onnx_graph.short(name)} from {low:g} to {high:g}: no range for 8 bits",
            remedy="leave the samples out that cause them, or keep the model in FP32",
            facts={"tensor": name},
        )
    return (low, high) if before is None else (min(low, before[0]), max(high, before[1]))


def _check(ranges: Mapping[str, Range]) -> None:
    if ranges and not any(low or high for low, high in ranges.values()):
        raise Unsupported(
            f"calibration found nothing but zeros in {onnx_graph.short(min(ranges))} and in every other activation",
            remedy="give samples like those that will be served",
            facts={"tensor": min(ranges)},
        )


def _counted(
    path: Path,
    operators: Collection[str],
    method: str,
    folder: Path,
    bench: Workbench,
    ranges: Mapping[str, Range],
) -> TensorsData:
    """Thresholds from histograms over `ranges`."""
    calibrator = _calibrator(path, operators, method, folder)
    collector = HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=calibrator.num_bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario="same",
    )
    collector.histogram_dict.update(
        (name, _empty(ranges[name], calibrator.num_bins))
        for name in sorted(calibrator.tensors_to_calibrate)
        if name in ranges
    )
    calibrator.collector = collector
    for inputs in _Batches(bench, _COUNTED_BATCH, MOST_COUNTED).said("counting values"):
        with quiet(folder):
            calibrator.collect_data(_Once(inputs))
    bench.say("choosing thresholds")
    with quiet(folder):
        found: TensorsData = calibrator.compute_data()
    return found


def _empty(range_: Range, bins: int) -> tuple[Array, Array, Array, Array, Array]:
    """A histogram without counts in the library's form: counts, edges, lowest, highest, and the threshold around 0."""
    low, high = _float32(range_[0]), _float32(range_[1])
    threshold = np.maximum(np.abs(low), np.abs(high))
    counts, edges = np.histogram(np.empty(0, np.float32), bins, range=(-float(threshold), float(threshold)))
    return counts, edges.astype(np.float32), low, high, threshold


def _float32(value: float) -> Array:
    return np.array(value, np.float32)
