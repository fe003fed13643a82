"""Reads the PEM files of one TLS port and makes a context of them, or says in a sentence what is wrong with which.

Knows files, not connections and not time; who reads them again when they change is `tls.py`. No message holds a byte of
a file. Cipher suites and versions: RFC 9113 §9.2 and RFC 9325, for both ports alike.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tensorquay.config.tls import TlsFiles
from tensorquay.core.errors import ServingError

MAX_FILE_BYTES = 2**20
"""Far more than any chain or bundle; a wrong path must not fill the memory."""

_TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and authenticated encryption only. TLS 1.3 has nothing else, so its suites stay OpenSSL's."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)

_REASONS = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the first certificate of the file",
    "KEY_TYPE_MISMATCH": "the key does not belong to the first certificate of the file: it is of another type",
    "EE_KEY_TOO_SMALL": "the key is too short to be safe",
    "CA_KEY_TOO_SMALL": "an authority's key in it is too short to be safe",
    "CA_MD_TOO_WEAK": "a signature in it uses a hash that is no longer safe",
}

Signature = tuple[object, ...]


class TlsProblem(ServingError):
    """A TLS port cannot be served with the files it was given."""


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """The files of one port, read together and proven to fit.

    `first_s`, `last_s`: from when to when the certificate is valid, in seconds since the Unix epoch.
    """

    context: ssl.SSLContext
    certificate: bytes
    key: bytes = field(repr=False)
    roots: bytes | None
    first_s: int
    last_s: int
    signature: Signature

    def complaint(self, now_s: int) -> str | None:
        """What clients will not like about the certificate's dates; None when it is valid."""
        if now_s < self.first_s:
            return f"the certificate is not valid before {shown(self.first_s)}"
        if now_s > self.last_s:
            return f"the certificate expired at {shown(self.last_s)}"
        return None


def shown(seconds: int) -> str:
    """A date for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def signature(files: TlsFiles) -> Signature:
    """Changes whenever a file does, symbolic links followed. Costs two or three stat calls."""
    found: list[object] = []
    for path in (files.certificate, files.key, files.roots):
        if path is None:
            continue
        try:
            about = path.stat()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return tuple(found)


def load(files: TlsFiles, protocols: Sequence[str]) -> TlsMaterial:
    """Everything a port needs. Costs a millisecond.

    Args: protocols: offered by ALPN; none: no ALPN.
    Raises: TlsProblem naming the flag, the file and what to do.
    """
    before = signature(files)
    flag = f"--{files.port}-server-cert"
    certificate = _read(files.certificate, flag)
    key = _read(files.key, f"--{files.port}-server-key")
    _check_texts(files, certificate, key)
    first_s, last_s = _dates(certificate, f"{flag}: '{files.certificate}'")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if protocols:
        context.set_alpn_protocols(list(protocols))
    try:
        # Without a password of ours OpenSSL would ask the terminal for one.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsProblem(
            f"{flag}: '{files.certificate}' with the key '{files.key}': {_reason(error)}; "
            "expected the server's own certificate, then those that signed it, and its key in PEM"
        ) from error
    roots = None if files.roots is None else _demand(context, files.roots, f"--{files.port}-root-cert")
    if signature(files) != before:
        raise TlsProblem(f"{flag}: the files were replaced while they were read; try again")
    return TlsMaterial(context, certificate, key, roots, first_s, last_s, before)


def _read(path: Path, flag: str) -> bytes:
    try:
        # Not blocking: a pipe without a writer must not hold the server.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - of a descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise TlsProblem(f"{flag}: '{path}' is not a file; expected a PEM file")
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise TlsProblem(f"{flag}: '{path}' is not a file; expected a PEM file") from error
        raise TlsProblem(f"{flag}: cannot read '{path}': {error.strerror or type(error).__name__}") from error
    if len(content) > MAX_FILE_BYTES:
        raise TlsProblem(f"{flag}: '{path}' is larger than {MAX_FILE_BYTES} bytes; expected a PEM file")
    return content


def _check_texts(files: TlsFiles, certificate: bytes, key: bytes) -> None:
    """What can be said better before OpenSSL sees it."""
    if not _CERTIFICATE.search(certificate):
        found = "a key, are certificate and key exchanged?" if _KEY.search(certificate) else "something that is not PEM"
        raise TlsProblem(
            f"--{files.port}-server-cert: no certificate in '{files.certificate}'; "
            f"expected '-----BEGIN CERTIFICATE-----', got {found}"
        )
    if _ENCRYPTED.search(key):
        raise TlsProblem(
            f"--{files.port}-server-key: the key in '{files.key}' is encrypted, which is not supported; decrypt it "
            f"('openssl pkey -in FILE -out FILE') and close the file to others"
        )
    if not _KEY.search(key):
        raise TlsProblem(
            f"--{files.port}-server-key: no private key in '{files.key}'; expected PEM, '-----BEGIN PRIVATE KEY-----'"
        )


def _demand(context: ssl.SSLContext, path: Path, flag: str) -> bytes:
    """Let in only clients whose certificates authorities in `path` have signed. Returns its content."""
    content = _read(path, flag)
    if not _CERTIFICATE.search(content):
        raise TlsProblem(f"{flag}: no certificate in '{path}'; expected those of the authorities, in PEM")
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise TlsProblem(f"{flag}: '{path}': {_reason(error)}; expected certificates in PEM") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return content


def _reason(error: Exception) -> str:
    """OpenSSL's finding in words."""
    if isinstance(error, ssl.SSLError):
        name = error.reason or ""
        if name in _REASONS:
            return _REASONS[name]
        return f"OpenSSL says {name.lower().replace('_', ' ')}" if name else "OpenSSL finds no valid PEM in it"
    return getattr(error, "strerror", None) or "it cannot be used"


# -- dates: the ssl module shows them of the peer's certificate only


def _dates(pem: bytes, where: str) -> tuple[int, int]:
    """From when to when the first certificate in `pem` is valid (RFC 5280 §4.1.2.5), seconds since the epoch.

    Raises: TlsProblem when it is no certificate.
    """
    found = _CERTIFICATE.search(pem)
    assert found is not None
    try:
        return validity(base64.b64decode(b"".join(found[1].split()), validate=True))
    except ValueError as error:
        raise TlsProblem(f"{where}: the certificate is damaged; expected base64 of a DER certificate") from error


def validity(der: bytes) -> tuple[int, int]:
    """As `_dates`, of one certificate in DER.

    Raises: ValueError when it is none.
    """
    view = memoryview(der)
    certificate, _ = _element(view, 0x30)
    fields, _ = _element(certificate, 0x30)
    if fields and fields[0] == 0xA0:
        _, fields = _element(fields, 0xA0)  # the version, which need not be there
    for tag in (0x02, 0x30, 0x30):  # serial number, signature algorithm, issuer
        _, fields = _element(fields, tag)
    both, _ = _element(fields, 0x30)
    first, rest = _time(both)
    last, _ = _time(rest)
    return first, last


def _element(view: memoryview, tag: int) -> tuple[memoryview, memoryview]:
    """The content of the DER element that `view` begins with, and what follows it."""
    if len(view) < 2 or view[0] != tag:
        raise ValueError("unexpected DER element")
    length, start = view[1], 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or len(view) < 2 + count:
            raise ValueError("bad DER length")
        start += count
        length = int.from_bytes(view[2:start], "big")
    if len(view) < start + length:
        raise ValueError("DER element is cut off")
    return view[start : start + length], view[start + length :]


def _time(view: memoryview) -> tuple[int, memoryview]:
    tag = view[0] if len(view) else 0
    if tag not in {0x17, 0x18}:
        raise ValueError("no time")
    content, rest = _element(view, tag)
    digits = bytes(content).decode("ascii")
    if tag == 0x17:  # two digits of the year: 1950 to 2049
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    if not re.fullmatch(r"\d{14}Z", digits, re.ASCII):
        raise ValueError("no time in UTC")
    moment = datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()), rest
