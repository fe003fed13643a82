"""Which pass a step's name stands for. A pass's module is imported when a variant asks for it, never before.

So a library that is missing costs the passes that need it and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from tensorquay_convert.errors import FrameworkMissing
from tensorquay_convert.optimize.passes.api import MakePass, Pass
from tensorquay_convert.optimize.variants import Step

_ROOM = "tensorquay_convert.optimize.passes"

# Name of the step, module in this room, function in it that takes the parameters.
_GRAPH = (
    ("graph level", "graph_level", "make"),
    ("simplify", "simplify", "make"),
    ("fuse transformers", "fusion", "make"),
    ("float16", "half", "make_float16"),
    ("bfloat16", "half", "make_bfloat16"),
)
_QUANTIZATION = (
    ("dynamic int8", "dynamic_int8", "make"),
    ("static int8", "static_int8", "make"),
    ("weight-only", "weight_only", "make"),
    ("mixed int8", "mixed", "make"),
)


def _made(module: str, function: str, parameters: Mapping[str, Any]) -> Pass:
    try:
        found = getattr(import_module(f"{_ROOM}.{module}"), function)
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("tensorquay_convert"):
            raise
        raise missing(exc) from exc
    made: Pass = found(parameters)
    return made


PASSES: Mapping[str, MakePass] = {
    name: partial(_made, module, function) for name, module, function in (*_GRAPH, *_QUANTIZATION)
}
"""Name of a step → what makes its pass. Raises: as `make`."""


def make(step: Step) -> Pass:
    """The pass that `step` names, with its parameters.

    Raises: ValueError for a name or parameters that nobody knows; FrameworkMissing when its library is not installed.
    """
    found = PASSES.get(step.name)
    if found is None:
        raise ValueError(f"there is no pass '{step.name}'; there are: {', '.join(PASSES)}")
    return found(step.parameters)


def missing(error: ModuleNotFoundError) -> FrameworkMissing:
    """The failure to tell when a pass's library is not there."""
    package = (error.name or "a package").partition(".")[0]
    return FrameworkMissing(
        f"this pass needs {package}, which is not installed",
        remedy="pip install 'tensorquay[optimize]'",
        facts={"package": package, "extra": "optimize"},
    )
