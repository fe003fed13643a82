"""The message classes of inference.proto, in a descriptor pool of their own.

tritonclient, kserve and mlserver register messages of the same names in protobuf's default pool, where a second copy
is an error; a private pool lets all of them live in one process. Read on first use, never at import.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    compiled = files("tensorquay_client").joinpath("inference.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    return pool


@cache
def message_class(name: str) -> Any:
    """The class of message `inference.<name>`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))
