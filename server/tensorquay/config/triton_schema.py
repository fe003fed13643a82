"""Triton's model configuration as protobuf messages, in a pool of our own.

tritonclient and others register the same names in protobuf's default pool, where a second copy is an error; ours never
go there. The pool also takes the service's messages (`protocol/`), which refer to this one.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

MODEL_CONFIG = "inference.ModelConfig"


def _read_set() -> descriptor_pb2.FileDescriptorSet:
    data = pkgutil.get_data(__package__ or "tensorquay.config", "model_config.binpb")
    assert data is not None
    return descriptor_pb2.FileDescriptorSet.FromString(data)


def _pool(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


# At import because every user needs it and it is a constant: 11 kB, well under a millisecond.
POOL = _pool(_read_set())
"""Private pool; file "model_config.proto", package `inference`."""

ModelConfigMessage: type[Message] = message_factory.GetMessageClass(POOL.FindMessageTypeByName(MODEL_CONFIG))
"""Class of `inference.ModelConfig`."""


@functools.cache
def text_class() -> type[Message]:
    """A class that reads the same text as `inference.ModelConfig` but forgets nothing that was written.

    proto3 cannot tell `max_batch_size: 0` from its absence and keeps only the last of two equal map keys. The same
    schema declared as proto2, with maps as plain repeated entries, keeps both; its bytes are the same.
    """
    files = _read_set()
    for file in files.file:
        file.syntax = "proto2"
        for message in _messages(file.message_type):
            message.options.ClearField("map_entry")
    return message_factory.GetMessageClass(_pool(files).FindMessageTypeByName(MODEL_CONFIG))


def _messages(found: Any) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in found:
        yield message
        yield from _messages(message.nested_type)


def repeated_key(text_message: Message) -> tuple[str, object] | None:
    """The first map of a `text_class()` message that has a key twice or an entry without one: (field, key or None)."""
    return _repeated_key(text_message, ModelConfigMessage.DESCRIPTOR, "")


def _repeated_key(message: Message, schema: Any, path: str) -> tuple[str, object] | None:
    for field, value in message.ListFields():
        real = schema.fields_by_name[field.name]
        if real.message_type is None:
            continue
        where = f"{path}.{field.name}" if path else field.name
        is_map = real.message_type.GetOptions().map_entry
        seen: set[object] = set()
        for item in value if isinstance(value, Message) is False else (value,):
            if is_map:
                key = item.key if item.HasField("key") else None
                if key is None or key in seen:
                    return where, key
                seen.add(key)
            found = _repeated_key(item, real.message_type, where)
            if found is not None:
                return found
    return None
