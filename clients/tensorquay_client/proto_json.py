"""A protobuf message as plain Python values, in the form the REST side of the protocol gives them.

Snake-case names, every singular scalar printed, 64-bit integers as int, enums as names, unset messages left out.
protobuf's own JSON writer turns 64-bit integers into text, which numbers over HTTP are not.
"""

from __future__ import annotations

from typing import Any


def to_dict(message: Any) -> dict[str, Any]:
    """`message` and everything in it as dict, list, str, int, float and bool."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            item = field.message_type.fields_by_name["value"]
            result[field.name] = {str(key): _plain(item, entry) for key, entry in value.items()}
        elif field.is_repeated:
            result[field.name] = [_plain(field, entry) for entry in value]
        elif not field.has_presence or message.HasField(field.name):
            result[field.name] = _plain(field, value)
    return result


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
