"""scikit-learn to ONNX with skl2onnx: one call, then the outputs put into the form the interface has."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import skl2onnx
from skl2onnx._supported_operators import _get_sklearn_operator_name
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.sources.sklearn_answers import Answer
from tensorquay_convert.sources.sklearn_inputs import SENDS_MISSING, Taken, first_step, parts_of, steps
from tensorquay_convert.tensors import TensorSpec

OPSET = 21
ML_OPSET = 3
"""The newest operator sets that both skl2onnx writes and every ONNX Runtime in use loads."""

_TYPES = {"float32": FloatTensorType, "float64": DoubleTensorType, "string": StringTensorType}
_ONNX = {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE,
         "int64": onnx.TensorProto.INT64, "string": onnx.TensorProto.STRING}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Converted:
    """The model in ONNX. `made_by`: for each step of a plain pipeline, by its place, the value it gives."""

    model: Any
    made_by: Mapping[str, int]


def refuse_unsupported(model: Any) -> None:
    """Find a part that skl2onnx has no conversion for. Raises: Unsupported naming it and its step."""
    for where, part in _parts(model, ""):
        name = type(part).__name__
        try:
            alias = _get_sklearn_operator_name(type(part))
            get_shape_calculator(alias)
            get_converter(alias)
        except (RuntimeError, ValueError, KeyError) as exc:
            raise Unsupported(
                f"no ONNX is known for {name}{f', step {where!r} of the pipeline' if where else ''}",
                remedy="replace it, or save the model without it and do that part in the client",
                facts={"operator": name, "node": where or name},
            ) from exc


def convert(model: Any, taken: Taken, answers: Sequence[Answer], kept: Sequence[str], opset: int | None) -> Converted:
    """The fitted model in ONNX, its inputs as `taken` has them, of the outputs `answers` those in `kept`.

    Raises: Unsupported.
    """
    refuse_unsupported(model)
    plain = copy.deepcopy(model)
    _number_columns(plain)
    _simplify(plain)
    wanted = OPSET if opset is None else opset
    if wanted > skl2onnx.__max_supported_opset__:
        raise Unsupported(
            f"skl2onnx {skl2onnx.__version__} writes operator sets up to {skl2onnx.__max_supported_opset__}, "
            f"asked for is {wanted}",
            remedy="leave --opset out",
        )
    kinds = [(spec.name, _TYPES[spec.dtype]([None, spec.shape[1] if spec.shape else 1])) for spec in taken.specs]
    try:
        with warnings.catch_warnings():
            # skl2onnx warns about what the proof decides: regular expressions, casts, features of other versions.
            warnings.simplefilter("ignore")
            made, topology = skl2onnx.convert_sklearn(
                plain,
                "model",
                initial_types=kinds,
                target_opset={"": wanted, "ai.onnx.ml": ML_OPSET},
                options=_options(plain),
                intermediate=True,
            )
    except Exception as exc:  # what converters raise has no common base
        said = " ".join(str(exc).split())[:300]
        culprit = next((f"step '{where}', " for where, part in _parts(plain, "") if type(part).__name__ in said), "")
        raise Unsupported(
            f"skl2onnx does not convert {type(model).__name__}: {culprit}{type(exc).__name__}: {said}",
            remedy="see what skl2onnx supports of this estimator, or save the model without that part",
            facts={"operator": type(model).__name__},
        ) from exc
    _send_missing(made.graph, plain)
    # What skl2onnx writes for libsvm's machines begins with the positive class.
    _dress(made, taken.specs, answers, 0 if type(_last(plain)).__name__ in {"SVC", "NuSVC"} else 1)
    _keep(made.graph, kept)
    return Converted(made, _made_by(plain, topology))


def _parts(model: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Everything inside a model that has to be converted by itself, with the path of step names to it."""
    inner = f"{where}/" if where else ""
    if hasattr(model, "steps"):
        for name, step in steps(model):
            if step != "passthrough":
                yield from _parts(step, inner + name)
        return
    yield where, model
    if hasattr(model, "transformers_") and hasattr(model, "_transformer_to_input_indices"):
        for name, part, _ in parts_of(model):
            yield from _parts(part, inner + name)
    elif hasattr(model, "transformer_list"):
        for name, part in model.transformer_list:
            if not isinstance(part, str):
                yield from _parts(part, inner + name)
    elif isinstance(getattr(model, "named_estimators_", None), Mapping):
        for name, part in model.named_estimators_.items():
            if not isinstance(part, str):
                yield from _parts(part, inner + name)
    elif hasattr(model, "best_estimator_"):
        yield from _parts(model.best_estimator_, inner + "best_estimator_")


def _number_columns(model: Any) -> None:
    """In a copy: columns of a ColumnTransformer by number, whatever they were chosen by (names, masks, functions)."""
    first = first_step(model)
    if not hasattr(first, "transformers_") or not hasattr(first, "_transformer_to_input_indices"):
        return
    numbers = first._transformer_to_input_indices
    first.transformers_ = [(name, part, list(numbers.get(name, []))) for name, part, _ in first.transformers_]


def _simplify(model: Any) -> None:
    """In a copy: settings that do not change what we ask for, in the only form that skl2onnx knows."""
    for _, part in _parts(model, ""):
        if type(part).__name__ == "VotingClassifier":
            part.flatten_transform = False
        elif type(part).__name__ == "KBinsDiscretizer" and part.encode == "onehot":
            part.encode = "onehot-dense"


def _send_missing(graph: Any, model: Any) -> None:
    """Forests and trees: NaN goes where scikit-learn sends it; skl2onnx has it go right everywhere."""
    nodes = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    last = _last(model)
    if len(nodes) != 1 or type(last).__name__ not in SENDS_MISSING:
        return
    trees = [last.tree_] if hasattr(last, "tree_") else [each.tree_ for each in last.estimators_]
    given = {each.name: each for each in nodes[0].attribute}
    numbers = zip(given["nodes_treeids"].ints, given["nodes_nodeids"].ints, strict=True)
    modes = given["nodes_modes"].strings
    tracks = [
        int(mode != b"LEAF" and bool(trees[tree].missing_go_to_left[node]))
        for (tree, node), mode in zip(numbers, modes, strict=True)
    ]
    kept = [each for each in nodes[0].attribute if each.name != "nodes_missing_value_tracks_true"]
    del nodes[0].attribute[:]
    nodes[0].attribute.extend([*kept, onnx.helper.make_attribute("nodes_missing_value_tracks_true", tracks)])


def _last(model: Any) -> Any:
    while hasattr(model, "steps") and not isinstance(model.steps[-1][1], str):
        model = model.steps[-1][1]
    return model


def _options(model: Any) -> dict[int, dict[str, Any]]:
    """Probabilities as a matrix instead of a list of dictionaries; texts in a locale that every machine has."""
    found: dict[int, dict[str, Any]] = {}
    last = _last(model)
    allowed = get_converter(_get_sklearn_operator_name(type(last))).get_allowed_options()
    # Without an entry of its own, a pipeline's classifier gets the choice even when it has none (LinearSVC).
    found[id(last)] = {"zipmap": False} if allowed and "zipmap" in allowed else {}
    for _, part in _parts(model, ""):
        if type(part).__name__ in {"CountVectorizer", "TfidfVectorizer"}:
            found[id(part)] = {"locale": "C"}
    return found


def _made_by(model: Any, topology: Any) -> dict[str, int]:
    """Values in the graph by the number of the pipeline's step that gives them; the last step's are outputs."""
    if not hasattr(model, "steps"):
        return {}
    places = {id(step): at for at, (_, step) in enumerate(model.steps[:-1]) if not isinstance(step, str)}
    found: dict[str, int] = {}
    for operator in topology.unordered_operator_iterator():
        at = places.get(id(operator.raw_operator))
        if at is not None and len(operator.outputs) == 1:
            found[operator.outputs[0].onnx_name] = at
    return found


def _dress(made: Any, specs: Sequence[TensorSpec], answers: Sequence[Answer], positive: int) -> None:
    """Outputs in the interface's names, ranks and dtypes, each by nodes of its own; inputs with their axes' names.

    Args: positive: which of two columns of scores has the decision function's sign.
    """
    graph = made.graph
    there = list(graph.output)
    if len(there) < len(answers):
        raise Unsupported(f"skl2onnx gives {len(there)} outputs, the model has {len(answers)}")
    inner = {name for node in graph.node for name in (*node.input, *node.output)}
    for found in there[: len(answers)]:
        _rename(graph, found.name, _free(f"{found.name}_raw", inner))
    for at, (answer, found) in enumerate(zip(answers, there, strict=False)):
        value = found.name
        kind = found.type.tensor_type.elem_type
        columns = [axis.dim_value for axis in found.type.tensor_type.shape.dim][1:]
        if answer.name == "scores" and answer.method == "decision_function" and columns == [2]:
            # The two columns of a binary classifier are the same number with two signs.
            column = _constant(graph, f"which_{at}", [positive])
            value = _node(graph, "Gather", [value, column], f"column_{at}", axis=1)
        shape = [-1] if answer.rank == 1 else [0, -1]
        if kind not in {0, _ONNX[answer.dtype]} or (kind == 0 and answer.dtype != "string"):
            value = _node(graph, "Cast", [value], f"cast_{at}", to=_ONNX[answer.dtype])
        value = _node(graph, "Reshape", [value, _constant(graph, f"shape_{at}", shape)], answer.name)
    width = {answer.name: [axis.dim_value for axis in found.type.tensor_type.shape.dim][1:] for answer, found in
             zip(answers, there, strict=False)}  # fmt: skip
    del graph.output[:]
    for answer in answers:
        size = width[answer.name]
        last = ["columns" if len(size) != 1 or size[0] <= 0 else size[0]] if answer.rank == 2 else []
        if answer.name == "scores" and answer.method == "decision_function" and last == [2]:
            last = [1]
        graph.output.append(onnx.helper.make_tensor_value_info(answer.name, _ONNX[answer.dtype], ["batch", *last]))
    del graph.input[:]
    for spec in specs:
        graph.input.append(onnx.helper.make_tensor_value_info(spec.name, _ONNX[spec.dtype], list(spec.shape or ())))
    del graph.value_info[:]


def _keep(graph: Any, kept: Sequence[str]) -> None:
    there = {each.name: each for each in graph.output}
    chosen = [onnx.ValueInfoProto.FromString(there[name].SerializeToString()) for name in kept]
    del graph.output[:]
    graph.output.extend(chosen)


def _rename(graph: Any, old: str, new: str) -> None:
    """An inner value that was an output gets another name, everywhere."""
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
    for each in graph.output:
        if each.name == old:
            each.name = new


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _constant(graph: Any, name: str, values: list[int]) -> str:
    name = _free(name, {each.name for each in graph.initializer})
    graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values))
    return name


def _node(graph: Any, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
    taken = {name for node in graph.node for name in node.output} | {each.name for each in graph.input}
    if output in taken:
        output = _free(f"{output}_", taken)
    graph.node.append(onnx.helper.make_node(operator, inputs, [output], name=f"{operator}_{output}", **attributes))
    return output


def opset_of(model: Any) -> int:
    """The version of ONNX's own operator set."""
    return max((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), default=0)
