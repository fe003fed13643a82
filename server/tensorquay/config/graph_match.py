"""What a model's graph says about its batch axis, and whether declared inputs and outputs fit the graph.

Pure. Graph shapes are full (batch axis included), -1 for a symbolic or unknown size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tensorquay.config.model import TensorConfig
from tensorquay.config.refusal import ConfigRefused, did_you_mean, spelled
from tensorquay.core.signature import TensorSpec

_MADE_UP = re.compile(r"unk__\d+|unk\d*|None|\?|.*_dim_\d+|dynamic_axes_\d+|dim_?\d+|s\d+|u\d+|\d+")
"""Axis names that exporters invent, one per axis: that two of them differ says nothing about the sizes."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Inputs and outputs as the model file declares them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def sides(self) -> tuple[tuple[str, tuple[TensorSpec, ...]], ...]:
        """("input", its tensors) and ("output", its tensors)."""
        return (("input", self.inputs), ("output", self.outputs))


def no_batch_axis(graph: Graph, *, trust_names: bool = True) -> str:
    """Why axis 0 cannot be a batch, a sentence naming tensor and shape; empty when it can.

    It can when every input and output has a symbolic first axis. Where axes have names that people gave them, the
    first ones of all inputs must also agree, and no output's may be the name of another axis of an input
    (`trust_names` False leaves names out).
    """
    if not graph.inputs or not graph.outputs:
        return f"the model has no {'inputs' if not graph.inputs else 'outputs'}, so nothing tells a batch"
    for kind, specs in graph.sides:
        for spec in specs:
            if not spec.shape:
                return f"{kind} '{spec.name}' is a scalar (shape []), it has no axis to batch along"
            if spec.shape[0] != -1:
                return f"{kind} '{spec.name}' has shape {list(spec.shape)}: its first axis is fixed at {spec.shape[0]}"
    return _names_disagree(graph) if trust_names else ""


def _names_disagree(graph: Graph) -> str:
    first: TensorSpec | None = None
    other_axes: dict[str, str] = {}
    for spec in graph.inputs:
        other_axes.update({name: spec.name for name in spec.axis_names[1:] if name})
        name = _given_name(spec)
        if name is None:
            continue
        if first is None:
            first = spec
        elif name != _given_name(first):
            return (
                f"the first axes of inputs '{first.name}' and '{spec.name}' are called '{_given_name(first)}' and "
                f"'{name}', so they need not be one batch; write max_batch_size if they are"
            )
    batch = None if first is None else _given_name(first)
    for spec in graph.outputs:
        name = _given_name(spec)
        if name is not None and name != batch and name in other_axes:
            return (
                f"the first axis of output '{spec.name}' is '{name}', which is another axis of input "
                f"'{other_axes[name]}'; write max_batch_size if it is the batch all the same"
            )
    return ""


def _given_name(spec: TensorSpec) -> str | None:
    """The first axis's name, unless an exporter made it up."""
    name = spec.axis_names[0] if spec.axis_names else None
    return None if not name or _MADE_UP.fullmatch(name) else name


def declared_rank_offset(graph: Graph, inputs: Sequence[TensorConfig], outputs: Sequence[TensorConfig]) -> set[int]:
    """By how many axes the declared shapes are shorter than the graph's: {0} full shapes, {1} without the batch.

    Unknown names and tensors without dims say nothing.
    """
    found: set[int] = set()
    for declared, specs in ((inputs, graph.inputs), (outputs, graph.outputs)):
        ranks = {spec.name: len(spec.shape) for spec in specs}
        for tensor in declared:
            if tensor.dims is not None and tensor.name in ranks:
                shape = tensor.dims if tensor.reshape is None else tensor.reshape
                found.add(ranks[tensor.name] - len(shape))
    return found


def check_batch_axis(graph: Graph, max_batch_size: int, file: str) -> None:
    """Refuse a `max_batch_size` above 0 for a graph whose first axes are not all variable.

    Raises: ConfigRefused naming the tensor, the axis and its size.
    """
    for kind, specs in graph.sides:
        for spec in specs:
            if spec.shape and spec.shape[0] == -1:
                continue
            found = f"axis 0 is fixed at {spec.shape[0]}" if spec.shape else "it is a scalar without axes"
            raise ConfigRefused(
                file=file,
                key="max_batch_size",
                value=max_batch_size,
                rule=f"{kind} '{spec.name}' of the model has shape {list(spec.shape)}: {found}, it cannot batch",
                hint="set max_batch_size to 0 and give full shapes, or export the model with a variable first axis",
            )


def match_tensors(
    kind: str, declared: Sequence[TensorConfig], specs: Sequence[TensorSpec], *, batches: bool, file: str
) -> tuple[TensorConfig, ...]:
    """Declared tensors completed from the graph; all of the graph's when none is declared.

    Args: kind: "input" or "output". batches: dims leave out axis 0.
    Raises: ConfigRefused for a name the graph does not have, a type, rank or size that contradicts it, an input marked
    optional that the graph requires, or a required input that is not declared.
    """
    if not declared:
        return tuple(_from_graph(spec, batches=batches) for spec in specs)
    known = {spec.name: spec for spec in specs}
    matched: list[TensorConfig] = []
    for index, tensor in enumerate(declared):
        key = f"{kind}[{index}]"
        spec = known.get(tensor.name)
        if spec is None:
            raise ConfigRefused(
                file=file,
                key=spelled(f"{key}.name", file),
                value=tensor.name,
                rule=f"the model has no such {kind}",
                hint=did_you_mean(tensor.name, known),
            )
        matched.append(_Match(key, tensor, spec, batches, file).complete())
    if kind == "input":
        given = {tensor.name for tensor in declared}
        missing = [spec.name for spec in specs if not spec.optional and spec.name not in given]
        if missing:
            raise ConfigRefused(
                file=file,
                key="input",
                value=sorted(given),
                rule=f"the model also requires {', '.join(map(repr, missing[:8]))}",
                hint="declare every required input, or none",
            )
    return tuple(matched)


def _from_graph(spec: TensorSpec, *, batches: bool) -> TensorConfig:
    return TensorConfig(
        name=spec.name,
        datatype=spec.datatype,
        dims=spec.shape[1:] if batches else spec.shape,
        optional=spec.optional,
    )


@dataclass(frozen=True, slots=True)
class _Match:
    """One declared tensor beside the graph's tensor of that name."""

    key: str
    tensor: TensorConfig
    spec: TensorSpec
    batches: bool
    file: str

    def complete(self) -> TensorConfig:
        tensor, spec = self.tensor, self.spec
        if tensor.datatype not in {None, spec.datatype}:
            assert tensor.datatype is not None
            rule = f"'{spec.name}' is {spec.datatype.config_name} in the model"
            raise self._refused("datatype", tensor.datatype.config_name, rule)
        if tensor.optional and not spec.optional:
            raise self._refused("optional", True, f"the model requires '{spec.name}': it has no default for it")
        own = spec.shape[1:] if self.batches else spec.shape
        if tensor.dims is not None:
            if tensor.reshape is not None:
                self._fits(tensor.reshape, own, "reshape")
            else:
                self._fits(tensor.dims, own, "dims")
        return TensorConfig(
            name=tensor.name,
            datatype=spec.datatype,
            dims=own if tensor.dims is None else tensor.dims,
            reshape=tensor.reshape,
            optional=tensor.optional,
            labels_file=tensor.labels_file,
            format=tensor.format,
        )

    def _fits(self, declared: tuple[int, ...], own: tuple[int, ...], which: str) -> None:
        shape = list(self.spec.shape)
        if len(declared) != len(own):
            batch = ", of which the first is the batch and is left out here" if self.batches else ""
            hint = "with max_batch_size 0 every axis is given" if not self.batches and self._one_short(declared) else ""
            rule = f"'{self.spec.name}' has {len(shape)} axes in the model, {shape}{batch}"
            raise self._refused(which, declared, rule, hint)
        for axis, (want, have) in enumerate(zip(declared, own, strict=True), start=int(self.batches)):
            if have not in (-1, want):
                got = "variable" if want == -1 else want
                rule = f"axis {axis} of '{self.spec.name}' is fixed at {have} in the model, {shape}, not {got}"
                raise self._refused(which, declared, rule)

    def _one_short(self, declared: tuple[int, ...]) -> bool:
        return len(declared) == len(self.spec.shape) - 1

    def _refused(self, field: str, value: object, rule: str, hint: str = "") -> ConfigRefused:
        key = spelled(f"{self.key}.{field}", self.file)
        return ConfigRefused(file=self.file, key=key, value=value, rule=rule, hint=hint)
