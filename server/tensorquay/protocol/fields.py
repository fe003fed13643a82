"""Rules for the fields of a request that JSON and protobuf share: ids, tensor names, data types."""

from __future__ import annotations

from collections.abc import Sequence

from tensorquay.core.datatypes import DataType, UnknownDataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.tensors import Tensor

MAX_TENSORS = 1024
"""Most inputs, and most requested outputs, of one request."""

MAX_PARAMETERS = 1024
"""Most parameters of one request, input or output."""

MAX_ID = 4096
"""Longest request id, in characters: it is echoed, logged and traced."""

MAX_NAME = 1024
"""Longest name of a tensor, in characters."""


def check_id(request_id: str) -> str:
    """`request_id`, when it is not too long.

    Raises: InvalidArgument.
    """
    if len(request_id) > MAX_ID:
        raise InvalidArgument(f"'id' has {len(request_id)} characters, at most {MAX_ID} are accepted")
    return request_id


def check_name(where: str, index: int, name: str) -> str:
    """`name`, when it can name a tensor; `where` is "inputs" or "outputs".

    Raises: InvalidArgument.
    """
    if 0 < len(name) <= MAX_NAME:
        return name
    raise InvalidArgument(f"{where}[{index}]: 'name' must have 1 to {MAX_NAME} characters, got {len(name)}")


def check_count(what: str, count: int, limit: int = MAX_TENSORS) -> None:
    """Refuse more than `limit` of `what` ("inputs").

    Raises: InvalidArgument.
    """
    if count > limit:
        raise InvalidArgument(f"the request has {count} {what}, at most {limit} are accepted")


def check_unique(inputs: Sequence[Tensor]) -> None:
    """Refuse two inputs of one name.

    Raises: InvalidArgument.
    """
    if len({tensor.name for tensor in inputs}) == len(inputs):
        return
    seen: set[str] = set()
    for tensor in inputs:
        if tensor.name in seen:
            raise InvalidArgument(f"input '{tensor.name}' is given more than once", facts={"input": tensor.name})
        seen.add(tensor.name)


def datatype_of(name: str, wire: str) -> DataType:
    """The data type that input `name` is said to have.

    Raises: InvalidArgument naming the known ones.
    """
    try:
        return DataType.from_wire(wire)
    except UnknownDataType:
        known = ", ".join(member.wire for member in DataType)
        raise InvalidArgument(
            f"input '{name}': unknown data-type '{wire:.32}', expected one of {known}",
            facts={"input": name, "got": wire[:32]},
        ) from None
