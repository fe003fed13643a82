"""Bytes of a connection → HTTP/2 frames, in order, each checked for its own form.

Knows what a frame looks like on the wire and where its bytes go, not what it means: that is `h2_connection.py`.
Payloads of DATA frames are handed on as they arrive, so the size of a frame takes no memory; every other frame is
small, and waits until it is whole. Source: RFC 9113 §3.4, §4, §6.
"""

from __future__ import annotations

import asyncio

from tensorquay.transport import h2_frames as f
from tensorquay.transport.h2_frames import ConnectionFault, ErrorCode
from tensorquay.transport.h2_limits import H2Limits

STAGING_BYTES = 128 * 1024
"""Size of the buffer that all connections receive into; larger than any frame that must be whole."""

_WHOLE_BYTES = 16 * 1024
"""Up to this size a DATA frame is worth waiting for: whole messages take the short way."""
_COPY_BYTES = 16 * 1024
"""Up to this size what was received is copied to `bytes` at once, which makes every slice of it cheaper."""
_DIRECT_BYTES = 4096
"""From here on the rest of a payload is worth a system call of its own."""

_MAX_SETTINGS = 64
_SIZES = {f.PRIORITY: 5, f.RST_STREAM: 4, f.PING: 8, f.WINDOW_UPDATE: 4}
_SIMPLE = f.END_HEADERS | f.PADDED | f.HAS_PRIORITY


class FrameReader(asyncio.BufferedProtocol):
    """The receiving half of a connection; its subclass says what frames mean. Loop-confined.

    Args: staging: a writable view that all connections share; nothing in it outlives `buffer_updated`.
    """

    def __init__(self, staging: memoryview, limits: H2Limits) -> None:
        self._staging = staging
        self._frame_bytes = limits.frame_bytes
        self._block_bytes = limits.header_block_bytes
        self._max_continuations = limits.continuations
        self.heard = False
        self.deaf = False
        self._opened = False
        self._preface = 0
        self._rest = b""
        self._direct: memoryview | None = None
        # The DATA frame under way: payload still to come, padding after it, bytes of no interest.
        self._left = self._padding = 0
        self._data_stream = 0
        self._data_ends = False
        self._skip = 0
        # Whether any of that, or the beginning or the end of the connection, must be looked at before the next frame.
        self._unusual = True
        # The header block under way.
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_flags = 0
        self._block_since_ns: int | None = None
        self._continuations = 0

    # -- what a subclass does with frames; `data` is only lent

    def on_headers(self, stream: int, block: bytes, end_stream: int) -> None:
        """A whole header block."""
        raise NotImplementedError

    def on_data(self, stream: int, data: bytes | memoryview, start: int, stop: int, end_stream: int) -> None:
        """A whole DATA frame without padding, not yet counted against windows."""
        raise NotImplementedError

    def on_data_begun(self, stream: int, length: int, end_stream: int) -> None:
        """A DATA frame of `length` bytes, padding included, whose payload follows in pieces."""
        raise NotImplementedError

    def on_piece(self, stream: int, data: bytes | memoryview, start: int, stop: int, end_stream: bool) -> None:
        """Part of the payload of the frame begun last; `end_stream` with its last part only."""
        raise NotImplementedError

    def direct_target(self, stream: int) -> memoryview | None:
        """Where payload of `stream` can be received straight into, or None."""
        raise NotImplementedError

    def on_direct(self, stream: int, count: int, end_stream: bool) -> None:
        """As `on_piece`, for bytes that are already where `direct_target` said."""
        raise NotImplementedError

    def on_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Frames that are neither headers nor data: of GOAWAY the first eight bytes, of unknown types nothing."""
        raise NotImplementedError

    def on_fault(self, fault: ConnectionFault) -> None:
        """The connection cannot go on."""
        raise NotImplementedError

    def on_bug(self, error: Exception) -> None:
        """Our own mistake, while reading."""
        raise NotImplementedError

    # -- asyncio

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's signature
        """Where to receive: straight into a large message where there is one under way."""
        self._direct = None
        if self._left >= _DIRECT_BYTES:
            target = self.direct_target(self._data_stream)
            if target is not None and len(target) >= _DIRECT_BYTES:
                self._direct = target[: self._left]
                return self._direct
        rest = self._rest
        if rest:
            self._staging[: len(rest)] = rest
            return self._staging[len(rest) :]
        return self._staging

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were received."""
        self.heard = True
        if self.deaf:
            return
        try:
            if self._direct is not None:
                self._direct = None
                self._left -= nbytes
                self.on_direct(self._data_stream, nbytes, self._data_ends and not self._left)
                return
            total = len(self._rest) + nbytes
            if total <= _COPY_BYTES:
                self._parse(bytes(self._staging[:total]))
            else:
                self._parse(self._staging[:total])
        except ConnectionFault as fault:
            self.on_fault(fault)
        except Exception as error:  # noqa: BLE001  a bug of ours must end this connection and hurt no other
            self.on_bug(error)

    def stop(self) -> None:
        """Take in nothing more, and let go of what was begun."""
        self.deaf = True
        self._rest = b""
        self._block = self._direct = None
        self._left = self._padding = self._skip = 0
        self._unusual = True

    # -- frames

    @property
    def in_frame(self) -> bool:
        """Whether a frame or a header block has begun and is not complete."""
        return bool(self._rest or self._left or self._block is not None)

    def block_waits(self, now_ns: int) -> int:
        """How long a header block has been under way, since this was first asked; in nanoseconds."""
        if self._block is None:
            return 0
        if self._block_since_ns is None:
            self._block_since_ns = now_ns
        return now_ns - self._block_since_ns

    def _parse(self, data: bytes | memoryview) -> None:
        position, end = 0, len(data)
        unpack = f.HEAD.unpack_from
        if not self._opened:
            position = self._read_preface(data, end)
        frame_bytes = self._frame_bytes
        while True:
            if self._unusual:
                if self.deaf or not self._opened:
                    break
                position = self._go_on(data, position, end)
            start = position + 9
            if start > end:
                break
            high, low, kind, flags, stream = unpack(data, position)
            length = high << 8 | low
            stop = start + length
            stream &= 0x7FFFFFFF
            if stop <= end and length <= frame_bytes and self._block is None:
                if kind == 0:
                    if not flags & 0x8 and stream:
                        position = stop
                        self.on_data(stream, data, start, stop, flags & 1)
                        continue
                elif kind == 1 and flags & _SIMPLE == 0x4 and stream and length <= self._block_bytes:
                    position = stop
                    self.on_headers(stream, bytes(data[start:stop]), flags & 1)
                    continue
            taken = self._other(kind, flags, stream, length, data, start, end)
            if taken < 0:
                break
            position = taken
            self._unusual = True
        self._rest = bytes(data[position:end]) if position < end and not self.deaf else b""

    def _read_preface(self, data: bytes | memoryview, end: int) -> int:
        """The client's preface, and that SETTINGS follow it. Returns: the position behind the preface."""
        expected = f.PREFACE[self._preface : self._preface + end]
        got = bytes(data[: len(expected)])
        if got != expected:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface; this port speaks gRPC")
        self._preface += len(got)
        if end - len(got) >= f.HEAD_BYTES:
            _, _, kind, flags, _ = f.HEAD.unpack_from(data, len(got))
            if kind != f.SETTINGS or flags & f.ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            self._opened = True
        return len(got)

    def _go_on(self, data: bytes | memoryview, position: int, end: int) -> int:
        """More of the frame under way. Returns: the position behind what belongs to it."""
        if self._left:
            count = min(self._left, end - position)
            if not count:
                return position
            self._left -= count
            self.on_piece(self._data_stream, data, position, position + count, self._data_ends and not self._left)
            position += count
        if not self._left and self._padding:
            count = min(self._padding, end - position)
            self._padding -= count
            position += count
        if self._skip:
            count = min(self._skip, end - position)
            self._skip -= count
            position += count
        self._unusual = bool(self._left or self._padding or self._skip or self.deaf)
        return position

    def _other(
        self, kind: int, flags: int, stream: int, length: int, data: bytes | memoryview, start: int, end: int
    ) -> int:
        """Any frame but the two common ones. Returns: the position to go on from, or −1 to wait for more bytes."""
        if length > self._frame_bytes:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes, {self._frame_bytes} allowed")
        if self._block is not None and not (kind == f.CONTINUATION and stream == self._block_stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted by another frame")
        if kind == f.DATA:
            return self._data(flags, stream, length, data, start, end)
        if kind in {f.HEADERS, f.CONTINUATION}:
            return self._headers(kind, flags, stream, length, data, start, end)
        if kind == f.PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client may not send PUSH_PROMISE")
        if kind > f.CONTINUATION:
            self._skip = length
            self.on_control(kind, flags, stream, b"")
            return start
        return self._control(kind, flags, stream, length, data, start, end)

    def _data(self, flags: int, stream: int, length: int, data: bytes | memoryview, start: int, end: int) -> int:
        if not stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA without a stream")
        padding = 0
        if flags & f.PADDED:
            if not length:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padded DATA without a pad length")
            if start == end:
                return -1
            padding = data[start]
            if padding >= length:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
            start += 1
        elif length <= _WHOLE_BYTES:
            return -1
        self.on_data_begun(stream, length, flags & f.END_STREAM)
        self._data_stream = stream
        self._data_ends = bool(flags & f.END_STREAM)
        self._padding = padding
        self._left = length - padding - (1 if flags & f.PADDED else 0)
        if not self._left:
            self.on_piece(stream, b"", 0, 0, self._data_ends)
        return start

    def _headers(
        self, kind: int, flags: int, stream: int, length: int, data: bytes | memoryview, start: int, end: int
    ) -> int:
        if not stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS or CONTINUATION without a stream")
        if length > self._block_bytes + 261:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of more than {self._block_bytes} bytes")
        stop = start + length
        if stop > end:
            return -1
        last = stop
        if kind == f.HEADERS:
            start, last = _unpadded(flags, data, start, stop)
            self._block = bytearray()
            self._block_since_ns = None
            self._block_stream = stream
            self._block_flags = flags
            self._continuations = 0
        elif self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block before it")
        else:
            self._continuations += 1
            if self._continuations > self._max_continuations:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        self._block += data[start:last]
        if len(self._block) > self._block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of more than {self._block_bytes} bytes")
        if flags & f.END_HEADERS:
            block, self._block = bytes(self._block), None
            self.on_headers(stream, block, self._block_flags & f.END_STREAM)
        return stop

    def _control(
        self, kind: int, flags: int, stream: int, length: int, data: bytes | memoryview, start: int, end: int
    ) -> int:
        on_stream = kind in {f.PRIORITY, f.RST_STREAM}
        if on_stream and not stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} without a stream")
        if stream and kind in {f.SETTINGS, f.PING, f.GOAWAY}:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} on a stream")
        if kind == f.SETTINGS:
            if length % 6 or (flags & f.ACK and length):
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame of impossible length")
            if length > 6 * _MAX_SETTINGS:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {_MAX_SETTINGS} settings in a frame")
            kept = length
        elif kind == f.GOAWAY:
            if length < 8:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY frame that is too short")
            kept = 8
        else:
            kept = _SIZES[kind]
            if length != kept and kind != f.PRIORITY:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")
            # A PRIORITY frame of a wrong size is the fault of its stream alone, which `on_control` sees by its length.
            kept = min(kept, length)
        if start + kept > end:
            return -1
        self._skip = length - kept
        wrong_priority = kind == f.PRIORITY and length != _SIZES[kind]
        self.on_control(kind, flags, stream, b"" if wrong_priority else bytes(data[start : start + kept]))
        return start + kept


def _unpadded(flags: int, data: bytes | memoryview, start: int, stop: int) -> tuple[int, int]:
    """Where the block fragment of a HEADERS frame begins and ends."""
    padding = 0
    if flags & f.PADDED:
        if start == stop:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padded HEADERS without a pad length")
        padding = data[start]
        start += 1
    if flags & f.HAS_PRIORITY:
        start += 5
        if start > stop:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
    if padding > stop - start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return start, stop - padding
