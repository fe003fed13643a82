"""Mutations that keep a structure: a byte changed at random in a frame or a message mostly makes it unreadable."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.target import Damage

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEAD = 9
_ODD_LENGTHS = (0, 1, 4, 5, 6, 8, 9, 16_384, 16_385, 2**24 - 1)
_ODD_NUMBERS = (0, 1, 2**7 - 1, 2**7, 2**14, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_ODD_BYTES = (b"\0", b"\xff", b"\r\n", b"\x80", b"0", b"-1", b"\xc3\x28")
_DEEPEST = 4


def damaged(data: bytes, random_: random.Random) -> bytes:
    """`data` with a few bytes changed, lost, repeated or added."""
    out = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        at = random_.randint(0, len(out))
        end = at + random_.randint(0, 8)
        kind = random_.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = random_.randrange(256)
        elif kind == 1:
            del out[at:end]
        elif kind == 2:
            out[at:at] = out[at:end]
        elif kind == 3:
            out[at:at] = random_.choice(_ODD_BYTES)
        elif at < len(out):
            out[at] ^= 1 << random_.randrange(8)
    return bytes(out)


# -- lists of pieces


def _rearranged(pieces: list[bytes], random_: random.Random, change: Callable[[bytes], bytes]) -> list[bytes]:
    """`pieces` with one changed, lost, repeated or in another place."""
    if not pieces:
        return pieces
    out = list(pieces)
    at, other = random_.randrange(len(out)), random_.randrange(len(out))
    kind = random_.randrange(6)
    if kind == 0:
        del out[at]
    elif kind == 1:
        out.insert(other, out[at])
    elif kind == 2:
        out[at], out[other] = out[other], out[at]
    elif kind == 3 and len(out) < 64:
        out[other:other] = out[at : at + 4]
    else:
        out[at] = change(out[at])
    return out


# -- HTTP/2 frames


def frames_of(data: bytes) -> list[bytes]:
    """`data` as its preface and frames; the last piece may be what is left."""
    pieces = []
    if data.startswith(_PREFACE):
        pieces.append(_PREFACE)
        data = data[len(_PREFACE) :]
    while len(data) >= _FRAME_HEAD:
        end = _FRAME_HEAD + int.from_bytes(data[:3], "big")
        if end > len(data):
            break
        pieces.append(data[:end])
        data = data[end:]
    return [*pieces, data] if data else pieces


def mutated_frames(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    """A connection's bytes with frames changed: order, head, payload (the length follows, mostly)."""

    def change(frame: bytes) -> bytes:
        if len(frame) < _FRAME_HEAD or frame == _PREFACE:
            return damage(frame)
        head, payload = bytearray(frame[:_FRAME_HEAD]), frame[_FRAME_HEAD:]
        kind = random_.randrange(6)
        if kind == 0:
            head[3] = random_.randrange(12)
        elif kind == 1:
            head[4] ^= random_.choice((1, 4, 8, 0x20, 0xFF))
        elif kind == 2:
            head[5:9] = random_.choice((0, 1, 2, 3, 5, 7, 9, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
        elif kind == 3:
            # A lie about the length: what follows is read as something else.
            head[:3] = random_.choice(_ODD_LENGTHS).to_bytes(3, "big")
            return bytes(head) + payload
        elif kind == 4 and payload:
            at = random_.randint(0, len(payload))
            rest = bytearray(head)
            rest[3] = 9 if head[3] in {1, 9} else head[3]
            first = _framed(head, payload[:at])
            return first + _framed(rest, payload[at:])
        else:
            payload = damage(payload)
        return _framed(head, payload)

    return b"".join(_rearranged(frames_of(data), random_, change))


def _framed(head: bytearray, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes(head[3:]) + payload


# -- protobuf fields


def varint(value: int) -> bytes:
    """`value` as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]  # IndexError: the data ends
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise IndexError("a varint that does not end")


def fields_of(data: bytes) -> list[bytes] | None:
    """`data` as whole fields, or None when it is no message."""
    fields = []
    position = 0
    try:
        while position < len(data):
            start = position
            tag, position = _read_varint(data, position)
            kind = tag & 7
            if kind == 0:
                _, position = _read_varint(data, position)
            elif kind == 2:
                length, position = _read_varint(data, position)
                position += length
            elif kind in {1, 5}:
                position += 8 if kind == 1 else 4
            else:
                return None
            if position > len(data):
                return None
            fields.append(data[start:position])
    except IndexError:
        return None
    return fields


def mutated_fields(data: bytes, random_: random.Random, damage: Damage, depth: int = 0) -> bytes:
    """A message with fields changed: order, number, type, value; messages in it too, with lengths that follow."""
    fields = fields_of(data)
    if fields is None:
        return damage(data)

    def change(field: bytes) -> bytes:
        tag, at = _read_varint(field, 0)
        number, kind = tag >> 3, tag & 7
        if random_.random() < 0.15:
            number = random_.choice((1, 2, 3, 4, 5, 6, 7, 8, 10, 15, number + 1, 2**29 - 1))
        if kind == 0:
            value = random_.choice((*_ODD_NUMBERS, random_.randrange(300)))
            return varint(number << 3) + varint(value)
        if kind != 2:
            return varint(number << 3 | kind) + damage(field[at:])
        _, at = _read_varint(field, at)
        inner = field[at:]
        if depth < _DEEPEST and random_.random() < 0.7 and fields_of(inner):
            inner = mutated_fields(inner, random_, damage, depth + 1)
        else:
            inner = damage(inner)
        # A lie about the length, now and then.
        length = len(inner) if random_.random() < 0.9 else random_.choice(_ODD_NUMBERS)
        return varint(number << 3 | 2) + varint(length) + inner

    return b"".join(_rearranged(fields, random_, change))


# -- tables of texts


def mutated_words(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    """A text with words and lines changed, lost, repeated or in another place."""
    separator = b"\n" if random_.random() < 0.5 else b" "
    return separator.join(_rearranged(data.split(separator), random_, damage))
