"""What a TLS port needs, as settings: which PEM files, and which combinations of flags make no sense.

Names and defaults are tritonserver's for gRPC; HTTP, which it has none for, follows them. The files themselves are
read by `transport/tls_files.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of one port.

    Args:
        port: "http" or "grpc", the beginning of its flags' names.
        certificate: the server's own certificate first, then those between it and the authority.
        roots: who may sign clients' certificates, which are then demanded; None: clients are not asked.
    """

    port: str
    certificate: Path
    key: Path
    roots: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsFlags:
    """The five TLS settings of one port as given; `switch` is None when nobody said whether to use TLS."""

    port: str
    switch: bool | None
    mutual: bool
    certificate: Path | None
    key: Path | None
    roots: Path | None

    def files(self) -> TlsFiles | None:
        """What the port needs; None when it stays plain.

        Raises: ValueError when the settings contradict each other, in one sentence.
        """
        port = self.port
        if self.mutual and self.switch is False:
            raise ValueError(f"{port}_use_ssl_mutual demands client certificates and {port}_use_ssl is false")
        if not (self.switch or self.mutual):
            given = self.certificate or self.key
            if given is not None and self.switch is None:
                raise ValueError(
                    f"{port}_server_cert or {port}_server_key is given and {port}_use_ssl is not: "
                    "say true to use them, false to serve without TLS"
                )
            return None
        if self.certificate is None or self.key is None:
            absent = f"{port}_server_cert" if self.certificate is None else f"{port}_server_key"
            raise ValueError(f"{port}_use_ssl needs {absent}, a PEM file")
        if self.mutual and self.roots is None:
            raise ValueError(
                f"{port}_use_ssl_mutual needs {port}_root_cert, the authorities that sign clients' certificates"
            )
        return TlsFiles(port, self.certificate, self.key, self.roots if self.mutual else None)

    def note(self) -> str | None:
        """What is accepted without effect: tritonserver takes root certificates that it then does not use."""
        if self.roots is None or self.mutual or not self.switch:
            return None
        return (
            f"{self.port}_root_cert has no effect without {self.port}_use_ssl_mutual: clients are not asked for "
            "certificates"
        )
