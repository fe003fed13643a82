"""What a front-end process is told at its start, as one JSON document on its standard input.

A few plain values, not the server's configuration: reading that would cost more than the rest of the start. It may hold
the secrets of restricted APIs, which is why it is neither on the command line nor in the environment.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensorquay.config.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """One port.

    Args:
        tls: paths of certificate, key and roots (None: clients are not asked); None: no TLS.
        forward_pattern: headers or metadata that become parameters; "" for none.
        restricted: access category → (header, value).
        max_bytes: of a request's body, or of a message.
    """

    host: str
    port: int
    max_bytes: int
    tls: tuple[str, str, str | None] | None = None
    forward_pattern: str = ""
    restricted: dict[str, tuple[str, str]] | None = None

    def tls_files(self, name: str) -> TlsFiles | None:
        """The files of the port called `name` ("http", "grpc")."""
        if self.tls is None:
            return None
        certificate, key, roots = self.tls
        return TlsFiles(name, Path(certificate), Path(key), None if roots is None else Path(roots))


@dataclass(frozen=True, slots=True)
class FrontEndSettings:
    """One process. What has a default here is filled in when it is started.

    Args:
        link, channel, requests, answers: inherited descriptors: the link, the channel of control requests, the
            arenas for what goes to the owner and for what comes from it.
        max_receiving_bytes: of requests being received, over all connections of this process.
        max_unsent_bytes: waiting to be taken by the owner; beyond, predictions are refused.
        regions: whether clients may use shared memory.
        log_level, library_level: of our loggers and of all others.
        sampling: of spans, the arguments of a `SamplingRule`; None while they are off.
    """

    http: DoorSettings | None
    grpc: DoorSettings | None
    max_receiving_bytes: int
    max_unsent_bytes: int
    access_log: bool
    regions: bool
    link: int = -1
    channel: int = -1
    requests: int = -1
    answers: int = -1
    arena_bytes: int = 0
    log_level: int = 0
    library_level: int = 0
    sampling: tuple[float, bool, int] | None = None

    def to_json(self) -> bytes:
        """As `from_json` reads it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> FrontEndSettings:
        """The settings in `text`.

        Raises: ValueError, TypeError when they are not what `to_json` wrote.
        """
        said: dict[str, Any] = json.loads(text)
        for door in ("http", "grpc"):
            said[door] = None if said[door] is None else DoorSettings(**said[door])
        return cls(**said)
