"""Content codings of HTTP bodies: gzip and deflate (zlib framing), with a bound on what comes out.

Decompression never holds more than its limit, whatever a small body claims to expand to.
Source: RFC 9110 §8.4 and §12.5.3, RFC 1952, RFC 1950.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from tensorquay.core.errors import InvalidArgument, InvariantViolation

GZIP = "gzip"
DEFLATE = "deflate"
IDENTITY = "identity"

MAX_MEMBERS = 256
"""Most members of one gzip body; real ones have one."""

_PIECE = 2**20
"""Most that is made in one step: what is added to the rest is copied, and a thread that copies lets no other run."""
_COPIED_BYTES = 64 * 1024

_ALIASES = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE}
_WINDOW = {GZIP: 16 + zlib.MAX_WBITS, DEFLATE: zlib.MAX_WBITS}
_CHUNK = 64 * 1024
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def content_encoding(header: str | None) -> str | None:
    """The coding that a Content-Encoding header names: "gzip", "deflate", or None for none.

    Raises: InvalidArgument for unknown codings and for more than one.
    """
    if header is None:
        return None
    names = [name for part in header.split(",") if (name := part.strip().lower()) not in {"", IDENTITY}]
    if not names:
        return None
    if len(names) > 1 or names[0] not in _ALIASES:
        raise InvalidArgument(
            f"Content-Encoding '{header:.64}' is not supported, expected one of gzip, deflate, identity",
            facts={"expected": [GZIP, DEFLATE, IDENTITY], "got": header[:64]},
        )
    return _ALIASES[names[0]]


def accepted_encoding(header: str | None) -> str | None:
    """The coding to answer with, by an Accept-Encoding header: the best liked of gzip, deflate, none.

    At equal liking gzip goes before deflate before none; what cannot be parsed is skipped. None: do not compress,
    also when the header forbids everything, because an answer is better than none.
    """
    if not header:
        return None
    liked: dict[str, float] = {}
    for part in header[:4096].split(","):
        name, _, rest = part.partition(";")
        name = name.strip().lower()
        quality = _QUALITY.fullmatch(rest.strip()) if rest.strip() else None
        if rest.strip() and quality is None:
            continue
        liked[_ALIASES.get(name, name)] = float(quality[1]) if quality else 1.0
    anything = liked.get("*", 0.0)
    best, best_quality = None, liked.get(IDENTITY, 0.0)
    for coding in (DEFLATE, GZIP):
        quality_of = liked.get(coding, anything)
        if quality_of > 0 and quality_of >= best_quality:
            best, best_quality = coding, quality_of
    return best


def decompress(body: bytes | memoryview, coding: str, limit: int) -> bytes | memoryview:
    """`body` without its coding ("gzip" or "deflate"), at most `limit` bytes; much of it as a view, which is no copy.

    Several gzip members in a row are one body. Memory: the output and one chunk.
    Raises: InvalidArgument for damaged or cut data, for bytes behind the end, for more than `MAX_MEMBERS` members, and
    when the output would be larger than `limit`.
    """
    window = _WINDOW.get(coding)
    if window is None:
        raise InvariantViolation(f"no decompressor for '{coding}'")
    out = bytearray()
    view = memoryview(body)
    members = 1
    decoder = zlib.decompressobj(window)
    # Bytes are fed in chunks: what a decoder leaves unused it copies, and a copy of the whole rest per member
    # would make many small members quadratic.
    for start in range(0, len(view), _CHUNK):
        chunk: bytes | memoryview = view[start : start + _CHUNK]
        more = False
        while len(chunk) or more:
            if decoder.eof:
                if coding != GZIP:
                    raise InvalidArgument("the compressed body goes on after its end (Content-Encoding: deflate)")
                members += 1
                if members > MAX_MEMBERS:
                    raise InvalidArgument(f"the gzip body has more than {MAX_MEMBERS} members")
                decoder = zlib.decompressobj(window)
            most = min(limit - len(out) + 1, _PIECE)
            try:
                piece = decoder.decompress(chunk, most)
            except zlib.error as exc:
                where = "the gzip body" if coding == GZIP else "the deflate body (zlib format expected)"
                trailing = " after its first member" if members > 1 else ""
                raise InvalidArgument(f"{where} cannot be decompressed{trailing}: the data is damaged") from exc
            out += piece
            if len(out) > limit:
                raise InvalidArgument(
                    f"the request body is larger than {limit} bytes after decompression, the limit set by "
                    "--http-max-input-size",
                    facts={"expected": limit},
                )
            # What fills a piece may leave more behind in the decoder, with nothing left to feed.
            more = len(piece) == most and not decoder.eof
            chunk = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if not decoder.eof:
        raise InvalidArgument(f"the {coding} body ends early")
    return bytes(out) if len(out) < _COPIED_BYTES else memoryview(out).toreadonly()


def compress(parts: Iterable[bytes | memoryview], coding: str, level: int = 1) -> bytes:
    """`parts` as one body in `coding` ("gzip" or "deflate").

    Level 1 by default: tensors hardly shrink further, and a server pays for it on every answer.
    """
    window = _WINDOW.get(coding)
    if window is None:
        raise InvariantViolation(f"no compressor for '{coding}'")
    encoder = zlib.compressobj(level, zlib.DEFLATED, window)
    out = [encoder.compress(part) for part in parts]
    out.append(encoder.flush())
    return b"".join(out)
