"""The protobuf messages this server speaks, in the private pool that the model configuration lives in too.

Private, because client libraries register the same names in the default pool, and one process may hold both (our
tests do). Messages are built from the checked-in descriptor sets (.binpb), so no generated modules are needed.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tensorquay.config.triton import POOL
from tensorquay.core.errors import InvalidArgument

DESCRIPTOR_SETS = ("inference", "grpc_health", "grpc_reflection", "grpc_reflection_v1alpha")
"""Files beside this one; what they import is in the pool already."""

SERVICES = (
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Every gRPC service this server answers, by full name."""


@cache
def pool() -> DescriptorPool:
    """The private pool with all of our files in it; they are read once, on first use."""
    for name in DESCRIPTOR_SETS:
        content = resources.files(__package__).joinpath(f"{name}.binpb").read_bytes()
        for file in FileDescriptorSet.FromString(content).file:
            POOL.AddSerializedFile(file.SerializeToString())
    return POOL


@cache
def message_class(full_name: str) -> Any:
    """The class of message `full_name` ("inference.ModelInferRequest"); only ever called with names from our code.

    Any, because its fields exist at run time only.
    """
    return GetMessageClass(pool().FindMessageTypeByName(full_name))


def parse(full_name: str, data: bytes | memoryview) -> Any:
    """The message of that type in `data`.

    Raises: InvalidArgument when `data` is no such message: cut, damaged, or with text that is not UTF-8.
    """
    try:
        return message_class(full_name).FromString(data)
    except DecodeError as exc:
        raise InvalidArgument(
            f"the request is no valid {full_name} message: the data is cut or damaged, or a text is not UTF-8"
        ) from exc


def text(value: str) -> str:
    """`value` as protobuf takes it: lone surrogates (from odd file names) become question marks."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def serialise(message: Any) -> bytes:
    """The bytes of `message`."""
    data: bytes = message.SerializeToString()
    return data
