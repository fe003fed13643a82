"""Values of these rooms to plain JSON values and back: between processes, and into `optimization.json`."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """JSON values of a dataclass of ours."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_plain(kind: type[T], plain: Any) -> T:
    """What `to_plain` made of a `kind`. Raises: ValueError saying where it does not fit."""
    try:
        found: T = TypeAdapter(kind).validate_python(plain)
    except ValidationError as exc:
        raise ValueError(str(exc)) from exc
    return found
