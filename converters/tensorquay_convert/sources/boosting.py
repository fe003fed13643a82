"""XGBoost (`.json`, `.ubj`) and LightGBM (text) models: bare boosters, so what they are comes from their objective.

One input of (batch, features), float32; NaN is a missing value, as both have it. Neither file holds code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tensorquay_convert.api import Exported, OpenSource, Say, SourceFacts
from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import boosting_graph
from tensorquay_convert.sources.boosting_graph import CLASSES, RAW, Boosted, Link
from tensorquay_convert.sources.boosting_models import from_lightgbm, from_xgboost
from tensorquay_convert.sources.boosting_ubjson import need_whole
from tensorquay_convert.tensors import BATCH, Array, Arrays, Interface, TensorSpec, Values

_SHOWN = 20
_BROKEN = (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Booster:
    """A booster with what differs between the two libraries.

    `answer`: from a matrix to the booster's own prediction, or its raw sums.
    """

    library: str
    model: Boosted
    answer: Callable[[Array, bool], Any]
    trees: int
    features: tuple[str, ...]
    notes: tuple[str, ...] = ()


class BoostingConverter:
    """Opens the native files of XGBoost and LightGBM."""

    kinds: tuple[SourceKind, ...] = (SourceKind.XGBOOST, SourceKind.LIGHTGBM)
    extra = "boosting"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `Converter`."""
        path = Path(job.source)
        say(f"reading {path.name}")
        booster = _xgboost_file(path) if kind is SourceKind.XGBOOST else _lightgbm_file(path)
        return BoostingSource(booster, job, kind, (path,))


def open_model(
    model: Any,
    example_inputs: Any,  # noqa: ARG001  the model knows how many features it takes
    job: ImportJob,
    *,
    files: tuple[Path, ...] = (),
    kind: SourceKind | None = None,
) -> OpenSource:
    """A booster or a fitted estimator of XGBoost or LightGBM that is in hand, or was in a pickle."""
    library = type(model).__module__.partition(".")[0]
    classes = _classes_of(model)
    try:
        if library == "xgboost":
            unknown = getattr(model, "missing", np.nan)
            if unknown is not None and not np.isnan(unknown):
                raise Unsupported(f"the model takes {unknown} for a missing value", remedy="train it with missing=NaN")
            booster = _xgboost(model.get_booster() if hasattr(model, "get_booster") else model, classes)
        else:
            booster = _lightgbm(model.booster_ if hasattr(model, "booster_") else model, classes)
    except Unsupported:
        raise
    except Exception as exc:  # both raise their own kinds for models that are not fitted
        raise BadSource(
            f"the {type(model).__name__} cannot be used: {type(exc).__name__}: {' '.join(str(exc).split())[:200]}",
            remedy="fit it first",
        ) from exc
    usual = SourceKind.XGBOOST if library == "xgboost" else SourceKind.LIGHTGBM
    return BoostingSource(booster, job, kind or usual, files)


class BoostingSource:
    """An OpenSource over a booster."""

    def __init__(self, booster: _Booster, job: ImportJob, kind: SourceKind, files: tuple[Path, ...]) -> None:
        self._booster, self._job = booster, job
        model = booster.model
        outputs = model.outputs()
        if job.outputs:
            there = {spec.name: spec for spec in outputs}
            for name in job.outputs:
                if name not in there:
                    raise BadSource(f"the model has no output '{name}'; it has {', '.join(there)}")
            outputs = tuple(there[name] for name in job.outputs)
        spec = TensorSpec(_input_name(job, model.features), "float32", (BATCH, model.features), _values(model))
        what = "classifier" if model.link in CLASSES else "model for numbers"
        names = ", ".join(booster.features[:_SHOWN]) + (" …" if len(booster.features) > _SHOWN else "")
        self._facts = SourceFacts(
            kind=kind,
            shown=f"{'an' if booster.library == 'xgboost' else 'a'} "
            f"{'XGBoost' if booster.library == 'xgboost' else 'LightGBM'} {what}, {booster.trees} trees, "
            f"{model.features} features",
            interface=Interface((spec,), outputs),
            files=files,
            versions=_versions(booster.library),
            labels={"probabilities": _names(model)} if model.link in CLASSES else {},
            notes=(*((f"features in order: {names}",) if booster.features else ()), *booster.notes),
        )

    @property
    def facts(self) -> SourceFacts:
        """See `OpenSource`."""
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        """See `OpenSource`."""
        model = self._booster.model
        rows = inputs[self._facts.interface.inputs[0].name]
        found = np.asarray(self._booster.answer(rows, False), np.float64)
        if model.link not in CLASSES:
            return {"variable": found.reshape(len(rows), model.columns).astype(np.float32)}
        if model.link is Link.BINARY:
            positive = found.reshape(-1)
            number = (positive > 0.5).astype(np.int64)
            found = np.stack([1 - positive, positive], axis=1)
        else:
            found = found.reshape(len(rows), model.columns)
            number = found.argmax(1)
        answers = {"label": _labelled(model, number), "probabilities": found.astype(np.float32)}
        return {spec.name: answers[spec.name] for spec in self._facts.interface.outputs}

    def export(self, target: Path, say: Say) -> Exported:
        """See `OpenSource`."""
        say("writing the trees as ONNX")
        interface = self._facts.interface
        opset = self._job.opset or boosting_graph.OPSET
        model = boosting_graph.write(self._booster.model, interface.inputs, interface.outputs, opset)
        target.write_bytes(model.SerializeToString())
        return Exported("tensorquay's own writer of tree ensembles", opset)

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """The sums of the leaves."""
        if RAW not in names:
            return {}
        rows = inputs[self._facts.interface.inputs[0].name]
        raw = np.asarray(self._booster.answer(rows, True), np.float64)
        return {RAW: raw.reshape(len(rows), self._booster.model.forest.targets).astype(np.float32)}

    def close(self) -> None:
        """See `OpenSource`: the booster goes with the source."""


def _xgboost_file(path: Path) -> _Booster:
    import xgboost  # noqa: PLC0415  one of the two is enough

    try:
        content = path.read_bytes()
    except OSError as exc:
        raise BadSource(f"'{path.name}' cannot be read: {exc.strerror}") from exc
    need_whole(content, path.name)
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(content))
        return _xgboost(booster, None)
    except (xgboost.core.XGBoostError, *_BROKEN) as exc:
        raise BadSource(
            f"'{path.name}' is no XGBoost model that {xgboost.__version__} can read: {_line(exc)}",
            remedy="copy it again, or save it again with save_model('model.ubj')",
        ) from exc


def _xgboost(booster: Any, classes: tuple[int | str, ...] | None) -> _Booster:
    import xgboost  # noqa: PLC0415

    model, rounds = from_xgboost(json.loads(bytes(booster.save_raw("json"))), classes)
    counted = (0, 0) if rounds is None else (0, rounds)
    if model.link is Link.SOFTMAX:
        # softmax differs from softprob in what it tells of the same numbers; ours is both.
        booster = booster.copy()
        booster.set_param({"objective": "multi:softprob"})

    def answer(rows: Array, raw: bool) -> Any:
        given = xgboost.DMatrix(
            rows, missing=np.nan, feature_names=booster.feature_names, feature_types=booster.feature_types
        )
        return booster.predict(given, output_margin=raw, iteration_range=counted)

    notes = () if rounds is None else (f"the {rounds} rounds up to the best one are used, as XGBoost's estimators do",)
    trees = len(set(model.forest.trees))
    return _Booster("xgboost", model, answer, trees, tuple(booster.feature_names or ()), notes)


def _lightgbm_file(path: Path) -> _Booster:
    import lightgbm  # noqa: PLC0415  one of the two is enough

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise BadSource(f"'{path.name}' cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadSource(f"'{path.name}' is no LightGBM model: it is not text") from exc
    if "\nend of trees" not in text:
        # The library reads past the end of what is missing.
        raise BadSource(
            f"'{path.name}' is no whole LightGBM model: the line 'end of trees' is missing",
            remedy="copy it again, or save it again with save_model",
        )
    try:
        return _lightgbm(lightgbm.Booster(model_str=text), None)
    except (lightgbm.basic.LightGBMError, *_BROKEN) as exc:
        raise BadSource(
            f"'{path.name}' is no LightGBM model that {lightgbm.__version__} can read: {_line(exc)}",
            remedy="copy it again, or save it again with save_model",
        ) from exc


def _lightgbm(booster: Any, classes: tuple[int | str, ...] | None) -> _Booster:
    dump = booster.dump_model()
    model = from_lightgbm(dump, classes)

    def answer(rows: Array, raw: bool) -> Any:
        return booster.predict(rows, raw_score=raw)

    return _Booster("lightgbm", model, answer, len(dump["tree_info"]), tuple(dump["feature_names"]))


def _classes_of(model: Any) -> tuple[int | str, ...] | None:
    classes = getattr(model, "classes_", None)
    if classes is None:
        return None
    listed = np.asarray(classes).tolist()
    if all(isinstance(each, str) for each in listed):
        return tuple(listed)
    if all(float(each).is_integer() for each in listed):
        return tuple(int(each) for each in listed)
    raise Unsupported(f"the classes are neither whole numbers nor texts: {listed[:5]}")


def _labelled(model: Boosted, number: Array) -> Array:
    if model.classes is None:
        return number
    if model.label_dtype == "string":
        found = np.empty(len(number), object)
        found[:] = [str(model.classes[each]).encode() for each in number.tolist()]
        return found
    return np.array(model.classes, np.int64)[number]


def _names(model: Boosted) -> tuple[str, ...]:
    return tuple(map(str, model.classes if model.classes is not None else range(model.columns)))


def _values(model: Boosted) -> Values:
    """Rows around the places where the trees split, and NaN."""
    splits = [
        (feature, threshold)
        for feature, threshold, mode in zip(
            model.forest.features, model.forest.thresholds, model.forest.modes, strict=True
        )
        if mode != "LEAF"
    ]
    if not splits:
        return Values(missing=True)
    features, thresholds = np.array([each[0] for each in splits]), np.array([each[1] for each in splits])
    low, high = boosting_graph.range_of_splits(features, thresholds, model.features)
    return Values(columns=tuple(zip(low.tolist(), high.tolist(), strict=True)), missing=True)


def _input_name(job: ImportJob, features: int) -> str:
    if not job.inputs:
        return "input"
    declared = job.inputs[0]
    if len(job.inputs) != 1 or declared.dtype != "float32" or tuple(declared.shape[1:]) != (features,):
        raise BadSource(f"the model takes one input, {declared.name}:float32[batch,{features}]; declared is another")
    return declared.name


def _versions(library: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("xgboost", "xgboost-cpu") if library == "xgboost" else ("lightgbm",):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "onnx": version("onnx")}


def _line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    # XGBoost begins with the place in its own source.
    return f"{type(exc).__name__}: {lines[0].split(': ', 1)[-1] if lines else 'no message'}"[:300]
