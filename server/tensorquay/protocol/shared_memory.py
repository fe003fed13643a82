"""Tensors that travel through shared memory: what the codecs ask of the registry of regions, and the client's side.

The registry itself is another room's; a codec gets it as an argument, or None when the server runs without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument, Unimplemented
from tensorquay.core.messages import Parameter
from tensorquay.core.tensors import Tensor, from_buffer, to_buffer

REGION = "shared_memory_region"
BYTE_SIZE = "shared_memory_byte_size"
OFFSET = "shared_memory_offset"

_MAX_BYTES = 2**63 - 1


class SharedMemory(Protocol):
    """Regions that clients have registered. Offsets and sizes are in bytes and never negative."""

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        """The bytes at `offset`.

        Raises: ServingError for an unknown region or a range outside it.
        """
        ...

    def write(self, region: str, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`.

        Raises: ServingError for an unknown region or a range outside it.
        """
        ...


@dataclass(frozen=True, slots=True)
class ShmTarget:
    """A range of a region, in bytes."""

    region: str
    offset: int
    byte_size: int


def shared_memory_off() -> Unimplemented:
    """The answer to any use of shared memory on a server that runs without."""
    return Unimplemented("shared memory is off; start the server with --allow-client-shm=true")


def target_of(what: str, parameters: Mapping[str, Parameter], *, allowed: bool) -> ShmTarget | None:
    """The range that the parameters of `what` ("input 'x'") name, or None.

    Raises: InvalidArgument for a range that is incomplete or no range; Unimplemented unless `allowed`.
    """
    if REGION not in parameters:
        for name in (BYTE_SIZE, OFFSET):
            if name in parameters:
                raise InvalidArgument(f"{what}: parameter '{name}' needs '{REGION}'")
        return None
    if not allowed:
        raise shared_memory_off()
    region = parameters[REGION]
    if type(region) is not str or not region:
        raise InvalidArgument(f"{what}: parameter '{REGION}' must be the name of a region, got {region!r:.64}")
    if BYTE_SIZE not in parameters:
        raise InvalidArgument(f"{what}: '{BYTE_SIZE}' is missing, it must be given with '{REGION}'")
    byte_size = _bytes(what, BYTE_SIZE, parameters[BYTE_SIZE])
    return ShmTarget(region, _bytes(what, OFFSET, parameters.get(OFFSET, 0)), byte_size)


def read_tensor(shm: SharedMemory | None, target: ShmTarget, name: str, datatype: DataType, shape: list[int]) -> Tensor:
    """The tensor at `target`, copied out: the client may change or unregister the memory while the model runs."""
    if shm is None:
        raise shared_memory_off()
    return from_buffer(name, datatype, shape, bytes(shm.read(target.region, target.offset, target.byte_size)))


def write_tensor(shm: SharedMemory | None, target: ShmTarget, tensor: Tensor) -> None:
    """Put the binary form of `tensor` at `target`.

    Raises: InvalidArgument when the range is too small.
    """
    if shm is None:
        raise shared_memory_off()
    data = to_buffer(tensor)
    if len(data) > target.byte_size:
        raise InvalidArgument(
            f"shared memory size specified with the request for output '{tensor.name}' ({target.byte_size} bytes) "
            f"should be at least {len(data)} bytes to hold the results",
            facts={"output": tensor.name, "expected": len(data), "got": target.byte_size},
        )
    shm.write(target.region, target.offset, data)


def _bytes(what: str, name: str, value: Parameter) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_BYTES:
        raise InvalidArgument(f"{what}: parameter '{name}' must be a number of bytes, got {value!r:.64}")
    return value
