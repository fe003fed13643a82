"""scikit-learn: estimators and pipelines from skops and pickle files are served as they answered before."""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("skl2onnx")
skops_io = pytest.importorskip("skops.io")

import joblib  # noqa: E402
from sklearn import (  # noqa: E402
    cluster,
    compose,
    datasets,
    ensemble,
    feature_extraction,
    impute,
    linear_model,
    mixture,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
)
from sklearn.base import BaseEstimator, TransformerMixin  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from tests.convert import tabular  # noqa: E402
from tests.support.serving import RunningServer  # noqa: E402

from tensorquay_convert.errors import BadSource, FrameworkMissing, Unsupported  # noqa: E402
from tensorquay_convert.importing import import_model  # noqa: E402
from tensorquay_convert.job import DeclaredInput, ImportJob, SourceKind  # noqa: E402
from tensorquay_convert.proof.examples import read  # noqa: E402
from tensorquay_convert.sources.sklearn import SklearnConverter, open_estimator  # noqa: E402

pytestmark = pytest.mark.frameworks

JOB = ImportJob("model")
PROBABLE = ("label", "probabilities")
SCORED = ("label", "scores")


@functools.cache
def data(name: str) -> tuple[Any, Any]:
    features, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    return features.astype(np.float32), target


def scaled(*steps: Any) -> pipeline.Pipeline:
    return pipeline.make_pipeline(preprocessing.StandardScaler(), *steps)


@functools.cache
def wine_pipeline() -> pipeline.Pipeline:
    return scaled(PCA(6), linear_model.LogisticRegression()).fit(*data("wine"))


def opened(path: Path, **job: Any) -> Any:
    kind = SourceKind.SKOPS if path.suffix == ".skops" else SourceKind.PICKLE
    return SklearnConverter().open(ImportJob(str(path), **job), kind, tabular.say)


MODELS: dict[str, Callable[[], tuple[Any, str, tuple[str, ...]]]] = {
    "digits forest": lambda: (ensemble.RandomForestClassifier(20, random_state=0), "digits", PROBABLE),
    "wine SVC": lambda: (scaled(svm.SVC(random_state=0)), "wine", SCORED),
    "cancer linear SVC": lambda: (scaled(svm.LinearSVC(random_state=0)), "breast_cancer", SCORED),
    "cancer SVC": lambda: (scaled(svm.SVC(random_state=0)), "breast_cancer", SCORED),
    "wine boosted": lambda: (ensemble.GradientBoostingClassifier(n_estimators=9, random_state=0), "wine", PROBABLE),
    "wine histogram": lambda: (ensemble.HistGradientBoostingClassifier(max_iter=9, random_state=0), "wine", PROBABLE),
    "diabetes histogram": lambda: (ensemble.HistGradientBoostingRegressor(max_iter=9), "diabetes", ("variable",)),
    "diabetes ridge": lambda: (linear_model.Ridge(), "diabetes", ("variable",)),
    "wine neighbours": lambda: (scaled(neighbors.KNeighborsClassifier()), "wine", PROBABLE),
    "wine clusters": lambda: (scaled(cluster.KMeans(3, random_state=0)), "wine", SCORED),
    "wine mixture": lambda: (scaled(mixture.GaussianMixture(3, random_state=0)), "wine", PROBABLE),
    "wine outliers": lambda: (ensemble.IsolationForest(n_estimators=9, random_state=0), "wine", SCORED),
    "wine components": lambda: (scaled(PCA(3)), "wine", ("variable",)),
    "wine votes": lambda: (ensemble.VotingClassifier(
        [("a", naive_bayes.GaussianNB()), ("b", ensemble.ExtraTreesClassifier(5, random_state=0))]),
        "wine", ("label",)),
    "wine search": lambda: (GridSearchCV(linear_model.LogisticRegression(max_iter=9999), {"C": [0.1, 1]}, cv=2),
        "wine", PROBABLE),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_trained_model_answers_as_before(name: str, tmp_path: Path) -> None:
    model, source, outputs = MODELS[name]()
    rows, target = data(source)
    opened_source = open_estimator(model.fit(rows, target), None, JOB)
    assert tuple(each.name for each in opened_source.facts.interface.outputs) == outputs
    tabular.prove(opened_source, tmp_path, rows[::5], atol=1e-3 if name == "diabetes histogram" else 2e-5)


def test_classes_that_are_texts_are_texts_and_names(tmp_path: Path) -> None:
    rows, target = data("wine")
    names = datasets.load_wine().target_names
    source = open_estimator(scaled(linear_model.LogisticRegression()).fit(rows, names[target]), None, JOB)
    assert source.facts.labels == {"probabilities": tuple(names)}
    assert source.facts.interface.outputs[0].dtype == "string"
    path = tabular.prove(source, tmp_path, rows)
    assert tabular.run_onnx(path, {"input": rows[:2]})["label"].tolist() == ["class_0", "class_0"]


@pytest.mark.parametrize("kind", [ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier])
def test_missing_values_go_where_a_forest_sends_them(kind: Any, tmp_path: Path) -> None:
    rows, target = data("wine")
    holes = rows.copy()
    holes[np.random.default_rng(0).random(rows.shape) < 0.2] = np.nan
    for trained_on in (rows, holes):
        source = open_estimator(kind(8, random_state=0).fit(trained_on, target), None, JOB)
        assert source.facts.interface.inputs[0].values.missing
        tabular.prove(source, tmp_path, holes)


def test_doubles_stay_doubles_where_they_are_declared(tmp_path: Path) -> None:
    job = ImportJob("m", inputs=(DeclaredInput("features", "float64", ("batch", 13)),), outputs=("probabilities",))
    source = open_estimator(wine_pipeline(), None, job)
    (given,), (answer,) = source.facts.interface.inputs, source.facts.interface.outputs
    assert (given.name, given.dtype, answer.name, answer.dtype) == ("features", "float64", "probabilities", "float64")
    tabular.prove(source, tmp_path)


def test_columns_of_numbers_and_texts_are_one_input_each(tmp_path: Path) -> None:
    table = np.array([[1.5, "red", 2], [2.5, "blue", 3], [0.5, "red", 3], [9.0, "green", 2]] * 5, object)
    columns = compose.ColumnTransformer([
        ("size", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler()), [0]),
        ("colour", preprocessing.OneHotEncoder(), [1]),
        ("doors", preprocessing.OrdinalEncoder(), [2]),
    ])  # fmt: skip
    model = pipeline.make_pipeline(columns, linear_model.LogisticRegression()).fit(table, ["a", "b", "a", "b"] * 5)
    source = open_estimator(model, None, JOB)
    specs = source.facts.interface.inputs
    assert [(each.name, each.dtype, each.shape) for each in specs] == [
        ("column_0", "float32", ("batch", 1)),
        ("column_1", "string", ("batch", 1)),
        ("column_2", "float32", ("batch", 1)),
    ]
    assert specs[1].values.choices == ("blue", "green", "red")
    tabular.prove(source, tmp_path)


def test_columns_by_name_need_the_library_that_has_names() -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    model = compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0, 1])]).fit(table)
    model.feature_names_in_ = np.array(["height", "width"], object)
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(FrameworkMissing, match="pandas"):
            open_estimator(model, None, JOB)
    else:
        assert [each.name for each in open_estimator(model, None, JOB).facts.interface.inputs] == ["height", "width"]


def test_texts_are_counted_as_before(tmp_path: Path) -> None:
    texts = ["a good and nice film", "a bad awful film", "nice, very good!", "awful story, bad actors"] * 4
    model = pipeline.make_pipeline(feature_extraction.text.TfidfVectorizer(), linear_model.LogisticRegression())
    source = open_estimator(model.fit(texts, [1, 0, 1, 0] * 4), None, JOB)
    assert [(each.name, each.shape) for each in source.facts.interface.inputs] == [("text", ("batch", 1))]
    tabular.prove(source, tmp_path, np.array([[each.encode()] for each in texts], object))


def test_steps_of_a_pipeline_can_be_looked_into(tmp_path: Path) -> None:
    source = open_estimator(wine_pipeline(), None, JOB)
    path = tabular.finished(source, tmp_path)
    import onnx

    from tensorquay_convert.proof.graph import Graph
    from tensorquay_convert.proof.runtime import Runtime

    names = [name for node in onnx.load(path).graph.node for name in node.output]
    inputs = {"input": data("wine")[0][:3]}
    known = source.values_inside(inputs, [*names, "no such value"])
    assert [value.shape for value in known.values()] == [(3, 13), (3, 6)]
    found = Runtime(Graph(path).with_outputs(list(known)), folder=tmp_path, optimized=False).run(inputs, list(known))
    for name, value in known.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)


def test_from_files_to_a_server(tmp_path: Path, serve: Callable[..., RunningServer]) -> None:
    files = {"skops": tmp_path / "model.skops", "pickle": tmp_path / "model.pkl"}
    skops_io.dump(wine_pipeline(), files["skops"])
    joblib.dump(wine_pipeline(), files["pickle"], compress=3)
    rows = data("wine")[0][::20]
    results, told = tabular.imported_and_served(files, tmp_path / "repo", serve, rows, trust_pickle=True)
    for name, result in results.items():
        assert (result.kind.value, result.proof["passed"]) == (name, True)
        np.testing.assert_array_equal(told[name]["label"], wine_pipeline().predict(rows))
        np.testing.assert_allclose(told[name]["probabilities"], wine_pipeline().predict_proba(rows), atol=1e-5)


class Creates:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_of_a_pickle_runs_without_trust(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Creates(trap)))
    (tmp_path / "repo").mkdir()
    for refused in (
        lambda: opened(path),
        lambda: import_model(path, name="m", repository=tmp_path / "repo"),
        lambda: import_model(path, name="m", repository=tmp_path / "repo", kind=SourceKind.SKOPS),
    ):
        with pytest.raises(BadSource) as failure:
            refused()
        assert "pickle" in str(failure.value) or "skops" in str(failure.value)
        assert not trap.exists()
        assert not list((tmp_path / "repo").iterdir())
    # The trap works: with trust it springs.
    with pytest.raises(BadSource, match="expected a scikit-learn estimator"):
        opened(path, trust_pickle=True)
    assert trap.exists()


class Own(TransformerMixin, BaseEstimator):
    """A transformer of the user's own, of which skops and skl2onnx know nothing."""

    def fit(self, rows: Any, target: Any = None) -> Own:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return rows * 2


def test_types_that_are_not_sklearns_own_are_never_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops_io.dump(scaled(Own(), linear_model.LogisticRegression()).fit(*data("wine")), path)
    with pytest.raises(BadSource, match=r"not trusted: .*Own"):
        opened(path, trust_pickle=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ensemble.RandomForestClassifier(4, random_state=0),
        lambda: ensemble.HistGradientBoostingClassifier(max_iter=3, random_state=0),
        lambda: neighbors.KNeighborsClassifier(3),
        lambda: neighbors.KNeighborsClassifier(3, algorithm="ball_tree", metric="manhattan"),
        lambda: neural_network.MLPClassifier(4, max_iter=300, random_state=0, tol=0.1, n_iter_no_change=1),
        lambda: ensemble.IsolationForest(n_estimators=4, random_state=0),
    ],
    ids=["forest", "histogram", "k-d tree", "ball tree", "perceptron", "isolation"],
)
def test_compiled_parts_of_scikit_learn_are_its_own(make: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    model = scaled(make()).fit(*data("wine"))
    skops_io.dump(model, path)
    # skops does not vouch for them by itself.
    assert skops_io.get_untrusted_types(file=path)
    rows = data("wine")[0][::9].astype(np.float32)
    np.testing.assert_array_equal(opened(path).run({"input": rows})["label"].ravel(), model.predict(rows))


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.98])
@pytest.mark.parametrize("suffix", ["skops", "pkl"])
def test_a_file_cut_short_is_refused(suffix: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    if suffix == "skops":
        skops_io.dump(wine_pipeline(), path)
    else:
        path.write_bytes(pickle.dumps(wine_pipeline()))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(BadSource, match="again"):
        opened(path, trust_pickle=True)


def test_a_skops_file_whose_schema_is_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    for schema in (
        b"{}",
        b"[1]",
        b'{"__class__": "Pipeline", "__module__": "os", "__loader__": "ObjectNode"}',
        b"\xff",
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("schema.json", schema)
        with pytest.raises(BadSource):
            opened(path)


def test_what_has_no_onnx_is_named_with_its_step() -> None:
    model = pipeline.Pipeline(
        [("scale", preprocessing.StandardScaler()), ("own", Own()), ("end", linear_model.Ridge())]
    )
    with pytest.raises(Unsupported, match=r"no ONNX is known for Own, step 'own' of the pipeline") as failure:
        open_estimator(model.fit(*data("diabetes")), None, JOB)
    assert failure.value.facts == {"operator": "Own", "node": "own"}


def test_what_skl2onnx_gives_up_on_is_named(tmp_path: Path) -> None:
    model = scaled(preprocessing.FunctionTransformer(np.abs), linear_model.Ridge()).fit(*data("diabetes"))
    with pytest.raises(Unsupported, match="step 'functiontransformer'"):
        open_estimator(model, None, JOB).export(tmp_path / "model.onnx", tabular.say)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (linear_model.LogisticRegression(), "is not fitted"),
        ({"model": 1}, "expected a scikit-learn estimator"),
        (cluster.DBSCAN().fit(data("wine")[0]), "cannot answer for rows it was not fitted on"),
    ],
)
def test_what_is_no_fitted_model_is_refused(model: Any, words: str) -> None:
    with pytest.raises(BadSource, match=words):
        open_estimator(model, None, JOB)


@pytest.mark.parametrize(
    "declared", [DeclaredInput("x", "float32", ("batch", 12)), DeclaredInput("x", "int64", ("batch", 13))]
)
def test_declarations_have_to_fit(declared: DeclaredInput) -> None:
    with pytest.raises(BadSource, match="is declared as"):
        open_estimator(wine_pipeline(), None, ImportJob("m", inputs=(declared,)))


def test_examples_have_to_fit(tmp_path: Path) -> None:
    source = open_estimator(wine_pipeline(), None, JOB)
    np.save(tmp_path / "rows.npy", np.zeros((3, 12), np.float32))
    with pytest.raises(BadSource, match="is 13, the example holds 12"):
        read([tmp_path / "rows.npy"], source.facts.interface)


def test_a_model_of_another_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    content = pickle.dumps(linear_model.Ridge().fit(*data("diabetes")))
    import sklearn

    own = sklearn.__version__.encode()
    path.write_bytes(content.replace(own, b"0" * len(own)))
    assert any("saved with scikit-learn 00000" in note for note in opened(path, trust_pickle=True).facts.notes)
