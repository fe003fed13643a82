"""System shared memory that clients registered, as the V2 extension has it.

Owns the file descriptors of the regions. Reads and writes go through `pread` and `pwrite`, never through a mapping: a
client that shrinks its region would kill the process with SIGBUS at the next access of a mapped page, while a read
past the end is only short. A region registered here is trusted like a local user: the whole extension is off unless
the operator allowed it. Source of names and texts: Triton's system shared memory extension.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from tensorquay.core.errors import ErrorKind, InvalidArgument, NotFound, Overloaded, ServingError, Unimplemented
from tensorquay.core.messages import SharedMemoryRegion

SHM_DIRECTORY = Path("/dev/shm")  # noqa: S108 - this is where POSIX shared memory is, not a temporary file
MAX_REGIONS = 4096
MAX_NAME = 1024
_KEY = re.compile(r"/?([^/\x00-\x1f\x7f]{1,255})")
_OFF = "client shared memory is switched off on this server; it is allowed with --allow-client-shm=true"


@dataclass(slots=True)
class _Region:
    """An open region; the descriptor is closed when the last user lets go of the object."""

    shown: SharedMemoryRegion
    descriptor: int

    def __del__(self) -> None:
        os.close(self.descriptor)


class SharedMemoryRegistry:
    """The registered regions. Reads and writes may come from any thread; registering is loop-confined.

    Args:
        enabled: False makes every call raise Unimplemented.
        directory: where the system keeps POSIX shared memory.
    """

    def __init__(self, *, enabled: bool, directory: Path = SHM_DIRECTORY, max_regions: int = MAX_REGIONS) -> None:
        self.enabled = enabled
        self._directory = directory
        self._max_regions = max_regions
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open the region `key` ("/name" or "name") and call `byte_size` bytes from `offset` on `name`.

        Raises: Unimplemented when off; ServingError (ALREADY_EXISTS) for a taken name; InvalidArgument for a key that
        is no plain name or cannot be opened, or a range outside the region; Overloaded with too many regions.
        """
        self._refuse_if_off()
        if not name or len(name) > MAX_NAME:
            raise InvalidArgument(f"a shared memory region needs a name of 1 to {MAX_NAME} characters, got {len(name)}")
        if name in self._regions:
            raise ServingError(f"shared memory region '{name}' already in manager", kind=ErrorKind.ALREADY_EXISTS)
        if len(self._regions) >= self._max_regions:
            raise Overloaded(
                f"failed to register shared memory region '{name}': {self._max_regions} regions are registered, "
                "the most this server keeps; unregister some",
                retry_after_s=1.0,
            )
        if offset < 0 or byte_size <= 0:
            raise InvalidArgument(
                f"failed to register shared memory region '{name}': invalid args, expected offset >= 0 and "
                f"byte_size > 0, got offset {_number(offset)} and byte_size {_number(byte_size)}"
            )
        region = _Region(SharedMemoryRegion(name, key, offset, byte_size), self._open(name, key))
        status = os.fstat(region.descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"Unable to open shared memory region: '{_brief(key)}' is not shared memory")
        if offset + byte_size > status.st_size:
            raise InvalidArgument(
                f"failed to register shared memory region '{name}': invalid args, offset {_number(offset)} + byte_size "
                f"{_number(byte_size)} is more than the {status.st_size} bytes of '{_brief(key)}'",
                facts={"expected": status.st_size},
            )
        self._regions[name] = region

    def unregister(self, name: str | None = None) -> None:
        """Forget region `name`, or all of them without a name. An unknown name is no error (Triton's rule).

        Raises: Unimplemented when off.
        """
        self._refuse_if_off()
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str | None = None) -> tuple[SharedMemoryRegion, ...]:
        """Region `name`, or all of them by name.

        Raises: Unimplemented when off; NotFound.
        """
        self._refuse_if_off()
        if not name:
            return tuple(self._regions[each].shown for each in sorted(self._regions))
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find system shared memory region: '{_brief(name)}'")
        return (region.shown,)

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """A copy of `byte_size` bytes from `offset` within region `name`; read-only.

        A copy, so that a client that writes on cannot change an input between its check and its use.
        Raises: Unimplemented when off; NotFound; InvalidArgument for a range outside the region, or when the client
        made the region smaller since.
        """
        region = self._range(name, offset, byte_size)
        # The size is bounded by what existed when it was registered; ask again before so much memory is made.
        self._refuse_if_shrunk(region, offset + byte_size)
        buffer = bytearray(byte_size)
        view, done = memoryview(buffer), 0
        start = region.shown.offset + offset
        while done < byte_size:
            got = os.preadv(region.descriptor, [view[done:]], start + done)
            if got == 0:
                raise _shrunk(name)
            done += got
        return view.toreadonly()

    def write(self, name: str, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` (flat bytes) at `offset` within region `name`.

        Raises: as `read`.
        """
        view = memoryview(data).cast("B")
        region = self._range(name, offset, len(view))
        # Writing past the end would make the client's file grow again.
        self._refuse_if_shrunk(region, offset + len(view))
        start, done = region.shown.offset + offset, 0
        while done < len(view):
            try:
                done += os.pwrite(region.descriptor, view[done:], start + done)
            except OSError as exc:
                raise InvalidArgument(
                    f"cannot write to shared memory region '{_brief(name)}': {exc.strerror or 'the system refused'}"
                ) from exc

    def check_range(self, name: str, offset: int, byte_size: int) -> None:
        """Whether `read` or `write` of that range could work: for outputs, asked before anything is run.

        Raises: as `read`.
        """
        region = self._range(name, offset, byte_size)
        self._refuse_if_shrunk(region, offset + byte_size)

    def close(self) -> None:
        """Let go of every region."""
        self._regions.clear()

    def _refuse_if_off(self) -> None:
        if not self.enabled:
            raise Unimplemented(_OFF)

    def _open(self, name: str, key: str) -> int:
        plain = _KEY.fullmatch(key)
        if plain is None or plain[1] in {".", ".."}:
            raise InvalidArgument(
                f"failed to register shared memory region '{_brief(name)}': the key '{_brief(key)}' is not one plain "
                "name, with or without a leading '/'"
            )
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self._directory / plain[1], flags)
        except OSError as exc:
            raise InvalidArgument(
                f"Unable to open shared memory region: '{_brief(key)}': {exc.strerror or 'the system refused'}"
            ) from exc

    def _range(self, name: str, offset: int, byte_size: int) -> _Region:
        self._refuse_if_off()
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{_brief(name)}'")
        size = region.shown.byte_size
        if not 0 <= offset < size:
            raise InvalidArgument(
                f"Invalid offset for shared memory region: '{name}', got {_number(offset)}, it has {size} bytes"
            )
        if byte_size < 0 or offset + byte_size > size:
            raise InvalidArgument(
                f"Invalid offset + byte size for shared memory region: '{name}', got {_number(offset)} + "
                f"{_number(byte_size)}, it has {size} bytes"
            )
        return region

    def _refuse_if_shrunk(self, region: _Region, end: int) -> None:
        if os.fstat(region.descriptor).st_size < region.shown.offset + end:
            raise _shrunk(region.shown.name)


def _shrunk(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"Invalid shared memory region: '{_brief(name)}' is smaller now than when it was registered; register it again"
    )


def _brief(text: str) -> str:
    """A client's text, cut and on one line."""
    return text[:120].encode("unicode_escape").decode("ascii")


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**20 else "a huge number"
