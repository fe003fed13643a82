"""What a fitted scikit-learn model takes: one matrix, one input per column, or texts; and which values are usual.

One matrix `input` of (batch, features), unless some column holds texts or categories: then one input of (batch, 1) for
each column, named as the columns of the data frame the model was fitted on, else `column_0`, `column_1` … A model that
begins with a vectorizer takes `text`, (batch, 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.registry import framework_missing
from tensorquay_convert.sources.boosting_graph import range_of_splits
from tensorquay_convert.tensors import BATCH, Array, Arrays, TensorSpec, Values

_WIDE = 2.5
"""Standard deviations around a mean within which values are usual."""
SENDS_MISSING = {
    f"{kind}{what}" for kind in ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees") for what in
    ("Classifier", "Regressor")
}  # fmt: skip
"""Trees and forests; `sklearn_export` carries over where they send NaN."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What goes in. `names`: of the columns, in order; `frame`: the model wants them in a data frame.

    `texts`: the only input is a column of texts, which a vectorizer takes as a flat list.
    """

    specs: tuple[TensorSpec, ...]
    names: tuple[str, ...] = ()
    frame: bool = False
    texts: bool = False
    kind: SourceKind = SourceKind.SKOPS

    def assembled(self, inputs: Arrays) -> Any:
        """The inputs as the model's methods take them. Raises: FrameworkMissing when a data frame needs pandas."""
        if self.texts:
            return _decoded(inputs[self.specs[0].name]).reshape(-1)
        if not self.names:
            return inputs[self.specs[0].name]
        columns = {
            name: _decoded(inputs[spec.name]).reshape(-1) for name, spec in zip(self.names, self.specs, strict=True)
        }
        if self.frame:
            return _pandas(self.kind).DataFrame(columns)
        if all(spec.dtype != "string" for spec in self.specs):
            return np.stack(list(columns.values()), axis=1)
        return np.stack([each.astype(object) for each in columns.values()], axis=1)


def taken_by(model: Any, job: ImportJob, kind: SourceKind) -> Taken:
    """Find out what a fitted model takes.

    Raises: BadSource for declared inputs that do not fit; Unsupported for what is no table; FrameworkMissing (pandas).
    """
    first = first_step(model)
    if _is_vectorizer(first):
        if "Dict" in type(first).__name__:
            raise Unsupported(
                f"{type(first).__name__} takes dictionaries, which no tensor holds",
                remedy="save the part of the model after it, and vectorize in the client",
            )
        texts = Values(choices=_texts_of(first))
        return Taken((TensorSpec(_only_name(job, "text"), "string", (BATCH, 1), texts),), texts=True, kind=kind)
    count = getattr(model, "n_features_in_", None)
    if count is None:
        raise BadSource(
            f"{type(model).__name__} does not say how many features it takes (n_features_in_)",
            remedy="fit it on a matrix, with a version of scikit-learn from 1.0 on, and save it again",
        )
    categories = _categories(first, int(count))
    names = tuple(str(each) for each in getattr(model, "feature_names_in_", ()))
    by_name = bool(names) and _is_table(first)
    ranges = usual_ranges(model, int(count))
    missing = takes_missing(model) and converts_missing(model)
    if not categories:
        if by_name:
            _pandas(kind)
            specs = tuple(
                _column(name, None, ranges[at : at + 1], missing=missing) for at, name in enumerate(names)
            )  # fmt: skip
            return Taken(_declared_columns(specs, job), names, frame=True, kind=kind)
        return Taken((_matrix(int(count), job, Values(columns=ranges, missing=missing)),), kind=kind)
    plain = tuple(f"column_{at}" for at in range(int(count)))
    specs = tuple(
        _column(name, categories.get(at), ranges[at : at + 1], missing=missing and at not in categories)
        for at, name in enumerate(names or plain)
    )
    if by_name:
        _pandas(kind)
    return Taken(_declared_columns(specs, job), names or plain, frame=by_name, kind=kind)


def steps(model: Any) -> tuple[tuple[str, Any], ...]:
    """A pipeline's steps that do something; one step without a name for anything else."""
    found = getattr(model, "steps", None)
    if found is None:
        return (("", model),)
    return tuple((name, each) for name, each in found if each is not None and not isinstance(each, str))


def first_step(model: Any) -> Any:
    """What sees the data first, in nested pipelines too."""
    while hasattr(model, "steps"):
        inner = steps(model)
        if not inner:
            return model
        model = inner[0][1]
    return model


def parts_of(table: Any) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Each fitted transformer of a ColumnTransformer with its name and the numbers of its columns."""
    numbers = table._transformer_to_input_indices
    for name, part, _ in table.transformers_:
        if not isinstance(part, str):
            yield name, part, tuple(int(each) for each in numbers.get(name, ()))


def usual_ranges(model: Any, count: int) -> tuple[tuple[float, float], ...]:
    """Lowest and highest usual value of each feature, as far as what was fitted tells; empty when nothing does."""
    found: dict[int, tuple[float, float]] = {}
    first = first_step(model)
    if _is_table(first):
        for _, part, columns in parts_of(first):
            for at, pair in zip(columns, usual_ranges(part, len(columns)), strict=False):
                found.setdefault(at, pair)
    else:
        for _, step in steps(model):
            told = _told_by(step, count)
            if told is not None:
                found = dict(enumerate(zip(told[0].tolist(), told[1].tolist(), strict=True)))
                break
            if not hasattr(step, "transform") or getattr(step, "n_features_in_", None) != count:
                break
            if type(step).__name__ not in {"SimpleImputer", "KNNImputer", "FunctionTransformer"}:
                break
    if not found:
        return ()
    return tuple(found.get(at, (-2.0, 2.0)) for at in range(count))


def _told_by(step: Any, count: int) -> tuple[Array, Array] | None:
    """The range of each feature that one fitted estimator has in itself."""
    low = high = None
    if hasattr(step, "data_min_") and hasattr(step, "data_max_"):
        low, high = step.data_min_, step.data_max_
    elif getattr(step, "mean_", None) is not None and getattr(step, "var_", None) is not None:
        spread = np.sqrt(np.maximum(step.var_, 0))
        low, high = step.mean_ - _WIDE * spread, step.mean_ + _WIDE * spread
    elif hasattr(step, "theta_") and hasattr(step, "var_"):
        spread = _WIDE * np.sqrt(step.var_)
        low, high = (step.theta_ - spread).min(0), (step.theta_ + spread).max(0)
    else:
        points = next(
            (
                getattr(step, name)
                for name in ("_fit_X", "support_vectors_", "cluster_centers_", "means_", "X_train_", "quantiles_")
                if getattr(step, name, None) is not None
            ),
            None,
        )
        if isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] == count and len(points):
            low, high = points.min(0), points.max(0)
        else:
            low, high = _thresholds(step, count)
    if low is None or high is None:
        return None
    low, high = np.asarray(low, np.float64).reshape(-1), np.asarray(high, np.float64).reshape(-1)
    if low.shape != (count,) or high.shape != (count,) or not (np.isfinite(low) & np.isfinite(high)).all():
        return None
    if (low < -1e30).any() or (high > 1e30).any():
        return None
    return low, high


def _thresholds(step: Any, count: int) -> tuple[Array | None, Array | None]:
    """A little around all the places where the trees of a forest split."""
    pairs: list[tuple[Array, Array]] = []
    for each in _trees(step):
        inner = each.children_left >= 0
        pairs.append((each.feature[inner], each.threshold[inner]))
    for group in getattr(step, "_predictors", ()):
        for each in group:
            inner = each.nodes["is_leaf"] == 0
            pairs.append((each.nodes["feature_idx"][inner], each.nodes["num_threshold"][inner]))
    if not pairs:
        return None, None
    return range_of_splits(
        np.concatenate([each[0] for each in pairs]).astype(np.int64),
        np.concatenate([each[1] for each in pairs]).astype(np.float64),
        count,
    )


def _trees(step: Any) -> Iterator[Any]:
    if hasattr(step, "tree_"):
        yield step.tree_
    for each in np.asarray(getattr(step, "estimators_", ()), dtype=object).reshape(-1):
        if hasattr(each, "tree_"):
            yield each.tree_


def _is_table(step: Any) -> bool:
    return hasattr(step, "transformers_") and hasattr(step, "_transformer_to_input_indices")


def _is_vectorizer(step: Any) -> bool:
    return "Vectorizer" in type(step).__name__ or type(step).__name__ == "FeatureHasher"


def _categories(first: Any, count: int) -> Mapping[int, tuple[Any, ...]]:
    """Columns that hold texts, or numbers out of a list: by number, with the values that are known."""
    found: dict[int, tuple[Any, ...]] = {}
    if _is_table(first):
        for _, part, columns in parts_of(first):
            inner = first_step(part)
            if _is_vectorizer(inner):
                found |= dict.fromkeys(columns, ("",))
            else:
                found |= {columns[at]: known for at, known in _categories(inner, len(columns)).items()}
        return found
    known = getattr(first, "categories_", None)
    if known is not None:
        listed = [known] if isinstance(known, np.ndarray) and known.ndim == 1 and known.dtype != object else known
        return {at: tuple(_plain(values)) for at, values in enumerate(listed) if at < count}
    filled = getattr(first, "statistics_", None)
    if filled is not None and np.asarray(filled).dtype.kind in "OU":
        return {at: (str(value),) for at, value in enumerate(filled)}
    return found


def _plain(values: Any) -> list[Any]:
    listed = np.asarray(values).tolist()
    return [each for each in listed if each is not None and not (isinstance(each, float) and math.isnan(each))]


def _texts_of(vectorizer: Any) -> tuple[str, ...]:
    """Texts of one to six words that the vectorizer knows, some in capitals, one with words it does not know."""
    words = [str(each) for each in sorted(getattr(vectorizer, "vocabulary_", {}))]
    if not words:
        return ()
    step = max(1, len(words) // 7)
    texts = [" ".join(words[(at * 31 + n * step) % len(words)] for n in range(at % 6 + 1)) for at in range(24)]
    return (*texts, *(text.upper() for text in texts[:6]), "qqqq " + texts[3], "")


def converts_missing(model: Any) -> bool:
    """Whether skl2onnx carries NaN over as the model has it; it does not in forests of outliers and bags of trees."""
    last = steps(model)[-1][1]
    while hasattr(last, "steps"):
        last = steps(last)[-1][1]
    name = type(last).__name__
    return not (hasattr(last, "estimators_") or hasattr(last, "tree_")) or name in SENDS_MISSING


def takes_missing(model: Any) -> bool:
    """Whether the fitted model says that NaN is a value it knows: every step does, up to one that fills it in."""
    for _, step in steps(model):
        if hasattr(step, "steps"):
            if not takes_missing(step):
                return False
            continue
        if _is_table(step):
            return all(takes_missing(part) for _, part, _ in parts_of(step)) and len(steps(model)) == 1
        try:
            allowed = step.__sklearn_tags__().input_tags.allow_nan
        except (AttributeError, TypeError):
            return False
        if type(step).__name__ in {"SimpleImputer", "KNNImputer", "IterativeImputer"}:
            return True
        if not allowed:
            return False
    return True


def _column(
    name: str, known: tuple[Any, ...] | None, pair: Sequence[tuple[float, float]], *, missing: bool
) -> TensorSpec:
    if known is None:
        return TensorSpec(name, "float32", (BATCH, 1), Values(columns=tuple(pair), missing=missing))
    if not known or any(isinstance(each, str) for each in known):
        texts = tuple(str(each) for each in known if each != "")
        return TensorSpec(name, "string", (BATCH, 1), Values(choices=texts))
    return TensorSpec(name, "float32", (BATCH, 1), Values(choices=tuple(float(each) for each in known)))


def _matrix(count: int, job: ImportJob, values: Values) -> TensorSpec:
    spec = TensorSpec("input", "float32", (BATCH, count), values)
    if not job.inputs:
        return spec
    if len(job.inputs) != 1:
        raise BadSource(f"the model takes one matrix of {count} features, declared are {len(job.inputs)} inputs")
    declared = job.inputs[0]
    if len(declared.shape) != 2 or declared.shape[1] != count:
        raise BadSource(
            f"input '{declared.name}' is declared as {list(declared.shape)}, the model takes [batch, {count}]"
        )
    if declared.dtype not in {"float32", "float64"}:
        raise BadSource(f"input '{declared.name}' is declared as {declared.dtype}, expected float32 or float64")
    batch = declared.shape[0] if isinstance(declared.shape[0], str) else BATCH
    return TensorSpec(declared.name, declared.dtype, (batch, count), values)


def _declared_columns(specs: tuple[TensorSpec, ...], job: ImportJob) -> tuple[TensorSpec, ...]:
    """Declarations may say again what is known, never otherwise: columns of different dtypes do not mix."""
    known = {spec.name: spec for spec in specs}
    for each in job.inputs:
        spec = known.get(each.name)
        if spec is None or spec.dtype != each.dtype or len(each.shape) != 2 or each.shape[1] != 1:
            listed = ", ".join(f"{spec.name}:{spec.dtype}[batch,1]" for spec in specs[:20])
            raise BadSource(f"input '{each.name}' is not declared as the model has it; it takes {listed}")
    return specs


def _only_name(job: ImportJob, usual: str) -> str:
    if not job.inputs:
        return usual
    declared = job.inputs[0]
    if len(job.inputs) != 1 or declared.dtype != "string" or len(declared.shape) != 2:
        raise BadSource("the model takes one column of texts: name:string[batch,1]")
    return declared.name


def _decoded(column: Array) -> Array:
    if column.dtype != object:
        return column
    found = np.empty(column.size, object)
    found[:] = [each.decode() if isinstance(each, bytes) else str(each) for each in column.reshape(-1).tolist()]
    return found.reshape(column.shape)


def _pandas(kind: SourceKind) -> Any:
    """Models fitted on a data frame find their columns by name in nothing else."""
    try:
        import pandas  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise framework_missing(kind, "pandas") from exc
    return pandas
