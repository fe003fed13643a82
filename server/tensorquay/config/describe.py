"""An effective configuration as lines for people: key, value, where it came from. `tensorquay check` prints them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass

from tensorquay.config.model import AllVersions, EffectiveConfig, LatestVersions, ProviderConfig, SpecificVersions
from tensorquay.core.datatypes import DataType


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in force. `origin` as in `EffectiveConfig.origins`."""

    key: str
    value: str
    origin: str


def settings(effective: EffectiveConfig) -> tuple[Setting, ...]:
    """Every value in force, in a stable order."""
    return tuple(Setting(key, _text(_value(effective, key)), origin) for key, origin in effective.origins.items())


def _value(effective: EffectiveConfig, key: str) -> object:
    config = effective.config
    head, _, rest = key.partition(".")
    if head in {"parameters", "metric_tags"}:
        mapping: Mapping[str, str] = getattr(config, head)
        return mapping[rest]
    name, _, position = head.partition("[")
    name = {"input": "inputs", "output": "outputs"}.get(name, name)
    found: object = getattr(config, name)
    if position:
        assert isinstance(found, tuple)
        found = found[int(position.rstrip("]"))]
    return getattr(found, rest) if rest else found


def _text(value: object) -> str:
    match value:
        case LatestVersions(count):
            return f"latest {count}"
        case AllVersions():
            return "all"
        case SpecificVersions(versions):
            return f"specific {list(versions)}"
        case ProviderConfig(name, options):
            return f"{name} {_text(options)}" if options else name
        case bool():
            return str(value).lower()
        case DataType():
            return value.wire
        case enum.Enum():
            return str(value.value)
        case tuple():
            return "[" + ", ".join(map(_text, value)) + "]"
        case Mapping():
            return "{" + ", ".join(f"{_text(key)}: {_text(item)}" for key, item in value.items()) + "}"
    if is_dataclass(value) and not isinstance(value, type):
        return "{" + ", ".join(f"{each.name}: {_text(getattr(value, each.name))}" for each in fields(value)) + "}"
    return str(value)
