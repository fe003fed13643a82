"""Decide which axes of a TensorFlow model are dynamic, and free a batch axis that was fixed when it was exported.

A freed model is only taken when its rows are what the fixed model gives: a reshape with the batch built in, or a mean
over it, would otherwise answer one client with another one's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob
from tensorquay_convert.sources.tensorflow_axes import Attempt, Port, sample
from tensorquay_convert.sources.tensorflow_graph import Frozen, Run, attempt, runner
from tensorquay_convert.tensors import TensorSpec

_ROW_TOLERANCE = 1e-3


def chosen(frozen: Frozen, job: ImportJob) -> Frozen:
    """With the outputs and the declared shapes that the user asked for. Raises: BadSource when they do not fit."""
    by_name = {each.name: each for each in frozen.outputs}
    missing_ones = [name for name in job.outputs if name not in by_name]
    if missing_ones:
        raise BadSource(
            f"no output is called '{missing_ones[0]}'; there are {', '.join(by_name)}",
            remedy="name outputs with --output-name as they are listed",
        )
    outputs = tuple(by_name[name] for name in job.outputs) or frozen.outputs
    return _declared(job, replace(frozen, outputs=outputs))


def wanted_shapes(job: ImportJob, frozen: Frozen, what: str) -> tuple[dict[str, list[int | None]], int | None]:
    """The shapes inputs shall have, None where dynamic, and the size at which the batch has been fixed until now.

    Raises: BadSource for unknown ranks and axes that are not there; Unsupported when there is no batch axis.
    """
    wanted: dict[str, list[int | None]] = {}
    for each in frozen.inputs:
        if each.shape is None:
            raise BadSource(
                f"{what} does not say what shape its input '{each.name}' has",
                remedy=f"declare it: --input '{each.name}:{each.dtype}[batch,…]'",
                facts={"input": each.name},
            )
        wanted[each.name] = list(each.shape)
    for axis in job.dynamic:
        if axis.tensor in wanted and -1 < axis.axis < len(wanted[axis.tensor]):
            wanted[axis.tensor][axis.axis] = None
        elif axis.tensor not in {each.name for each in frozen.outputs}:
            raise BadSource(
                f"--dynamic names axis {axis.axis} of '{axis.tensor}', which is not there; inputs: "
                + ", ".join(f"{each.name}{list(each.shape or ())}" for each in frozen.inputs)
            )
    batch = None if job.static else _fixed_batch(frozen, what)
    if batch is not None:
        for shape in wanted.values():
            shape[:1] = [None]
    return wanted, batch


def freed_note(batch: int) -> str:
    """What is said when a fixed batch axis has been freed."""
    return f"its batch axis was fixed at {batch}; it is dynamic now, and row by row the answers are the same"


def freed(job: ImportJob, frozen: Frozen, run: Run, what: str) -> tuple[Frozen, Run, tuple[str, ...]]:
    """The graph with the axes unknown that have to be dynamic, and how it is run then."""
    wanted, batch = wanted_shapes(job, frozen, what)
    if all(tuple(wanted[each.name]) == each.shape for each in frozen.inputs):
        return frozen, run, ()
    loose = replace(
        frozen,
        graph_def=_with_shapes(frozen, wanted),
        inputs=tuple(replace(each, shape=tuple(wanted[each.name])) for each in frozen.inputs),
        outputs=tuple(replace(each, shape=None) for each in frozen.outputs),
    )
    try:
        free_run = runner(loose)
    except ValueError as error:
        raise not_free(what, batch, str(error)) from error
    if batch is None:
        return loose, free_run, ()
    problem = rows_mix(frozen.inputs, batch, attempt(run), attempt(free_run))
    if problem:
        raise not_free(what, batch, problem)
    return loose, free_run, (freed_note(batch),)


def _declared(job: ImportJob, frozen: Frozen) -> Frozen:
    """Shapes and dtypes the user declared, put on inputs of that name."""
    declared = {each.name: each for each in job.inputs}
    unknown = declared.keys() - {each.name for each in frozen.inputs}
    if unknown:
        raise BadSource(
            f"no input is called '{min(unknown)}'; there are {', '.join(each.name for each in frozen.inputs)}",
            remedy="declare inputs with --input under the names they have",
        )
    inputs = []
    for each in frozen.inputs:
        given = declared.get(each.name)
        if given is None:
            inputs.append(each)
            continue
        shape = tuple(size if isinstance(size, int) else None for size in given.shape)
        own = each.shape if each.shape is not None else (None,) * len(shape)
        fits = len(own) == len(shape) and all(
            None in pair or len(set(pair)) == 1 for pair in zip(own, shape, strict=True)
        )
        if given.dtype != each.dtype or not fits:
            raise BadSource(
                f"input '{each.name}' is declared {given.dtype}{list(given.shape)}; the model has "
                f"{each.dtype}{list(own)}",
            )
        inputs.append(replace(each, shape=shape))
    return replace(frozen, inputs=tuple(inputs))


def _fixed_batch(frozen: Frozen, what: str) -> int | None:
    """The size at which the batch axis is fixed; None when it is dynamic already.

    Raises: Unsupported when there is no axis that could be it.
    """
    leading = [each.shape[0] for each in frozen.inputs if each.shape]
    if None in leading:
        return None
    left = [each.shape[0] if each.shape else 0 for each in frozen.outputs]
    if not leading or len({*leading, *left} - {None}) != 1:
        raise Unsupported(
            f"{what} has no batch axis: inputs "
            + ", ".join(f"{each.name}{list(each.shape or ())}" for each in frozen.inputs)
            + ", outputs "
            + ", ".join(f"{each.name}{list(each.shape or ())}" for each in frozen.outputs),
            remedy="import it as it is with --static",
        )
    return leading[0]


def not_free(what: str, batch: int | None, why: str) -> Unsupported:
    """The refusal of a model whose fixed axes cannot be freed; `why` is what happened when it was tried."""
    size = "some axes are" if batch is None else f"its batch axis is fixed at {batch}, and that is"
    return Unsupported(
        f"{what}: {size} built into the graph ({' '.join(why.split())[:200]})",
        remedy="export it again with a dynamic batch axis (None), or import it as it is with --static",
        facts={"batch": batch},
    )


def rows_mix(inputs: Sequence[Port], batch: int, own: Attempt, loose: Attempt) -> str:
    """Why a freed model is not the fixed one row by row; empty when it is.

    Three times the fixed batch go through the freed model at once, and through the fixed one part by part.
    """
    generator = np.random.default_rng(0)
    specs = [TensorSpec(each.name, each.dtype, (batch * 3, *_ints(each)[1:]), each.values) for each in inputs]
    drawn = {spec.name: sample(spec, {}, generator) for spec in specs}
    together = loose(drawn)
    if isinstance(together, str):
        return together
    parts = [own({name: array[at : at + batch] for name, array in drawn.items()}) for at in range(0, 3 * batch, batch)]
    for part in parts:
        if isinstance(part, str):
            return part
    for name, got in together.items():
        expected = np.concatenate([part[name] for part in parts if not isinstance(part, str)])
        if got.shape != expected.shape:
            return f"output '{name}' has shape {list(got.shape)} for {3 * batch} rows"
        if not np.allclose(got, expected, _ROW_TOLERANCE, _ROW_TOLERANCE, equal_nan=True):
            return f"output '{name}' is another one when rows come together"
    return ""


def _ints(each: Port) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in each.shape or ())


def _with_shapes(frozen: Frozen, wanted: Mapping[str, Sequence[int | None]]) -> Any:
    """A copy of the graph whose placeholders have other shapes; shapes noted elsewhere in it are dropped."""
    graph_def = type(frozen.graph_def)()
    graph_def.CopyFrom(frozen.graph_def)
    shapes = {each.tensor.partition(":")[0]: wanted[each.name] for each in frozen.inputs}
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
        if node.name in shapes:
            shape = node.attr["shape"].shape
            shape.Clear()
            for size in shapes[node.name]:
                shape.dim.add(size=-1 if size is None else size)
    return graph_def


def axis_names(job: ImportJob) -> dict[tuple[str, int], str]:
    """Names the user gave to axes, by `--dynamic` and in declared inputs."""
    named = {
        (each.name, axis): size for each in job.inputs for axis, size in enumerate(each.shape) if isinstance(size, str)
    }
    return named | {(each.tensor, each.axis): each.name for each in job.dynamic}
