"""Which operators of a model have a form in some element type, as their definitions say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onnx import defs

from tensorquay_convert.optimize.passes import counts

_FLOAT = "tensor(float)"


def lacking(model: Any, kind: str) -> frozenset[str]:
    """Operators in the main graph that take or give FP32 but not `kind` ("tensor(bfloat16)"), by `counts.name_of`.

    An operator that nobody here knows is among them.
    """
    versions = {each.domain if each.domain != "ai.onnx" else "": int(each.version) for each in model.opset_import}
    found = set()
    for domain, operator, name in {(each.domain, each.op_type, counts.name_of(each)) for each in model.graph.node}:
        own = "" if domain == "ai.onnx" else domain
        types = _types(own, operator, versions.get(own, 1))
        if types is None or (not any(kind in each for each in types) and _floats(types)):
            found.add(name)
    return frozenset(found)


def _floats(types: Iterable[frozenset[str]]) -> bool:
    return any(_FLOAT in each for each in types)


def _types(domain: str, operator: str, version: int) -> list[frozenset[str]] | None:
    """What each input and output may be; None for an operator without a definition."""
    try:
        schema = defs.get_schema(operator, version, domain)
    except defs.SchemaError:
        return _of_runtime(domain, operator)
    allowed = {each.type_param_str: frozenset(each.allowed_type_strs) for each in schema.type_constraints}
    return [allowed.get(each.type_str, frozenset({each.type_str})) for each in (*schema.inputs, *schema.outputs)]


def _of_runtime(domain: str, operator: str) -> list[frozenset[str]] | None:
    """The same for the runtime's own operators, of which there is one version each."""
    from onnxruntime.capi import onnxruntime_pybind11_state  # noqa: PLC0415 - a part that not every build has

    told = getattr(onnxruntime_pybind11_state, "get_all_operator_schema", list)
    for schema in told():
        if (schema.domain, schema.name) == (domain, operator):
            return [frozenset(each.allowed_type_strs) for each in schema.type_constraints]
    return None
