"""`Tls`: whom a client trusts and who it says it is, the same for HTTP and gRPC.

Files are read when the client is made; a client that shall use renewed ones is made anew.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from tensorquay_client.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of one client, for "https://…" and "grpcs://…".

    Args:
        ca: PEM file of the authorities to trust, or of the server's own certificate; None: the usual public ones.
        certificate: PEM file with our own certificate, for servers that demand one.
        key: PEM file with its key, not encrypted; None: it stands in the file of the certificate.
        insecure: believe any server. Whoever is in between reads and changes everything; for trials only, and over
            HTTP only: gRPC has no such thing.
    Raises: InvalidArgument for combinations that make no sense.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.insecure and self.ca is not None:
            raise InvalidArgument("TLS: insecure believes any server, so 'ca' has no meaning; give one of the two")
        if self.key is not None and self.certificate is None:
            raise InvalidArgument("TLS: a key without its certificate")

    def context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises: InvalidArgument naming the file that cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as exc:
            raise InvalidArgument(f"TLS: no authorities in '{self.ca}': {_reason(exc)}") from exc
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            try:
                # A password of ours, lest OpenSSL ask the terminal for one.
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as exc:
                key = self.key or self.certificate
                raise InvalidArgument(
                    f"TLS: cannot use the certificate '{self.certificate}' with the key '{key}': {_reason(exc)}; "
                    "expected PEM, the key not encrypted"
                ) from exc
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """For gRPC: authorities, our key, our certificate.

        Raises: InvalidArgument, also where gRPC would only fail to connect.
        """
        if self.insecure:
            raise InvalidArgument("TLS: gRPC cannot connect insecurely; give the server's own certificate as 'ca'")
        self.context()
        key = self.key or self.certificate
        return _read(self.ca), _read(key), _read(self.certificate)


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM").lower().replace("_", " ")
    return error.strerror or type(error).__name__
