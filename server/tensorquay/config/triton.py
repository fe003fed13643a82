"""Triton's model configuration, read and written: config.pbtxt, the JSON of a load request, the `config` endpoints.

The door to the `triton_*` files beside it. Nothing a file says is ignored silently: a field is honoured, refused by
name, or accepted with a note.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError

from tensorquay.config.model import ModelConfig
from tensorquay.config.refusal import LOAD_REQUEST, PBTXT, ConfigRefused, did_you_mean
from tensorquay.config.triton_read import read
from tensorquay.config.triton_schema import POOL, ModelConfigMessage, repeated_key, text_class
from tensorquay.config.triton_write import message_json, to_triton_json, to_triton_proto

__all__ = [
    "MAX_CONFIG_BYTES",
    "POOL",
    "ModelConfigMessage",
    "message_json",
    "parse_json_config",
    "parse_pbtxt",
    "to_triton_json",
    "to_triton_proto",
]

MAX_CONFIG_BYTES = 2**20
"""Longest configuration read, in bytes: no real one comes near."""

_UNKNOWN = re.compile(r'Message type "(?:inference\.)?([\w.]+)" has no field named "([^"]*)"')
_FAILED_AT = re.compile(r"Failed to parse (\w+) field")


def parse_pbtxt(text: str, *, source: str = PBTXT) -> ModelConfig:
    """The configuration that `text`, protobuf's text form of `inference.ModelConfig`, describes.

    Raises: ConfigRefused naming file, line, key, value and rule for what is unknown, refused, repeated, out of bounds
    or contradictory, and for more than `MAX_CONFIG_BYTES`.
    """
    _bound(text, source)
    written: Any = text_class()()
    try:
        text_format.Parse(text, written)
    except text_format.ParseError as error:
        _refuse_text(error, source)
    except (ValueError, RecursionError) as error:  # a number or a nesting no parser should see
        raise ConfigRefused(
            file=source, key="(whole file)", value=None, rule=f"not text protobuf: {_cut(error)}"
        ) from None
    repeated = repeated_key(written)
    if repeated is not None:
        field, key = repeated
        rule = "an entry without a key" if key is None else f"the key {str(key)[:120]!r} is given twice"
        raise ConfigRefused(file=source, key=field, value=None, rule=rule)
    try:
        message = ModelConfigMessage.FromString(written.SerializeToString())
    except (DecodeError, ValueError) as error:
        raise ConfigRefused(file=source, key="(whole file)", value=None, rule=_cut(error)) from None
    return read(message, source, says_max_batch_size=written.HasField("max_batch_size"))


def parse_json_config(text: str, *, source: str = LOAD_REQUEST) -> ModelConfig:
    """The configuration in a load request's `config`: proto3 JSON of `inference.ModelConfig`, either spelling of names.

    Raises: as `parse_pbtxt`.
    """
    _bound(text, source)
    try:
        written = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, source), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigRefused(file=source, key="config", value=None, rule=f"not JSON: {_cut(error)}") from None
    if not isinstance(written, dict):
        raise ConfigRefused(file=source, key="config", value=written, rule="it must be a JSON object")
    message = ModelConfigMessage()
    try:
        json_format.ParseDict(written, message, max_recursion_depth=32)
    except json_format.ParseError as error:
        _refuse_json(error, source)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        # protobuf's own reader trips over some wrong shapes ("input": 3) instead of naming them.
        raise ConfigRefused(
            file=source, key="config", value=None, rule=f"a value has the wrong type: {_cut(error)}"
        ) from None
    says = next((written[key] for key in ("max_batch_size", "maxBatchSize") if key in written), None)
    return read(message, source, says_max_batch_size=says is not None)


def _bound(text: str, source: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_CONFIG_BYTES:
        raise ConfigRefused(
            file=source, key="(whole file)", value=f"{size} bytes", rule=f"at most {MAX_CONFIG_BYTES} bytes are read"
        )


def _refuse_text(error: text_format.ParseError, source: str) -> NoReturn:
    line = error.GetLine()
    unknown = _UNKNOWN.search(str(error))
    if unknown is not None:
        raise _unknown_field(unknown, source, line) from None
    text = re.sub(r"^\d+:\d+ : ", "", str(error))
    raise ConfigRefused(file=source, key="(syntax)", value=None, rule=_cut(text), line=line) from None


def _refuse_json(error: json_format.ParseError, source: str) -> NoReturn:
    text = str(error)
    unknown = _UNKNOWN.search(text)
    if unknown is not None:
        raise _unknown_field(unknown, source, None) from None
    at = _FAILED_AT.findall(text)
    raise ConfigRefused(file=source, key=at[-1] if at else "config", value=None, rule=_cut(text)) from None


def _unknown_field(found: re.Match[str], source: str, line: int | None) -> ConfigRefused:
    message, name = found.group(1), found.group(2)
    known = [field.name for field in POOL.FindMessageTypeByName(f"inference.{message}").fields]
    return ConfigRefused(
        file=source,
        key=name[:120],
        value=None,
        rule=f"{message} has no such field",
        hint=did_you_mean(name, known),
        line=line,
    )


def _once(pairs: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in key):
            # protobuf dies of these instead of refusing them.
            raise ConfigRefused(file=source, key=key[:120], value=None, rule="its name is not valid Unicode")
        if key in found:
            raise ConfigRefused(file=source, key=key[:120], value=None, rule="it is given twice")
        found[key] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _cut(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 240 else text[:239] + "…"
