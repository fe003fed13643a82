"""JAX functions with their parameters, made by a factory: `path/to/model.py:factory` or `package.module:factory`.

The factory takes no arguments and gives a function of the inputs (a flax.nnx module is one), or (function, parameters),
called as function(parameters, *inputs), or either with example inputs as a last element: (function, parameters or None,
example inputs). The factory's code runs, because the user names it. What goes in is told by --input or the examples.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax2onnx
import numpy as np
from jax import export as jax_export

from tensorquay_convert.api import Exported, OpenSource, Say, SourceFacts
from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources.python_file import module_of
from tensorquay_convert.tensors import BATCH, DTYPES, Arrays, Axis, Interface, TensorSpec

_OPSET = 23
_PRIMITIVE = re.compile(r"[Pp]rimitive:? '?([\w\-]+)'?")
_NAME = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class _Made:
    """What a factory gave. `parameters` None: the function has its own."""

    function: Callable[..., Any]
    parameters: Any
    examples: Any


class JaxConverter:
    """Opens what a factory makes."""

    kinds: tuple[SourceKind, ...] = (SourceKind.JAX_FACTORY,)
    extra = "jax"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:  # noqa: ARG002
        """See `Converter`."""
        say(f"calling {job.source}")
        if job.weights is not None:
            raise BadSource(
                "the weights of a JAX factory come from its own code, --weights is not used",
                remedy="read them in the factory and return (function, parameters)",
            )
        factory, file = _find(job.source)
        try:
            made = factory()
        except Exception as exc:
            raise BadSource(
                f"the factory {job.source} raises: {_words(exc)}", remedy="it is called without arguments"
            ) from exc
        return JaxSource(_unpacked(made, job.source), job, () if file is None else (file,))


def open_function(function: Any, example_inputs: Any, job: ImportJob) -> OpenSource:
    """A JAX function that is in hand, its parameters inside it.

    Args: example_inputs: an array, a sequence of arrays, or arrays by argument name.
    """
    return JaxSource(_Made(function, None, example_inputs), job, ())


class JaxSource:
    """An OpenSource over a function that JAX can trace."""

    def __init__(self, made: _Made, job: ImportJob, files: tuple[Path, ...]) -> None:
        self._made, self._job = made, job
        self._by_name = isinstance(made.examples, Mapping) and not job.inputs
        inputs = _inputs(made, job)
        for spec in inputs:
            if np.dtype(spec.dtype) != jax.dtypes.canonicalize_dtype(spec.dtype):
                plain = jax.dtypes.canonicalize_dtype(spec.dtype)
                raise BadSource(
                    f"input '{spec.name}' is {spec.dtype}, which JAX makes {plain}",
                    remedy=f"give it as {plain}, or set jax_enable_x64 in the factory",
                )
        self._specs = inputs
        self._names, outputs = self._outputs()
        count = sum(int(np.size(each)) for each in jax.tree_util.tree_leaves(made.parameters))
        what = type(made.function).__name__
        name = getattr(made.function, "__name__", what)
        self._facts = SourceFacts(
            kind=SourceKind.JAX_FACTORY,
            shown=f"a JAX function, {name}, {len(inputs)} input{'s' if len(inputs) > 1 else ''}"
            + (f", {count} parameters" if count else ""),
            interface=Interface(inputs, outputs),
            files=files,
            versions={each: version(each) for each in ("jax", "jaxlib", "jax2onnx")},
        )

    @property
    def facts(self) -> SourceFacts:
        """See `OpenSource`."""
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        """See `OpenSource`."""
        leaves = self._call(*(jax.numpy.asarray(inputs[spec.name]) for spec in self._specs))
        found = dict(zip(self._names, leaves, strict=True))
        return {spec.name: np.asarray(found[spec.name]) for spec in self._facts.interface.outputs}

    def export(self, target: Path, say: Say) -> Exported:
        """See `OpenSource`."""
        say("converting with jax2onnx")
        opset = self._job.opset or _OPSET
        kept = [self._names.index(spec.name) for spec in self._facts.interface.outputs]

        def chosen(*inputs: Any) -> tuple[Any, ...]:
            leaves = self._call(*inputs)
            return tuple(leaves[at] for at in kept)

        try:
            model = jax2onnx.to_onnx(
                chosen,
                self._symbolic(),
                opset=opset,
                input_names=[spec.name for spec in self._specs],
                output_names=[spec.name for spec in self._facts.interface.outputs],
            )
        except Exception as exc:  # what its plugins raise has no common base
            found = _PRIMITIVE.search(str(exc))
            what = f"the primitive '{found[1]}'" if found else "something in the function"
            raise Unsupported(
                f"jax2onnx does not convert {what}: {_words(exc)}",
                remedy="write that part with other jax.numpy operations",
                facts={"operator": found[1] if found else None},
            ) from exc
        target.write_bytes(model.SerializeToString())
        return Exported("jax2onnx.to_onnx", opset)

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:  # noqa: ARG002
        """Nothing: values between primitives have no names that the graph keeps."""
        return {}

    def close(self) -> None:
        """See `OpenSource`: parameters go with the source."""

    def _call(self, *inputs: Any) -> list[Any]:
        """The function's answer as a flat list."""
        given = () if self._made.parameters is None else (self._made.parameters,)
        if self._by_name:
            named = {spec.name: each for spec, each in zip(self._specs, inputs, strict=True)}
            answer = self._made.function(*given, **named)
        else:
            answer = self._made.function(*given, *inputs)
        return list(jax.tree_util.tree_leaves(answer))

    def _symbolic(self) -> list[Any]:
        """The inputs with named sizes, all in one scope: equal names are equal sizes."""
        scope = jax_export.SymbolicScope()
        return [
            jax.ShapeDtypeStruct(
                jax_export.symbolic_shape(", ".join(map(str, spec.shape or ())), scope=scope), np.dtype(spec.dtype)
            )
            for spec in self._specs
        ]

    def _outputs(self) -> tuple[list[str], tuple[TensorSpec, ...]]:
        """What the function gives, seen by tracing it once with named sizes. Raises: BadSource, Unsupported."""
        given = () if self._made.parameters is None else (self._made.parameters,)

        def call(*inputs: Any) -> Any:
            if self._by_name:
                return self._made.function(
                    *given, **{spec.name: each for spec, each in zip(self._specs, inputs, strict=True)}
                )
            return self._made.function(*given, *inputs)

        try:
            answer = jax.eval_shape(call, *self._symbolic())
        except Exception as exc:
            shapes = ", ".join(f"{spec.name}:{spec.dtype}{list(spec.shape or ())}" for spec in self._specs)
            raise BadSource(
                f"the function does not take {shapes}: {_words(exc)}",
                remedy="use sizes of the inputs (x.shape[0], -1) where numbers stand, or import with --static",
            ) from exc
        leaves = jax.tree_util.tree_flatten_with_path(answer)[0]
        names = _unique([_output_name(path, len(leaves)) for path, _ in leaves], {spec.name for spec in self._specs})
        known = {axis for spec in self._specs for axis in spec.dynamic}
        specs: dict[str, TensorSpec] = {}
        for name, (_, leaf) in zip(names, leaves, strict=True):
            dtype = np.dtype(leaf.dtype).name
            if dtype not in DTYPES or dtype == "bfloat16":
                raise Unsupported(f"output '{name}' is {dtype}, which is not supported", remedy="cast it to float32")
            shape: list[Axis] = [
                size if isinstance(size, int) else (str(size) if str(size) in known else f"{name}_{at}")
                for at, size in enumerate(leaf.shape)
            ]
            specs[name] = TensorSpec(name, dtype, tuple(shape))
        for name in self._job.outputs:
            if name not in specs:
                raise BadSource(f"the function has no output '{name}'; it has {', '.join(specs)}")
        return names, tuple(specs[name] for name in self._job.outputs or names)


def _inputs(made: _Made, job: ImportJob) -> tuple[TensorSpec, ...]:
    """Declared inputs, else those of the examples with their first axis free. Raises: BadSource."""
    if job.inputs:
        found = [TensorSpec(each.name, each.dtype, each.shape) for each in job.inputs]
    else:
        if made.examples is None:
            raise BadSource(
                "nothing says what the function takes",
                remedy="declare it: --input 'x:float32[batch,4]', or return (function, parameters, example inputs)",
            )
        named = made.examples if isinstance(made.examples, Mapping) else _named(made)
        found = []
        for name, value in named.items():
            array = np.asarray(value)
            first: tuple[Axis, ...] = array.shape[:1] if job.static else (BATCH,) * min(1, array.ndim)
            found.append(TensorSpec(str(name), array.dtype.name, (*first, *array.shape[1:])))
    for each in job.dynamic:
        at = next((number for number, spec in enumerate(found) if spec.name == each.tensor), None)
        shape = list(found[at].shape or ()) if at is not None else []
        if at is None or not 0 <= each.axis < len(shape):
            listed = ", ".join(f"{spec.name}{list(spec.shape or ())}" for spec in found)
            raise BadSource(f"there is no axis {each.axis} of '{each.tensor}'; the function takes {listed}")
        shape[each.axis] = each.name
        found[at] = TensorSpec(found[at].name, found[at].dtype, tuple(shape))
    for spec in found:
        if spec.dtype not in DTYPES or spec.dtype in {"string", "bfloat16"}:
            raise BadSource(f"input '{spec.name}' is {spec.dtype}, expected numbers or bool")
    return tuple(found)


def _named(made: _Made) -> dict[str, Any]:
    """Example inputs without names, under those of the function's arguments."""
    examples = made.examples if isinstance(made.examples, list | tuple) else (made.examples,)
    try:
        names = [
            each.name
            for each in inspect.signature(made.function).parameters.values()
            if each.kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        ][0 if made.parameters is None else 1 :]
    except (TypeError, ValueError):
        names = []
    if len(names) < len(examples):
        names = ["input"] if len(examples) == 1 else [f"input_{at}" for at in range(len(examples))]
    return dict(zip(names, examples, strict=False))


def _output_name(path: Sequence[Any], count: int) -> str:
    keys = [str(getattr(each, "key", getattr(each, "name", getattr(each, "idx", each)))) for each in path]
    plain = _NAME.sub("_", "_".join(keys)).strip("_")
    if not plain:
        return "output"
    return f"output_{plain}" if plain[0].isdigit() and count else plain


def _unique(names: Sequence[str], taken: set[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        fresh = name
        while fresh in taken or fresh in found:
            fresh += "_out"
        found.append(fresh)
    return found


def _unpacked(made: Any, source: str) -> _Made:
    parts = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= 3 or not callable(parts[0]):
        raise BadSource(
            f"the factory {source} gives a {type(made).__name__}, expected a function",
            remedy="return function, (function, parameters) or (function, parameters, example inputs)",
        )
    return _Made(*parts, *([None] * (3 - len(parts))))


def _find(source: str) -> tuple[Callable[[], Any], Path | None]:
    """The function `source` names, and its file. Raises: BadSource in the module's own words."""
    where, _, name = source.rpartition(":")
    try:
        module = module_of(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except BadSource:
        raise
    except Exception as exc:
        raise BadSource(f"'{where}' raises when it is imported: {_words(exc)}") from exc
    factory = getattr(module, name, None)
    if not callable(factory):
        raise BadSource(f"'{where}' has no function '{name}'", remedy="define it there, without arguments")
    file = getattr(module, "__file__", None)
    return factory, None if file is None else Path(file)


def _words(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
