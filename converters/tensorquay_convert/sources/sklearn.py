"""scikit-learn models: skops files, which hold no code, and pickles, which are code and are only read when trusted.

A skops file is loaded when every type in it is scikit-learn's, SciPy's or NumPy's own; nothing else is ever trusted.
What goes in and comes out: `sklearn_inputs`, `sklearn_answers`. Numbers are float32 unless float64 is declared.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import sklearn.exceptions
import sklearn.utils.validation
from sklearn.base import BaseEstimator

from tensorquay_convert.api import Exported, OpenSource, Say, SourceFacts
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import sklearn_export
from tensorquay_convert.sources.sklearn_answers import answers_of, class_names
from tensorquay_convert.sources.sklearn_inputs import Taken, converts_missing, steps, taken_by, takes_missing
from tensorquay_convert.tensors import BATCH, Arrays, Interface, TensorSpec

_OURS = re.compile(
    r"sklearn\.(tree\._tree\.Tree|ensemble\._hist_gradient_boosting\.predictor\.TreePredictor"
    r"|neighbors\._kd_tree\.KDTree|neighbors\._ball_tree\.BallTree|metrics\._dist_metrics\.[A-Z]\w+Distance(32|64)?"
    r"|neural_network\._stochastic_optimizers\.(Adam|SGD)Optimizer|_loss\.loss\.Half\w+Loss\w*"
    r"|gaussian_process\._gpc\._BinaryGaussianProcessClassifierLaplace"
    r"|gaussian_process\.kernels\.(ConstantKernel|WhiteKernel|RBF|Matern|RationalQuadratic|ExpSineSquared|DotProduct"
    r"|PairwiseKernel|Product|Sum|Exponentiation|CompoundKernel))"
)
"""Parts of scikit-learn's own models that skops does not vouch for by itself; named one by one, as a module also has
functions. They hold arrays and numbers, no code."""

_MAX_UNPACKED_BYTES = 8 << 30
_SHOWN = 8
_PROBES = 3
_PACKAGES = ("scikit-learn", "skl2onnx", "skops", "joblib", "numpy")


class SklearnConverter:
    """Opens `.skops` files, and pickles of estimators where they are trusted."""

    kinds: tuple[SourceKind, ...] = (SourceKind.SKOPS, SourceKind.PICKLE)
    extra = "sklearn"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `Converter`."""
        path = Path(job.source)
        say(f"reading {path.name}")
        with _noted() as notes:
            model = _read_skops(path) if kind is SourceKind.SKOPS else _read_pickle(path, trusted=job.trust_pickle)
        if type(model).__module__.partition(".")[0] in {"xgboost", "lightgbm"}:
            from tensorquay_convert.sources import boosting  # noqa: PLC0415  their packages are another extra

            return boosting.open_model(model, None, job, files=(path,), kind=kind)
        return SklearnSource(model, job, kind, (path,), tuple(notes))


def open_estimator(model: Any, example_inputs: Any, job: ImportJob) -> OpenSource:  # noqa: ARG001
    """A fitted estimator or pipeline that is in hand; it says itself what it takes."""
    return SklearnSource(model, job, SourceKind.SKOPS, (), ())


class SklearnSource:
    """An OpenSource over a fitted estimator."""

    def __init__(
        self, model: Any, job: ImportJob, kind: SourceKind, files: tuple[Path, ...], notes: tuple[str, ...]
    ) -> None:
        shown = files[0].name if files else "the object"
        if not isinstance(model, BaseEstimator):
            raise BadSource(
                f"{shown} holds a {type(model).__module__}.{type(model).__qualname__}, expected a scikit-learn "
                "estimator or pipeline",
                remedy="save the fitted model itself",
            )
        _need_fitted(model, shown)
        chosen = getattr(model, "best_estimator_", model)
        if chosen is not model:
            notes = (*notes, f"the best of the search ({type(model).__name__}) is imported: {type(chosen).__name__}")
            model = chosen
        self._model: Any = model
        self._job = job
        self._taken: Taken = taken_by(model, job, kind)
        answers = answers_of(model, self._taken)
        self._answers = {answer.name: answer for answer in answers}
        self._kept = tuple(job.outputs or self._answers)
        for name in self._kept:
            if name not in self._answers:
                raise BadSource(f"the model has no output '{name}'; it has {', '.join(self._answers)}")
        sklearn_export.refuse_unsupported(model)
        self._steps: dict[str, int] = {}
        self._facts = SourceFacts(
            kind=kind,
            shown=f"a scikit-learn {_shown(model)}, {len(self._taken.specs)} input"
            f"{'s' if len(self._taken.specs) > 1 else ''}",
            interface=self._interface(),
            files=files,
            versions={name: version(name) for name in _PACKAGES},
            labels=class_names(model, answers, self._kept),
            notes=(*notes, *self._notes()),
        )

    @property
    def facts(self) -> SourceFacts:
        """See `OpenSource`."""
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        """See `OpenSource`: the model's own predict, predict_proba, decision_function or transform."""
        given = self._taken.assembled(inputs)
        with _quiet():
            return {name: self._answers[name].of(self._model, given) for name in self._kept}

    def export(self, target: Path, say: Say) -> Exported:
        """See `OpenSource`."""
        say("converting with skl2onnx")
        answers = tuple(self._answers.values())
        converted = sklearn_export.convert(self._model, self._taken, answers, self._kept, self._job.opset)
        self._steps = dict(converted.made_by)
        target.write_bytes(converted.model.SerializeToString())
        return Exported("skl2onnx.convert_sklearn", sklearn_export.opset_of(converted.model))

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """What each step of a plain pipeline gives to the next one."""
        wanted = {name: self._steps[name] for name in names if name in self._steps}
        if not wanted:
            return {}
        found: dict[str, Any] = {}
        value = self._taken.assembled(inputs)
        last = max(wanted.values())
        with _quiet():
            for at, (_, step) in enumerate(self._model.steps[: last + 1]):
                value = value if isinstance(step, str) or step is None else step.transform(value)
                for name, place in wanted.items():
                    if place == at:
                        array = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
                        found[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        return found

    def close(self) -> None:
        """See `OpenSource`."""
        self._model = None

    def _interface(self) -> Interface:
        """The width of outputs is seen in what the model says to a few rows."""
        probes = self._probe()
        outputs = tuple(
            TensorSpec(
                name,
                self._answers[name].dtype,
                (BATCH,) if self._answers[name].rank == 1 else (BATCH, probes[name].shape[1]),
            )
            for name in self._kept
        )
        return Interface(self._taken.specs, outputs)

    def _probe(self) -> Arrays:
        """Answers for rows made of the usual values. Raises: BadSource in the model's own words."""
        inputs: dict[str, Any] = {}
        for spec in self._taken.specs:
            width = spec.shape[1] if spec.shape and isinstance(spec.shape[1], int) else 1
            if spec.dtype == "string":
                text = spec.values.choices[0] if spec.values.choices else "text"
                column = np.empty((_PROBES, width), object)
                column[:] = str(text).encode()
            else:
                known = [float(next(iter(spec.values.choices), 0.0))]
                middle = [(low + high) / 2 for low, high in spec.values.columns] or known
                column = np.broadcast_to(np.array(middle, spec.dtype), (_PROBES, width)).copy()
            inputs[spec.name] = column
        try:
            return self.run(inputs)
        except Exception as exc:  # estimators raise what they like
            raise BadSource(
                f"the model does not answer for a row of {', '.join(spec.name for spec in self._taken.specs)[:200]}: "
                f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}",
                remedy="check that predict or transform runs on float32 numbers (or texts) in this shape",
            ) from exc

    def _notes(self) -> Iterator[str]:
        floats = [spec for spec in self._taken.specs if spec.dtype == "float32"]
        if floats:
            yield "numbers go in as float32, which rounds doubles; for doubles declare --input 'input:float64[batch,…]'"
        if self._taken.frame:
            yield "one input for each column of the data frame the model was fitted on"
        if takes_missing(self._model) and not converts_missing(self._model):
            yield "missing values (NaN) are not compared: in ONNX this model sends them elsewhere; fill them in before"
        if self._taken.texts:
            yield "ONNX splits texts and lowers letters in ASCII only; words with other letters may count differently"


@contextmanager
def _quiet() -> Iterator[None]:
    """Models warn about column names, convergence and versions while they answer; none of it changes the answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Warnings about versions become one note."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    found = {
        str(each.message.original_sklearn_version)
        for each in caught
        if isinstance(each.message, sklearn.exceptions.InconsistentVersionWarning)
    }
    if found:
        notes.append(
            f"saved with scikit-learn {', '.join(sorted(found))}, read with {sklearn.__version__}: if it answers "
            "otherwise than it did, import it with the version it was saved with (--python)"
        )


def _read_skops(path: Path) -> Any:
    """Raises: BadSource for a broken file, and for any type that is not scikit-learn's, SciPy's or NumPy's."""
    import skops.io  # noqa: PLC0415
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
            if size > _MAX_UNPACKED_BYTES:
                raise BadSource(f"'{path.name}' unpacks to {size} bytes, expected at most {_MAX_UNPACKED_BYTES}")
        # Beyond what skops trusts by itself: parts of scikit-learn, SciPy, NumPy and Python's own plain types.
        told = skops.io.get_untrusted_types(file=path)
        strange = [each for each in told if _OURS.fullmatch(each) is None]
        if strange:
            raise _untrusted(path, strange)
        return skops.io.load(path, trusted=told)
    except UntrustedTypesFoundException as exc:
        raise _untrusted(path, [str(exc)[:300]]) from exc
    except (BadSource, ImportError):
        raise
    except Exception as exc:  # skops raises what the broken part raises
        raise BadSource(
            f"'{path.name}' is no skops file that can be read: {type(exc).__name__}: "
            f"{' '.join(str(exc).split())[:200]}",
            remedy="copy it again; if it is whole, it may need another scikit-learn than "
            f"{sklearn.__version__} (--python)",
        ) from exc


def _untrusted(path: Path, types: Sequence[str]) -> BadSource:
    listed = ", ".join(sorted(types)[:_SHOWN]) + (f" and {len(types) - _SHOWN} more" if len(types) > _SHOWN else "")
    boosted = any(each.startswith(("xgboost.", "lightgbm.")) for each in types)
    return BadSource(
        f"'{path.name}' needs types that are not scikit-learn's own and are not trusted: {listed}",
        remedy="save XGBoost and LightGBM models with their own save_model"
        if boosted
        else "save a model made of scikit-learn's own parts; types of others are never trusted",
        facts={"types": len(types), "first": min(types)},
    )


def _read_pickle(path: Path, *, trusted: bool) -> Any:
    """Raises: BadSource, always when it is not trusted: then not one byte of it is read."""
    if not trusted:
        raise BadSource(
            f"'{path.name}' is a pickle, and reading a pickle runs whatever code is in it",
            remedy="save the model with skops instead, or give --trust-pickle if you made the file yourself",
        )
    import joblib  # noqa: PLC0415

    try:
        return joblib.load(path)
    except ModuleNotFoundError as exc:
        raise BadSource(
            f"'{path.name}' needs the module '{exc.name}', which is not installed or was the script that saved it",
            remedy="install it where the import runs (--python), or move the class to a module and save again",
        ) from exc
    except Exception as exc:  # a pickle may raise anything
        raise BadSource(
            f"'{path.name}' cannot be unpickled: {type(exc).__name__}: {' '.join(str(exc).split())[:200]}",
            remedy=f"copy it again; if it is whole, read it with the scikit-learn it was saved with, not "
            f"{sklearn.__version__} (--python)",
        ) from exc


def _need_fitted(model: Any, shown: str) -> None:
    try:
        sklearn.utils.validation.check_is_fitted(model)
    except sklearn.exceptions.NotFittedError as exc:
        raise BadSource(f"{shown}: {type(model).__name__} is not fitted", remedy="fit it, then save it") from exc
    except TypeError as exc:
        raise BadSource(f"{shown}: {type(model).__name__} is no estimator", remedy="save the fitted model") from exc


def _shown(model: Any) -> str:
    if not hasattr(model, "steps"):
        return type(model).__name__
    return "pipeline (" + ", ".join(type(step).__name__ for _, step in steps(model)) + ")"
