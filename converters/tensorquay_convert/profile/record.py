"""`profile.json`: a profile and the facts of its making as plain JSON, and back.

The schema is versioned and described in docs/optimize.md; additions keep the number, changes of meaning raise it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorquay_convert import surroundings
from tensorquay_convert.optimize.plain import from_plain, to_plain
from tensorquay_convert.profile.results import SCHEMA, Profile


def record(profile: Profile, *, at: str, command: Sequence[str]) -> dict[str, Any]:
    """What `profile.json` holds. `at`: RFC 3339 in UTC. `command`: as it was given; empty from Python."""
    head = {"schema": SCHEMA, "at": at, "tensorquay": surroundings.own_version(), "command": list(command)}
    found: dict[str, Any] = _json({**head, **to_plain(profile)})
    return found


def read(plain: Any) -> Profile:
    """The profile in a record. Raises: ValueError saying what does not fit."""
    schema = plain.get("schema") if isinstance(plain, Mapping) else None
    if schema != SCHEMA:
        raise ValueError(f"expected schema '{SCHEMA}', got {ascii(schema)[:80]}")
    return from_plain(Profile, dict(plain))


def write(path: Path, described: Mapping[str, Any]) -> None:
    """Readable for people too. Raises: OSError."""
    path.write_text(json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _json(value: Any) -> Any:
    """What is no number becomes null, half of a surrogate pair its escape: neither has a place in UTF-8 JSON."""
    if isinstance(value, Mapping):
        return {_json(key): _json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
