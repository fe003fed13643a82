"""Triton's model configuration, read and written: config.pbtxt, the JSON of a load request, the `config` endpoints.

The door to the `triton_*` files beside it. Nothing a file says is ignored silently: a field is honoured, refused by
name, or accepted with a note.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, NoReturn

from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError

from tensorquay.config.model import ModelConfig
from tensorquay.config.refusal import LOAD_REQUEST, OTHER_TYPES, PBTXT, WHOLE_FILE, ConfigRefused, did_you_mean
from tensorquay.config.triton_lines import line_of
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
_NO_VALUE = re.compile(
    r'(?:Enum type "inference\.(?P<type>[\w.]+)" has no value named (?P<value>\w+)'
    r"|Invalid enum value (?P<json_value>\w+) for enum type inference\.(?P<json_type>[\w.]+\w))"
)
_AT_THE_END = re.compile(r"""(?:'': (?:Expected|Couldn't parse \w+: ?$)|Expected "}")""")
"""How the parser complains when it ran out of text: about an empty line, or about the last one that was not."""

_TWICE = re.compile(r'should not have multiple "(\w+)" fields')
_SYNTAX = {
    r"= .*': Expected \":\"": "config.pbtxt writes 'key: value'; 'key = value' is config.toml's form",
    r"got \{": "JSON is not read here; write 'key: value', without quotes around keys",
    r"does not have extensions": "tables between brackets are config.toml's form; config.pbtxt writes 'name { … }'",
    r"Couldn't parse integer": "it must be a whole number, without quotes",
    r"Couldn't parse (float|double)": "it must be a number, without quotes",
    r"Value out of range": "the number is too great for this field, or too small",
    r"Expected string": "text stands between quotes",
    r"missing ending quote": "text on one line ends with the quote that it begins with",
    r"Expected \"true\" or \"false\"|bool": "it must be true or false, without quotes",
    r"key.*Expected \"{\"": 'a parameter is written parameters { key: "…" value { string_value: "…" } }',
}
"""Part of the parser's complaint → what to do about it."""


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
        raise ConfigRefused(file=source, key=WHOLE_FILE, value=None, rule=f"not text protobuf: {_cut(error)}") from None
    repeated = repeated_key(written)
    if repeated is not None:
        field, key = repeated
        rule = "an entry without a key" if key is None else f"the key {str(key)[:120]!r} is given twice"
        raise ConfigRefused(file=source, key=field, value=None, rule=rule)
    try:
        message = ModelConfigMessage.FromString(written.SerializeToString())
    except (DecodeError, ValueError) as error:
        raise ConfigRefused(file=source, key=WHOLE_FILE, value=None, rule=_cut(error)) from None
    try:
        return replace(read(message, source, says_max_batch_size=written.HasField("max_batch_size")), text=text)
    except ConfigRefused as refused:
        raise refused.at(line_of(text, refused.key)) from None


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
            file=source, key=WHOLE_FILE, value=f"{size} bytes", rule=f"at most {MAX_CONFIG_BYTES} bytes are read"
        )


def _refuse_text(error: text_format.ParseError, source: str) -> NoReturn:
    line = error.GetLine()
    unknown = _UNKNOWN.search(str(error))
    if unknown is not None:
        raise _unknown_field(unknown, source, line) from None
    text = re.sub(r"^\d+:\d+ : ", "", str(error))
    twice = _TWICE.search(text)
    if twice is not None:
        raise ConfigRefused(
            file=source, key=twice[1], value=None, rule="it is given twice", hint="keep one", line=line
        ) from None
    rule, hint = _no_such_value(text)
    if _AT_THE_END.match(text):
        rule, hint = "the file ends inside a block or before a value", "look for a missing '}' or ']'"
    if not rule:
        rule = f"not text protobuf: {_cut(text).rstrip('.')}"
        hint = next((hint for part, hint in _SYNTAX.items() if re.search(part, text)), "")
    raise ConfigRefused(file=source, key=WHOLE_FILE, value=None, rule=rule, hint=hint, line=line) from None


def _refuse_json(error: json_format.ParseError, source: str) -> NoReturn:
    text = str(error)
    unknown = _UNKNOWN.search(text)
    if unknown is not None:
        raise _unknown_field(unknown, source, None) from None
    at = _FAILED_AT.findall(text)
    rule, hint = _no_such_value(text)
    raise ConfigRefused(
        file=source, key=at[-1] if at else "config", value=None, rule=rule or _cut(text), hint=hint
    ) from None


def _no_such_value(text: str) -> tuple[str, str]:
    """Rule and hint for a word that is no value of its enum, mostly because its prefix is missing; empty for others."""
    found = _NO_VALUE.search(text)
    if found is None:
        return "", ""
    kind, word = found["type"] or found["json_type"], found["value"] or found["json_value"]
    known = [value.name for value in POOL.FindEnumTypeByName(f"inference.{kind}").values]
    prefix = f"{known[0].partition('_')[0]}_"
    bare = word.upper().removeprefix(prefix)
    meant = prefix + {**OTHER_TYPES, "BYTES": "STRING", "STRING": "STRING"}.get(bare, bare)
    hint = f"did you mean {meant}?" if meant in known else did_you_mean(meant, known)
    return f"{word[:120]} is no value of {kind}", hint


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
