"""XGBoost and LightGBM: native files of every objective are served as the boosters answered, missing values too."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from sklearn import datasets  # noqa: E402
from tests.convert import tabular  # noqa: E402
from tests.support.serving import RunningServer  # noqa: E402

from tensorquay_convert.errors import BadSource, Unsupported  # noqa: E402
from tensorquay_convert.job import DeclaredInput, ImportJob, SourceKind  # noqa: E402
from tensorquay_convert.sources.boosting import BoostingConverter, open_model  # noqa: E402
from tensorquay_convert.sources.boosting_graph import below  # noqa: E402
from tensorquay_convert.sources.boosting_ubjson import need_whole  # noqa: E402

pytestmark = pytest.mark.frameworks

JOB = ImportJob("model")
CLASSIFIED = ("label", "probabilities")


@functools.cache
def wine() -> tuple[Any, Any, Any]:
    """Features with a fifth of the values missing, the class, and the alcohol as something positive to predict."""
    rows, target = datasets.load_wine(return_X_y=True)
    rows = rows.astype(np.float32)
    alcohol = rows[:, 0].copy()
    rows[:, ::2] -= rows[:, ::2].mean(0)
    rows[np.random.default_rng(0).random(rows.shape) < 0.2] = np.nan
    return rows, target, alcohol


def by_xgboost(rounds: int = 8, **parameters: Any) -> Any:
    rows, target, alcohol = wine()
    objective = parameters["objective"]
    wanted = target if "multi" in objective else target == 1 if "binary" in objective else alcohol
    wanted = target / 2 if objective == "reg:logistic" else wanted
    return xgboost.train({"nthread": 1, **parameters}, xgboost.DMatrix(rows, wanted), rounds)


def by_lightgbm(rounds: int = 8, **parameters: Any) -> Any:
    rows, target, alcohol = wine()
    objective = parameters["objective"]
    wanted = target if "multiclass" in objective else target == 1 if objective == "binary" else alcohol
    wanted = target / 2 if "entropy" in objective else wanted
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, **parameters}
    return lightgbm.train(settings, lightgbm.Dataset(rows, wanted), rounds)


def saved(model: Any, path: Path) -> Path:
    model.save_model(path)
    return path


def opened(path: Path, **job: Any) -> Any:
    kind = SourceKind.LIGHTGBM if path.suffix == ".txt" else SourceKind.XGBOOST
    return BoostingConverter().open(ImportJob(str(path), **job), kind, tabular.say)


@pytest.mark.parametrize(
    ("parameters", "outputs"),
    [
        ({"objective": "multi:softprob", "num_class": 3}, CLASSIFIED),
        ({"objective": "multi:softmax", "num_class": 3}, CLASSIFIED),
        ({"objective": "binary:logistic"}, CLASSIFIED),
        ({"objective": "binary:logistic", "base_score": 0.9}, CLASSIFIED),
        ({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5, "one_drop": 1}, CLASSIFIED),
        ({"objective": "binary:logitraw"}, ("variable",)),
        ({"objective": "binary:hinge"}, ("variable",)),
        ({"objective": "reg:squarederror"}, ("variable",)),
        ({"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5}, ("variable",)),
        ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, ("variable",)),
        ({"objective": "reg:logistic"}, ("variable",)),
        ({"objective": "count:poisson"}, ("variable",)),
        ({"objective": "reg:gamma"}, ("variable",)),
    ],
)
def test_every_objective_of_xgboost(parameters: Any, outputs: Any, tmp_path: Path) -> None:
    suffix = "json" if outputs == CLASSIFIED else "ubj"
    source = opened(saved(by_xgboost(**parameters), tmp_path / f"model.{suffix}"))
    assert tuple(each.name for each in source.facts.interface.outputs) == outputs
    tabular.prove(source, tmp_path, wine()[0], atol=2e-5)


@pytest.mark.parametrize(
    ("parameters", "outputs"),
    [
        ({"objective": "multiclass", "num_class": 3}, CLASSIFIED),
        ({"objective": "multiclassova", "num_class": 3, "sigmoid": 2.0}, CLASSIFIED),
        ({"objective": "binary"}, CLASSIFIED),
        ({"objective": "binary", "sigmoid": 0.7, "boosting": "dart"}, CLASSIFIED),
        ({"objective": "binary", "use_missing": False}, CLASSIFIED),
        ({"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}, CLASSIFIED),
        ({"objective": "regression"}, ("variable",)),
        ({"objective": "regression", "reg_sqrt": True}, ("variable",)),
        ({"objective": "poisson"}, ("variable",)),
        ({"objective": "cross_entropy"}, ("variable",)),
        ({"objective": "cross_entropy_lambda"}, ("variable",)),
    ],
)
def test_every_objective_of_lightgbm(parameters: Any, outputs: Any, tmp_path: Path) -> None:
    source = opened(saved(by_lightgbm(**parameters), tmp_path / "model.txt"))
    assert tuple(each.name for each in source.facts.interface.outputs) == outputs
    tabular.prove(source, tmp_path, wine()[0], atol=2e-5)


def test_missing_values_are_among_the_proofs_inputs(tmp_path: Path) -> None:
    from tensorquay_convert.proof import inputs

    source = opened(saved(by_xgboost(objective="binary:logistic"), tmp_path / "model.ubj"))
    case = inputs.Drawn("m", {"batch": 8}, inputs.Style.MISSING)
    assert inputs.Style.MISSING in inputs.styles(source.facts.interface)
    drawn = inputs.draw(source.facts.interface, case, 0)["input"]
    assert 5 < np.isnan(drawn).sum() < 60
    usual = inputs.draw(source.facts.interface, inputs.Drawn("u", {"batch": 8}), 0)["input"]
    np.testing.assert_array_equal(drawn[~np.isnan(drawn)], usual[~np.isnan(drawn)])
    for column, (low, high) in zip(usual.T, source.facts.interface.inputs[0].values.columns, strict=True):
        assert low <= column.min() <= column.max() <= high + 1e-3 * abs(high)


def test_rounds_after_the_best_one_do_not_count(tmp_path: Path) -> None:
    rows, target, _ = wine()
    half = xgboost.DMatrix(rows[::2], target[::2] == 1), xgboost.DMatrix(rows[1::2], target[1::2] == 1)
    booster = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, "eta": 1.5},
        half[0],
        60,
        evals=[(half[1], "other")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    source = opened(saved(booster, tmp_path / "model.json"))
    assert any("rounds up to the best one" in note for note in source.facts.notes)
    assert f" {booster.best_iteration + 1} trees" in source.facts.shown
    tabular.prove(source, tmp_path, rows)


def test_estimators_in_hand_keep_their_classes(tmp_path: Path) -> None:
    rows, target, _ = wine()
    names = np.array(["red", "rosé", "white"])
    source = open_model(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(rows, names[target]), None, JOB)
    assert source.facts.labels == {"probabilities": tuple(names)}
    tabular.prove(source, tmp_path, rows)
    source = open_model(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(rows, target * 5 + 3), None, JOB)
    path = tabular.prove(source, tmp_path, rows)
    assert set(tabular.run_onnx(path, {"input": rows})["label"].tolist()) <= {3, 8, 13}


def test_the_sums_of_leaves_can_be_looked_into(tmp_path: Path) -> None:
    source = opened(saved(by_xgboost(objective="multi:softprob", num_class=3), tmp_path / "model.ubj"))
    found = source.values_inside({"input": wine()[0][:4]}, ["raw_scores", "other"])
    assert {name: value.shape for name, value in found.items()} == {"raw_scores": (4, 3)}


@given(st.floats(-1e30, 1e30), st.integers(-3, 3))
@settings(max_examples=300)
def test_a_threshold_in_float32_asks_the_same_of_every_float32(threshold: float, steps: int) -> None:
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.copysign(np.inf, steps)))
    assert (float(value) <= threshold) == bool(value <= np.float32(below(threshold)))


def test_from_files_to_a_server(tmp_path: Path, serve: Callable[..., RunningServer]) -> None:
    rows = np.nan_to_num(wine()[0][::20])
    trees = {
        "xgboost": by_xgboost(objective="multi:softprob", num_class=3),
        "lightgbm": by_lightgbm(objective="multiclass", num_class=3),
    }
    files = {
        "xgboost": saved(trees["xgboost"], tmp_path / "x.ubj"),
        "lightgbm": saved(trees["lightgbm"], tmp_path / "l.txt"),
    }
    results, told = tabular.imported_and_served(files, tmp_path / "repo", serve, rows)
    for name, expected in (
        ("xgboost", trees["xgboost"].predict(xgboost.DMatrix(rows))),
        ("lightgbm", trees["lightgbm"].predict(rows)),
    ):
        assert (results[name].kind.value, results[name].proof["passed"]) == (name, True)
        np.testing.assert_allclose(told[name]["probabilities"], expected, atol=1e-5)
        np.testing.assert_array_equal(told[name]["label"], expected.argmax(1))


def test_a_trusted_pickle_of_a_booster_is_one(tmp_path: Path) -> None:
    from tensorquay_convert.sources.sklearn import SklearnConverter

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(xgboost.XGBClassifier(n_estimators=3).fit(*wine()[:2])))
    job = ImportJob(str(path), trust_pickle=True)
    source = SklearnConverter().open(job, SourceKind.PICKLE, tabular.say)
    assert (source.facts.kind, source.facts.files) == (SourceKind.PICKLE, (path,))
    tabular.prove(source, tmp_path, wine()[0])


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97])
@pytest.mark.parametrize("suffix", ["json", "ubj", "txt"])
def test_a_file_cut_short_is_refused(suffix: str, keep: float, tmp_path: Path) -> None:
    model = by_lightgbm(objective="binary") if suffix == "txt" else by_xgboost(objective="binary:logistic")
    path = saved(model, tmp_path / f"model.{suffix}")
    whole = path.read_bytes()
    end = whole.index(b"end of trees") if suffix == "txt" else len(whole)
    path.write_bytes(whole[: int(end * keep)])
    with pytest.raises(BadSource, match="again"):
        opened(path)


def test_every_cut_of_a_ubjson_is_seen_before_the_library_reads_it(tmp_path: Path) -> None:
    whole = saved(by_xgboost(2, objective="binary:logistic", max_depth=2), tmp_path / "model.ubj").read_bytes()
    need_whole(whole, "model.ubj")
    for end in range(2, len(whole), 3):
        with pytest.raises(BadSource):
            need_whole(whole[:end], "model.ubj")
    with pytest.raises(BadSource, match="goes on after its end"):
        need_whole(whole + b"{", "model.ubj")
    with pytest.raises(BadSource, match="nested too deep"):
        need_whole(b"{L" + b"\0" * 8 + b"[" * 500, "model.ubj")


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    for name, content in (
        ("m.json", b'{"learner": {}}'),
        ("m.ubj", b"{L\x00"),
        ("m.txt", b"tree\nversion=v4\n\nend of trees\n"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadSource):
            opened(tmp_path / name)


def test_splits_by_category_are_refused_by_name(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    rows[:, 1] = np.arange(200) % 8
    target = np.isin(rows[:, 1], (1, 4, 6)).astype(float)
    boosted = xgboost.train(
        {"objective": "reg:squarederror", "nthread": 1},
        xgboost.DMatrix(
            rows, target, feature_types=["q", "c", "q"], feature_names=["a", "town", "b"], enable_categorical=True
        ),
        3,
    )
    with pytest.raises(Unsupported, match=r"split by category.*'town'"):
        opened(saved(boosted, tmp_path / "model.ubj"))
    data = lightgbm.Dataset(rows, target, categorical_feature=[1], feature_name=["a", "town", "b"])
    settings = {"objective": "regression", "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1, "num_threads": 1}
    with pytest.raises(Unsupported, match=r"split by category.*'town'"):
        opened(saved(lightgbm.train(settings, data, 3), tmp_path / "model.txt"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: by_xgboost(objective="reg:squarederror", booster="gblinear"), "booster 'gblinear'"),
        (lambda: by_lightgbm(objective="regression", linear_tree=True), "a linear tree"),
        (lambda: by_lightgbm(objective="binary", zero_as_missing=True), "zeros that stand for missing values"),
        (
            lambda: xgboost.XGBClassifier(n_estimators=2, missing=-9.0).fit(*wine()[:2]),
            "takes -9.0 for a missing value",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*gblinear.*:UserWarning")
def test_what_has_no_exact_onnx_is_named(model: Callable[[], Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        open_model(model(), None, JOB)


def test_an_unknown_objective_is_named(tmp_path: Path) -> None:
    path = saved(by_xgboost(objective="reg:squarederror"), tmp_path / "model.json")
    plain = json.loads(path.read_text())
    from tensorquay_convert.sources.boosting_models import from_xgboost

    plain["learner"]["objective"]["name"] = "reg:novel"
    with pytest.raises(Unsupported, match="objective 'reg:novel'"):
        from_xgboost(plain, None)


def test_what_is_declared_or_asked_for_has_to_be_there(tmp_path: Path) -> None:
    path = saved(by_xgboost(objective="binary:logistic"), tmp_path / "model.json")
    with pytest.raises(BadSource, match="no output 'scores'"):
        opened(path, outputs=("scores",))
    with pytest.raises(BadSource, match="declared is another"):
        opened(path, inputs=(DeclaredInput("x", "float64", ("batch", 13)),))
    source = opened(path, inputs=(DeclaredInput("x", "float32", ("batch", 13)),), outputs=("probabilities",))
    tabular.prove(source, tmp_path, wine()[0])
