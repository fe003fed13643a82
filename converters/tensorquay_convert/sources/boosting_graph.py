"""Trees of XGBoost and LightGBM as one ONNX TreeEnsembleRegressor, and what is done to its sums, in plain operators.

We write the graph ourselves: the usual exporter guesses the objective of a bare booster from the statistics in its
leaves, and leaves out the weights of DART. Here every rule is read from the model's own file. Rules: the two projects'
documentation and model schemas, and ONNX's ai.onnx.ml.TreeEnsembleRegressor (operator set 3).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tensorquay_convert.tensors import BATCH, Array, TensorSpec

OPSET = 18
ML_OPSET = 3
RAW = "raw_scores"
"""The value in the graph that holds the sums of leaves, before anything is done to them."""


class Link(enum.Enum):
    """What becomes of the sums."""

    NONE = "none"
    EXP = "exp"
    SIGMOID = "sigmoid"
    LOG1P_EXP = "log(1 + exp)"
    SIGNED_SQUARE = "signed square"
    STEP = "above 0"
    BINARY = "two classes"
    SOFTMAX = "classes, softmax"
    ONE_VS_ALL = "classes, each for itself"


CLASSES = (Link.BINARY, Link.SOFTMAX, Link.ONE_VS_ALL)


@dataclass(slots=True)
class Forest:
    """Nodes of all trees, in the form of ONNX's attributes. Filled by one reader, then only read."""

    targets: int
    trees: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    yes: list[int] = field(default_factory=list)
    no: list[int] = field(default_factory=list)
    missing_yes: list[int] = field(default_factory=list)
    leaf_trees: list[int] = field(default_factory=list)
    leaf_nodes: list[int] = field(default_factory=list)
    leaf_targets: list[int] = field(default_factory=list)
    leaf_weights: list[float] = field(default_factory=list)

    def split(
        self, tree: int, node: int, feature: int, mode: str, threshold: float, yes: int, no: int, *, missing_yes: bool
    ) -> None:
        """A node that asks whether `feature` is below (BRANCH_LT) or at most (BRANCH_LEQ) `threshold`."""
        self._node(tree, node, mode, feature, threshold, yes, no, missing_yes=missing_yes)

    def leaf(self, tree: int, node: int, target: int, weight: float) -> None:
        """A node that adds `weight` to column `target`."""
        self._node(tree, node, "LEAF", 0, 0.0, 0, 0, missing_yes=False)
        self.leaf_trees.append(tree)
        self.leaf_nodes.append(node)
        self.leaf_targets.append(target)
        self.leaf_weights.append(float(np.float32(weight)))

    def _node(
        self, tree: int, node: int, mode: str, feature: int, threshold: float, yes: int, no: int, *, missing_yes: bool
    ) -> None:
        self.trees.append(tree)
        self.nodes.append(node)
        self.modes.append(mode)
        self.features.append(feature)
        self.thresholds.append(threshold)
        self.yes.append(yes)
        self.no.append(no)
        self.missing_yes.append(int(missing_yes))


@dataclass(frozen=True, slots=True)
class Boosted:
    """A model as we understand it.

    Args:
        base: added to the sums, one for each target.
        slope: of the sigmoid. classes: what a label of 0, 1, 2 … stands for; None: itself.
    """

    forest: Forest
    base: tuple[float, ...]
    link: Link
    features: int
    slope: float = 1.0
    classes: tuple[int | str, ...] | None = None

    @property
    def columns(self) -> int:
        """Of the probabilities, or of the prediction."""
        return 2 if self.link is Link.BINARY else self.forest.targets

    @property
    def label_dtype(self) -> str:
        """ "string" when the classes are texts."""
        texts = self.classes is not None and any(isinstance(each, str) for each in self.classes)
        return "string" if texts else "int64"

    def outputs(self) -> tuple[TensorSpec, ...]:
        """`label` and `probabilities` of a classifier, `variable` of anything else."""
        if self.link in CLASSES:
            return (
                TensorSpec("label", self.label_dtype, (BATCH,)),
                TensorSpec("probabilities", "float32", (BATCH, self.columns)),
            )
        return (TensorSpec("variable", "float32", (BATCH, self.columns)),)


def below(threshold: float) -> float:
    """The largest float32 that is not above a float64: for float32 values, `x <= t` says the same of both."""
    limit = float(np.finfo(np.float32).max)
    if not -limit <= threshold <= limit:
        return limit if threshold > 0 else -float("inf")
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))


def range_of_splits(features: Array, thresholds: Array, count: int) -> tuple[Array, Array]:
    """The range of thresholds by feature, a fifth wider; -1 to 1 for features that nothing splits."""
    usable = np.isfinite(thresholds) & (np.abs(thresholds) < 1e30)
    features, thresholds = features[usable], thresholds[usable]
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, features, thresholds)
    np.maximum.at(high, features, thresholds)
    unused = low > high
    low[unused], high[unused] = -1.0, 1.0
    margin = 0.2 * (high - low) + 0.01 * np.abs(high)
    return low - margin, high + margin


def write(model: Boosted, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], opset: int) -> Any:
    """The model in ONNX."""
    (given,) = inputs
    forest = model.forest
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            [given.name],
            [RAW],
            name="trees",
            domain="ai.onnx.ml",
            n_targets=forest.targets,
            aggregate_function="SUM",
            post_transform="NONE",
            base_values=list(model.base),
            nodes_treeids=forest.trees,
            nodes_nodeids=forest.nodes,
            nodes_featureids=forest.features,
            nodes_modes=forest.modes,
            nodes_values=forest.thresholds,
            nodes_truenodeids=forest.yes,
            nodes_falsenodeids=forest.no,
            nodes_missing_value_tracks_true=forest.missing_yes,
            target_treeids=forest.leaf_trees,
            target_nodeids=forest.leaf_nodes,
            target_ids=forest.leaf_targets,
            target_weights=forest.leaf_weights,
        )
    ]
    constants: list[Any] = []
    if model.link in CLASSES:
        _classify(model, nodes, constants)
    else:
        _link(model, nodes, constants)
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "string": TensorProto.STRING}
    declared = [
        [helper.make_tensor_value_info(spec.name, types[spec.dtype], list(spec.shape or ())) for spec in specs]
        for specs in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "model", declared[0], declared[1], constants)
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8, producer_name="tensorquay")


def _classify(model: Boosted, nodes: list[Any], constants: list[Any]) -> None:
    if model.link is Link.BINARY:
        constants += [_floats("one", [1.0]), _floats("half", [0.5]), _floats("slope", [model.slope])]
        nodes += [
            helper.make_node("Mul", [RAW, "slope"], ["scaled"], name="scale"),
            helper.make_node("Sigmoid", ["scaled"], ["positive"], name="sigmoid"),
            helper.make_node("Sub", ["one", "positive"], ["negative"], name="complement"),
            helper.make_node("Concat", ["negative", "positive"], ["probabilities"], name="both", axis=1),
            helper.make_node("Greater", ["positive", "half"], ["is_positive"], name="decide"),
            helper.make_node("Cast", ["is_positive"], ["number"], name="number", to=TensorProto.INT64),
        ]
    else:
        if model.link is Link.SOFTMAX:
            nodes.append(helper.make_node("Softmax", [RAW], ["probabilities"], name="softmax", axis=1))
        else:
            constants.append(_floats("slope", [model.slope]))
            nodes += [
                helper.make_node("Mul", [RAW, "slope"], ["scaled"], name="scale"),
                helper.make_node("Sigmoid", ["scaled"], ["probabilities"], name="sigmoid"),
            ]
        nodes.append(helper.make_node("ArgMax", ["probabilities"], ["number"], name="decide", axis=1, keepdims=1))
    constants.append(helper.make_tensor("flat", TensorProto.INT64, [1], [-1]))
    plain = model.classes is None or list(model.classes) == list(range(len(model.classes)))
    nodes.append(helper.make_node("Reshape", ["number", "flat"], ["label" if plain else "place"], name="flatten"))
    if not plain and model.classes is not None:
        texts = model.label_dtype == "string"
        values = [str(each).encode() for each in model.classes] if texts else [int(each) for each in model.classes]
        kind = TensorProto.STRING if texts else TensorProto.INT64
        constants.append(helper.make_tensor("classes", kind, [len(values)], values))
        nodes.append(helper.make_node("Gather", ["classes", "place"], ["label"], name="name_classes"))


def _link(model: Boosted, nodes: list[Any], constants: list[Any]) -> None:
    constants += [_floats("slope", [model.slope]), _floats("zero", [0.0])]
    simple = {Link.NONE: "Identity", Link.EXP: "Exp", Link.LOG1P_EXP: "Softplus"}
    if model.link in simple:
        nodes.append(helper.make_node(simple[model.link], [RAW], ["variable"], name="link"))
    elif model.link is Link.SIGMOID:
        nodes.append(helper.make_node("Mul", [RAW, "slope"], ["scaled"], name="scale"))
        nodes.append(helper.make_node("Sigmoid", ["scaled"], ["variable"], name="link"))
    elif model.link is Link.SIGNED_SQUARE:
        nodes.append(helper.make_node("Abs", [RAW], ["size"], name="size"))
        nodes.append(helper.make_node("Mul", [RAW, "size"], ["variable"], name="link"))
    else:
        nodes.append(helper.make_node("Greater", [RAW, "zero"], ["above"], name="decide"))
        nodes.append(helper.make_node("Cast", ["above"], ["variable"], name="link", to=TensorProto.FLOAT))


def _floats(name: str, values: list[float]) -> Any:
    return onnx.numpy_helper.from_array(np.array(values, np.float32), name)
