"""TensorFlow itself: loaded quietly, a function frozen to a graph with named inputs and outputs, and that graph run.

SavedModels, Keras models and frozen graphs all come here. The graph keeps the model's own layout at its interface
(images stay NHWC); tf2onnx moves channels inside. Everything runs on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.registry import missing
from tensorquay_convert.sources import tensorflow_export
from tensorquay_convert.sources.tensorflow_axes import Attempt, Port
from tensorquay_convert.tensors import DTYPES, Array, Arrays

Run = Callable[[Arrays], Arrays]

_OUTPUT = "tensorquay_output_{}"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A GraphDef without variables, and where it is entered and left. `large`: too big to be serialized."""

    graph_def: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights_bytes: int = 0

    @property
    def large(self) -> bool:
        """Whether it has to be handled without ever being one protobuf message."""
        return self.weights_bytes >= tensorflow_export.EXTERNAL_ABOVE_BYTES


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings that only a framework's authors could act on."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning, SyntaxWarning):
            warnings.simplefilter("ignore", category)
        yield


def load_tensorflow(kind: SourceKind) -> Any:
    """TensorFlow, quiet and on the CPU; tf2onnx is there too. Raises: FrameworkMissing."""
    with quiet():
        try:
            import tensorflow  # noqa: PLC0415
            import tf2onnx  # noqa: F401, PLC0415
        except ModuleNotFoundError as error:
            raise missing(kind, error) from error
    tensorflow.get_logger().setLevel("ERROR")
    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def versions(*also: str) -> dict[str, str]:
    """Versions of the packages that take part in every import from TensorFlow, and of `also`."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    found = {}
    for name in ("tensorflow", "tensorflow-cpu", "tf2onnx", "onnx", "numpy", *also):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Of the first two one is there.
            continue
    return found


def port(name: str, tensor: Any, what: str) -> Port:
    """A framework's tensor as a `Port`. Raises: Unsupported for dtypes that ONNX or the server lacks."""
    dtype = tensor.dtype.name
    if dtype == "string":
        raise Unsupported(
            f"{what} has the text tensor '{name}'; texts have no ONNX",
            remedy="export the part that takes numbers as a signature of its own and name it with --signature",
            facts={"tensor": name},
        )
    if dtype not in DTYPES:
        raise Unsupported(f"{what} has tensor '{name}' of dtype {dtype}, which has no ONNX", facts={"tensor": name})
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return Port(name, dtype, shape, tensor=getattr(tensor, "name", "") or "")


def freeze(function: Any, inputs: Sequence[Port], outputs: Sequence[Port]) -> Frozen:
    """Variables become constants. `function` is concrete; ports name its tensors."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # noqa: PLC0415
    from tf2onnx import tf_loader  # noqa: PLC0415

    size = sum(int(np.prod(each.shape)) * each.dtype.size for each in function.graph.variables)
    if size >= tensorflow_export.EXTERNAL_ABOVE_BYTES:
        graph_def = tf_loader.convert_variables_to_constants_large_model(function)
    else:
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
        graph_def = frozen.graph.as_graph_def(add_shapes=True)
    return prepared(graph_def, inputs, outputs, size)


def parameters(function: Any) -> int:
    """How many numbers a concrete function's variables hold."""
    return sum(int(np.prod(each.shape)) for each in function.graph.variables)


def counted(frozen: Frozen, weights: int | None) -> str:
    """ "2 inputs, 1 output, 1.2 M parameters"."""
    parts = [
        f"{len(ports)} {word}{'' if len(ports) == 1 else 's'}"
        for ports, word in ((frozen.inputs, "input"), (frozen.outputs, "output"))
    ]
    if weights is not None:
        parts.append(f"{weights / 1e6:.1f} M parameters" if weights >= 100_000 else f"{weights} parameters")
    return ", ".join(parts)


def without_outputs(job: ImportJob) -> ImportJob:
    """The same job for a source whose outputs have been chosen already."""
    return replace(job, outputs=())


def prepared(graph_def: Any, inputs: Sequence[Port], outputs: Sequence[Port], size: int) -> Frozen:
    """A frozen GraphDef made ready: functions may be inlined, and every output is a node of its own.

    The latter keeps apart outputs that are the same tensor, and inputs that are passed through.
    """
    for node in [*graph_def.node, *(each for function in graph_def.library.function for each in function.node_def)]:
        node.device = ""
        # Keras asks for XLA around grouped convolutions; functions so marked are never inlined, and XLA is not ONNX.
        node.attr.pop("_XlaMustCompile", None)
    for function in graph_def.library.function:
        function.attr.pop("_XlaMustCompile", None)
        function.attr.pop("_noinline", None)
    left = []
    for index, each in enumerate(outputs):
        node = graph_def.node.add(name=_OUTPUT.format(index), op="Identity")
        node.input.append(each.tensor)
        node.attr["T"].type = _enum(each.dtype)
        left.append(replace(each, tensor=node.name + ":0"))
    return Frozen(graph_def, tuple(inputs), tuple(left), size)


def _enum(dtype: str) -> int:
    from tensorflow import as_dtype  # noqa: PLC0415

    return int(as_dtype(dtype).as_datatype_enum)


class Session:
    """A frozen graph in a session of its own: unlike an imported function, it leaves nothing in the process."""

    def __init__(self, frozen: Frozen) -> None:
        import tensorflow as tf  # noqa: PLC0415

        self._graph = tf.Graph()
        with self._graph.as_default():
            tf.compat.v1.import_graph_def(frozen.graph_def, name="")
        self._session = tf.compat.v1.Session(graph=self._graph)
        self._inputs = frozen.inputs

    def fetch(self, inputs: Arrays, names: Sequence[str]) -> list[Array]:
        """The values of tensors by TensorFlow's names."""
        fed = {each.tensor: _native(inputs[each.name], each.dtype) for each in self._inputs}
        return [to_array(value) for value in self._session.run(list(names), fed)]

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name that can be held in an array."""
        node, _, index = name.rpartition(":")
        if not index.isdecimal():
            return False
        try:
            outputs = self._graph.get_operation_by_name(node).outputs
        except (KeyError, ValueError):
            return False
        return int(index) < len(outputs) and outputs[int(index)].dtype.name in DTYPES

    def close(self) -> None:
        """End the session."""
        self._session.close()


def runner(frozen: Frozen) -> Run:
    """Runs the frozen graph in TensorFlow. Raises: ValueError when TensorFlow does not take the graph."""
    session = Session(frozen)
    left = [each.tensor for each in frozen.outputs]

    def run(inputs: Arrays) -> Arrays:
        return {each.name: value for each, value in zip(frozen.outputs, session.fetch(inputs, left), strict=True)}

    return run


def _native(array: Array, dtype: str) -> Array:
    if dtype != "bfloat16":
        return array
    from tensorflow import bfloat16  # noqa: PLC0415

    return array.view(bfloat16.as_numpy_dtype)


def to_tensor(tensorflow: Any, array: Array, dtype: str) -> Any:
    """An array in this project's form as TensorFlow's; bfloat16 travels as its bits."""
    if dtype == "bfloat16":
        return tensorflow.bitcast(tensorflow.constant(array.view(np.uint16)), tensorflow.bfloat16)
    return tensorflow.constant(array, dtype=dtype)


def to_array(tensor: Any) -> Array:
    """The other way."""
    array: Array = np.asarray(tensor)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def attempt(run: Run) -> Attempt:
    """`run` as something that may be tried: the framework's refusals become texts."""
    import tensorflow as tf  # noqa: PLC0415

    def tried(inputs: Arrays) -> Arrays | str:
        try:
            with quiet():
                return run(inputs)
        except (tf.errors.OpError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError) as error:
            return " ".join(str(error).split())[:200]

    return tried
