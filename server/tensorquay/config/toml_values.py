"""What values of config.toml may be written as, and what its tables have in common."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def as_list(value: object) -> object:
    """One `[table]` where several `[[table]]` may stand."""
    return [value] if isinstance(value, dict) else value


def _as_text(value: object) -> object:
    """Runtime options are text; numbers and switches are what people write."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value) if isinstance(value, int) and value.bit_length() <= 64 else value


def as_share(value: object) -> object:
    """ "0.5%" is 0.005; what is no percentage is left to the type's own check."""
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%", value)):
        return float(found[1]) / 100
    return value


Text: TypeAlias = Annotated[str, Field(max_length=65_536)]
OptionText: TypeAlias = Annotated[str, BeforeValidator(_as_text), Field(max_length=65_536)]


class Table(BaseModel):
    """What every table is: strict, frozen, and without keys that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
