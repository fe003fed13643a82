"""Read what XGBoost and LightGBM learned, from their own dumps, into `boosting_graph.Boosted`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.sources.boosting_graph import Boosted, Forest, Link, below

_XGBOOST = {
    "binary:logistic": Link.BINARY,
    "binary:logitraw": Link.NONE,
    "binary:hinge": Link.STEP,
    "multi:softprob": Link.SOFTMAX,
    "multi:softmax": Link.SOFTMAX,
    "reg:logistic": Link.SIGMOID,
    "count:poisson": Link.EXP,
    "reg:gamma": Link.EXP,
    "reg:tweedie": Link.EXP,
    "survival:cox": Link.EXP,
    "survival:aft": Link.EXP,
}
_XGBOOST_PLAIN = (
    "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:quantileerror",
    "reg:expectileerror", "rank:pairwise", "rank:ndcg", "rank:map",
)  # fmt: skip
_LOGIT = ("binary:logistic", "reg:logistic")
"""Their base score is stored as a probability."""

_LIGHTGBM = {
    "binary": Link.BINARY,
    "multiclass": Link.SOFTMAX,
    "multiclassova": Link.ONE_VS_ALL,
    "poisson": Link.EXP,
    "gamma": Link.EXP,
    "tweedie": Link.EXP,
    "cross_entropy": Link.SIGMOID,
    "cross_entropy_lambda": Link.LOG1P_EXP,
}
_LIGHTGBM_PLAIN = (
    "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom", "",
)  # fmt: skip
_ZERO = 1e-35
"""LightGBM calls a smaller number zero."""


def from_xgboost(dump: Mapping[str, Any], classes: tuple[int | str, ...] | None) -> tuple[Boosted, int | None]:
    """The model of a Booster's JSON, and how many rounds of it count (early stopping); None: all.

    Raises: Unsupported naming what has no ONNX; KeyError, IndexError, TypeError, ValueError for a broken dump.
    """
    learner = dump["learner"]
    objective = str(learner["objective"]["name"])
    link = Link.NONE if objective in _XGBOOST_PLAIN else _XGBOOST.get(objective)
    if link is None:
        raise _unsupported(f"XGBoost's objective '{objective}'", "objective")
    booster = learner["gradient_booster"]
    name = str(booster["name"])
    if name not in {"gbtree", "dart"}:
        raise _unsupported(f"XGBoost's booster '{name}'", "booster")
    weights: Sequence[float] | None = None
    if name == "dart":
        weights, booster = booster["weight_drop"], booster["gbtree"]
    model = booster["model"]
    shape = learner["learner_model_param"]
    targets = max(1, int(shape["num_class"]), int(shape.get("num_target", 1)))
    best = learner.get("attributes", {}).get("best_iteration")
    rounds = None if best is None else int(best) + 1
    trees = model["trees"]
    if rounds is not None and "iteration_indptr" in model and rounds < len(model["iteration_indptr"]):
        trees = trees[: int(model["iteration_indptr"][rounds])]
    forest = Forest(targets)
    names = learner.get("feature_names") or []
    for at, tree in enumerate(trees):
        if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise _unsupported(
                "a tree whose leaves hold several numbers (multi_strategy='multi_output_tree')", f"tree {at}"
            )
        scale = 1.0 if weights is None else float(weights[at])
        _xgboost_tree(forest, at, tree, int(model["tree_info"][at]), scale, names)
    base = [float(each) for each in json.loads(_listed(shape["base_score"]))]
    if objective in _LOGIT:
        base = [-math.log(1.0 / each - 1.0) for each in base]
    elif link is Link.EXP:
        base = [math.log(each) for each in base]
    base = base * targets if len(base) == 1 else base
    return Boosted(forest, tuple(base), link, int(shape["num_feature"]), classes=classes), rounds


def _xgboost_tree(
    forest: Forest, at: int, tree: Mapping[str, Any], target: int, scale: float, names: Sequence[str]
) -> None:
    kinds = tree.get("split_type") or [0] * len(tree["left_children"])
    for node, left in enumerate(tree["left_children"]):
        condition, feature = float(tree["split_conditions"][node]), int(tree["split_indices"][node])
        if left == -1:
            forest.leaf(at, node, target, condition * scale)
            continue
        if kinds[node]:
            shown = names[feature] if feature < len(names) else f"f{feature}"
            raise _unsupported(f"a split by category (feature '{shown}')", f"tree {at}, node {node}")
        right = int(tree["right_children"][node])
        toward = bool(tree["default_left"][node])
        forest.split(at, node, feature, "BRANCH_LT", condition, int(left), right, missing_yes=toward)


def _listed(text: str) -> str:
    """Before 3.0 XGBoost stored one number, since then a list of them."""
    return text if text.startswith("[") else f"[{text}]"


def from_lightgbm(dump: Mapping[str, Any], classes: tuple[int | str, ...] | None) -> Boosted:
    """The model of a Booster's dump.

    Raises: Unsupported naming what has no ONNX; KeyError, TypeError, ValueError for a broken dump.
    """
    objective, _, rest = str(dump.get("objective", "")).partition(" ")
    settings = dict(each.partition(":")[::2] for each in rest.split())
    link = Link.NONE if objective in _LIGHTGBM_PLAIN else _LIGHTGBM.get(objective)
    if link is None:
        raise _unsupported(f"LightGBM's objective '{objective}'", "objective")
    if objective.startswith("regression") and "sqrt" in settings:
        link = Link.SIGNED_SQUARE
    targets = int(dump["num_tree_per_iteration"])
    trees = dump["tree_info"]
    scale = targets / len(trees) if dump.get("average_output") and trees else 1.0
    forest = Forest(targets)
    for at, tree in enumerate(trees):
        _lightgbm_tree(forest, at, tree["tree_structure"], scale, dump["feature_names"])
    slope = float(settings.get("sigmoid", 1.0)) if link in {Link.BINARY, Link.ONE_VS_ALL} else 1.0
    return Boosted(
        forest, (0.0,) * targets, link, int(dump["max_feature_idx"]) + 1, slope=slope, classes=classes
    )  # fmt: skip


def _lightgbm_tree(forest: Forest, at: int, root: Mapping[str, Any], scale: float, names: Sequence[str]) -> None:
    waiting: list[tuple[int, Mapping[str, Any]]] = [(0, root)]
    used = 1
    while waiting:
        number, node = waiting.pop()
        if "split_feature" not in node:
            if "leaf_const" in node or "leaf_coeff" in node:
                raise _unsupported("a linear tree (linear_tree=true)", f"tree {at}")
            forest.leaf(at, number, at % forest.targets, float(node["leaf_value"]) * scale)
            continue
        feature = int(node["split_feature"])
        where = f"tree {at}, node {node.get('split_index', number)}"
        if node["decision_type"] != "<=":
            raise _unsupported(f"a split by category (feature '{names[feature]}')", where)
        threshold = float(node["threshold"])
        left_of_zero = threshold >= 0
        missing = str(node["missing_type"])
        toward = bool(node["default_left"])
        if missing == "None":
            # NaN is taken for 0.
            toward = left_of_zero
        elif missing == "Zero" and toward != (threshold >= _ZERO if toward else threshold >= -_ZERO):
            raise _unsupported(f"zeros that stand for missing values (feature '{names[feature]}')", where)
        yes, no = used, used + 1
        used += 2
        forest.split(at, number, feature, "BRANCH_LEQ", below(threshold), yes, no, missing_yes=toward)
        waiting += [(yes, node["left_child"]), (no, node["right_child"])]


def _unsupported(what: str, where: str) -> Unsupported:
    return Unsupported(
        f"the model has {what}, which has no exact ONNX here ({where})",
        remedy="train it with numeric features and the usual objectives and boosters, or encode categories before it",
        facts={"operator": what, "node": where},
    )
