"""gRPC server reflection over bytes: which services there are, and the descriptors of their messages.

v1 and v1alpha are one wire form, so one function answers both. Extensions are a proto2 feature none of our files
has: those requests are answered with UNIMPLEMENTED, inside the stream, as the protocol has it.
Source: gRPC server reflection protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FileDescriptor

from tensorquay.core.errors import ErrorKind
from tensorquay.protocol.schema import SERVICES, message_class, parse, pool, serialise
from tensorquay.protocol.status import grpc_code

METHODS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
"""Both are streams of requests and answers, one answer per request."""

_REQUEST = "grpc.reflection.v1.ServerReflectionRequest"
_RESPONSE = "grpc.reflection.v1.ServerReflectionResponse"


def answer(request: bytes | memoryview, services: Sequence[str] = SERVICES) -> bytes:
    """The answer to one ServerReflectionRequest; `services` are the full names to list.

    Unknown names are an error inside the answer. Raises: InvalidArgument for a damaged request.
    """
    asked = parse(_REQUEST, request)
    response = message_class(_RESPONSE)(valid_host=asked.host)
    response.original_request.CopyFrom(asked)
    choice = asked.WhichOneof("message_request")
    if choice == "list_services":
        for name in services:
            response.list_services_response.service.add(name=name)
    elif choice in {"file_by_filename", "file_containing_symbol"}:
        wanted: str = getattr(asked, choice)
        file = _file(choice, wanted)
        if file is None:
            _refuse(response, ErrorKind.NOT_FOUND, f"no descriptor of '{wanted:.256}' here")
        else:
            response.file_descriptor_response.file_descriptor_proto.extend(_with_imports(file))
    else:
        _refuse(response, ErrorKind.UNIMPLEMENTED, f"reflection request '{choice}' is not supported: no extensions")
    return serialise(response)


def _file(choice: str, wanted: str) -> FileDescriptor | None:
    try:
        if choice == "file_by_filename":
            return pool().FindFileByName(wanted)
        return pool().FindFileContainingSymbol(wanted)
    except KeyError:
        pass
    try:  # the pool's search by symbol leaves out methods, which `grpcurl describe` asks for
        return pool().FindMethodByName(wanted).containing_service.file
    except KeyError:
        return None


def _with_imports(file: FileDescriptor) -> list[bytes]:
    """`file` and everything it needs, serialised, itself first."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current.name not in found:
            found[current.name] = current.serialized_pb
            waiting.extend(current.dependencies)
    return list(found.values())


def _refuse(response: Any, kind: ErrorKind, message: str) -> None:
    response.error_response.error_code = grpc_code(kind)
    response.error_response.error_message = message
