"""A module's `forward` as a function of flat named tensors, whatever nesting it takes and gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tensorquay_convert.errors import BadSource
from tensorquay_convert.sources.torch_tensors import leaves, named_outputs, rebuild


@dataclass(frozen=True, slots=True)
class Arguments:
    """One call of a module: what to pass, and its tensors with their names, in the order they are passed.

    `fixed`: arguments that are no tensors ("causal = True"): they become part of the exported graph.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]
    fixed: tuple[str, ...]


class FlatModule(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """Takes the tensors of `Arguments` one by one and gives a tuple of tensors.

    Args:
        module: what is called; a submodule here, so its parameters keep their names behind "module.".
        call: the example whose nesting and fixed arguments every call repeats.
    """

    def __init__(self, module: Callable[..., Any], call: Arguments) -> None:
        super().__init__()
        self.module = module
        self._call = call

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs in the order of `named_outputs`."""
        return tuple(each for _, each in self.named(tensors))

    def named(self, tensors: Sequence[torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        """The outputs with their names."""
        given = iter(tensors)
        args = rebuild(self._call.args, lambda _: next(given))
        kwargs = rebuild(dict(self._call.kwargs), lambda _: next(given))
        return named_outputs(self.module(*args, **kwargs))


def arguments(forward: Callable[..., Any], example: Any) -> Arguments:
    """How `example` is passed: a tuple or list by position, a mapping by name, anything else as the only argument.

    A mapping that has keys `forward` does not know is its only argument.
    Raises: BadSource when `forward` cannot be called so, or no tensor is among the inputs.
    """
    signature = _signature(forward)
    args, kwargs = _as_call(signature, example)
    fixed: list[str] = []
    names: list[str] = []
    tensors: list[torch.Tensor] = []
    for name, each in _named_arguments(signature, args, kwargs):
        for path, leaf in leaves(each, name):
            if isinstance(leaf, torch.Tensor):
                names.append(path)
                tensors.append(leaf)
            else:
                fixed.append(f"{path} = {leaf!r}"[:80])
    if not tensors:
        raise BadSource(
            f"there is no tensor among the example inputs of forward{signature}",
            remedy="give example inputs as tensors",
        )
    _refuse_twice(names)
    return Arguments(args, kwargs, tuple(names), tuple(tensors), tuple(fixed))


def parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the arguments `forward` can take by name, in order."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(name for name, each in _signature(forward).parameters.items() if each.kind in kinds)


def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(forward)
    except (TypeError, ValueError):
        # Scripted methods have none in Python; any positional call is right until they are run.
        return inspect.Signature([inspect.Parameter("input", inspect.Parameter.VAR_POSITIONAL)])


def _as_call(signature: inspect.Signature, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: tuple[Any, ...] = (example,)
    kwargs: dict[str, Any] = {}
    if isinstance(example, tuple | list) and not hasattr(example, "_fields"):
        args = tuple(example)
    elif isinstance(example, Mapping) and _all_known(signature, example):
        args, kwargs = (), dict(example)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise BadSource(
            f"the example inputs do not fit forward{signature}: {exc}",
            remedy="give one example per required argument, by position or by name",
        ) from exc
    return args, kwargs


def _all_known(signature: inspect.Signature, example: Mapping[Any, Any]) -> bool:
    any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    return bool(example) and all(isinstance(key, str) and (any_name or key in signature.parameters) for key in example)


def _named_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Every argument with its name in the order `rebuild` meets it: first by position, then by name."""
    by_position = [
        each
        for each in signature.parameters.values()
        if each.kind is not inspect.Parameter.KEYWORD_ONLY and each.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    for place, each in enumerate(args):
        here = by_position[min(place, len(by_position) - 1)]
        rest = here.kind is inspect.Parameter.VAR_POSITIONAL
        yield (f"{here.name}_{place - len(by_position) + 1}" if rest else here.name), each
    yield from kwargs.items()


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadSource(
            f"two inputs of the model would both be called '{twice[0]}'",
            remedy="rename an argument of forward, or a key of the mapping it takes",
        )
