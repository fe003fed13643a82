"""`optimization.json`: an outcome and the facts of its run as plain JSON, and back.

The schema is versioned and described in docs/optimize.md; additions keep the number, changes of meaning raise it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from tensorquay_convert.optimize.plain import from_plain
from tensorquay_convert.optimize.results import Outcome

SCHEMA = "tensorquay.optimization/1"
_MOST_COMPLAINT = 400


def record(
    outcome: Outcome, *, model: str, baseline: Mapping[str, Any], version: str, at: str, command: Sequence[str]
) -> dict[str, Any]:
    """What `optimization.json` holds: JSON values only, and text that every encoding of Unicode takes.

    Args:
        model: its name in the repository, or of its file.
        baseline: what was optimised: version, sha256, name of its file.
        version: of Tensorquay. at: RFC 3339 in UTC. command: as it was given; empty from Python.
    """
    head = {
        "schema": SCHEMA,
        "model": model,
        "at": at,
        "tensorquay": version,
        "baseline": dict(baseline),
        "command": list(command),
    }
    found: dict[str, Any] = _json({**head, **{each.name: getattr(outcome, each.name) for each in fields(outcome)}})
    return found


def read(plain: Any) -> Outcome:
    """The outcome in a record; members that this version does not know are left out.

    Raises: ValueError saying what does not fit.
    """
    if not isinstance(plain, Mapping):
        raise ValueError(f"expected an object of schema '{SCHEMA}', got {type(plain).__name__}")
    schema = plain.get("schema")
    if schema != SCHEMA:
        raise ValueError(f"expected schema '{SCHEMA}', got {ascii(schema)[:80]}")
    try:
        return from_plain(Outcome, dict(plain))
    except ValueError as exc:
        raise ValueError(f"this is no record of schema '{SCHEMA}': {str(exc)[:_MOST_COMPLAINT]}") from exc


def _json(value: Any) -> Any:
    """As `plain.to_plain`, but of any text and number.

    What is no number becomes null, half of a surrogate pair its escape: neither has a place in UTF-8 JSON.
    """
    if isinstance(value, Mapping):
        return {_json(key): _json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, enum.Enum):
        return _json(value.value)
    if is_dataclass(value):
        return {each.name: _json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
