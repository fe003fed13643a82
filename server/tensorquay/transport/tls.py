"""Owns the TLS contexts of listening ports: makes them, renews them when their files change, bounds handshakes.

`tls_ports(config)` is all a process needs to serve the ports, whichever process it is. A port's context is handed to
`create_server` (or uvicorn) like any other; each new connection gets the newest certificate, and old connections keep
theirs. Files that are replaced are noticed by the next new connection, with one look a second at most; a replacement
that does not work is told once and changes nothing. Loop-confined, except `Certificates`, whose races cost a second
reading and no more.
"""

from __future__ import annotations

import gc
import logging
import ssl
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorquay.config.tls import TlsFiles
from tensorquay.core.clock import Clock
from tensorquay.transport import tls_files
from tensorquay.transport.tls_files import Signature, TlsMaterial, TlsProblem

if TYPE_CHECKING:
    # Only `tls_ports` needs it, and who calls that has it: front-end processes start without.
    from tensorquay.config.server import ServerConfig

_log = logging.getLogger("tensorquay.tls")

HTTP_PROTOCOLS = ("http/1.1",)
GRPC_PROTOCOLS = ("h2",)

HANDSHAKE_S = 10.0
"""Longest handshake on ports of our own; uvicorn leaves its ports to the loop, which allows 60."""

SHUTDOWN_S = 2.0
"""How long a client may take to answer our goodbye (close_notify)."""

MAX_HANDSHAKES = 1024
"""Connections of one port in their handshake at once: each holds some hundred kilobytes that no limit of the protocol
above sees."""

_LONGEST_HANDSHAKE_NS = 60 * 10**9
_LOOK_EVERY_NS = 10**9


class Certificates:
    """The files of one port as they are now.

    Raises: TlsProblem when they cannot be used at the start; later ones are told in the log.
    """

    def __init__(self, files: TlsFiles, protocols: Sequence[str], *, clock: Clock) -> None:
        self.files = files
        self._protocols = tuple(protocols)
        self._clock = clock
        self._material = tls_files.load(files, self._protocols)
        self._looked_ns = clock.now_ns()
        self._suspect: Signature | None = None
        self._refused: Signature | None = None
        self._complained = False
        self._tell("TLS certificate is used")

    def newest(self) -> TlsMaterial:
        """What a new connection uses."""
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns >= _LOOK_EVERY_NS:
            self._looked_ns = now_ns
            self._look()
        return self._material

    def _look(self) -> None:
        seen = tls_files.signature(self.files)
        if seen == self._material.signature:
            self._suspect = None
            self._complain()
        elif seen != self._refused:
            self._renew(seen)

    def _renew(self, seen: Signature) -> None:
        try:
            self._material = tls_files.load(self.files, self._protocols)
        except TlsProblem as problem:
            if seen != self._suspect:
                # Perhaps one file has been replaced and the other is about to be: complain when it stays so.
                self._suspect = seen
                return
            self._refused = seen
            _log.error(
                "new TLS files cannot be used, the certificate before them stays: %s",
                problem.message,
                extra={"event": "tls_refused"},
            )
            return
        self._suspect = self._refused = None
        self._complained = False
        self._tell("TLS certificate is renewed")

    def _tell(self, what: str) -> None:
        _log.info(
            "%s, valid until %s",
            what,
            tls_files.shown(self._material.last_s),
            extra={"event": "tls_certificate", "port": self.files.port},
        )
        self._complain()

    def _complain(self) -> None:
        if self._complained:
            return
        complaint = self._material.complaint(self._clock.wall_ms() // 1000)
        if complaint is not None:
            self._complained = True
            _log.warning(
                "--%s-server-cert: %s; clients will refuse it", self.files.port, complaint, extra={"event": "tls_dates"}
            )


class PortContext(ssl.SSLContext):
    """A server context whose every new connection begins with the newest certificate.

    Nothing is remembered across a renewal: sessions and tickets of before do not outlive the authorities that vouched
    for them.
    """

    def __new__(cls, *_: Any, **__: Any) -> PortContext:
        """As the base class's, whose argument is the protocol."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, certificates: Certificates, *, clock: Clock, handshakes: int = MAX_HANDSHAKES) -> None:
        self.certificates = certificates
        self._handshakes = _Handshakes(handshakes, clock)

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **named: Any
    ) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`; event loops call it once for a new connection."""
        context = self.certificates.newest().context
        context.sslobject_class = _Connection
        made = context.wrap_bio(incoming, outgoing, *arguments, **named)
        assert isinstance(made, _Connection)
        made.begin(self._handshakes, outgoing)
        return made


class _Handshakes:
    """Counts connections in their handshake. An entry goes when the handshake ends, and with the connection itself."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._begun: weakref.WeakKeyDictionary[_Connection, int] = weakref.WeakKeyDictionary()

    def add(self, connection: _Connection) -> bool:
        """Count `connection` in. Returns: whether there is room for it."""
        now_ns = self._clock.now_ns()
        if len(self._begun) >= self._limit:
            # asyncio's own loop leaves failed handshakes in reference cycles. They are young, so this is cheap.
            gc.collect(1)
            for each in [each for each, begun_ns in self._begun.items() if now_ns - begun_ns > _LONGEST_HANDSHAKE_NS]:
                # The loop has ended it; something else still holds it.
                del self._begun[each]
            if len(self._begun) >= self._limit:
                return False
        self._begun[connection] = now_ns
        return True

    def remove(self, connection: _Connection) -> None:
        """The handshake of `connection` is over."""
        self._begun.pop(connection, None)


class _Connection(ssl.SSLObject):
    """One connection's TLS; bounded and told about until its handshake is over."""

    _counted: _Handshakes | None
    _outgoing: ssl.MemoryBIO
    _failure: str
    """Why the handshake has failed, empty when it has not. Text, because an error would hold this object by its
    traceback, and its place among the others, until the garbage collector comes."""

    def begin(self, handshakes: _Handshakes, outgoing: ssl.MemoryBIO) -> None:
        """A handshake is about to begin; what it sends goes to `outgoing`."""
        self._outgoing = outgoing
        self._counted = handshakes
        self._failure = ""
        if not handshakes.add(self):
            self._failure = "too many handshakes under way"
            _log.debug("TLS handshake refused: too many are under way")

    def do_handshake(self) -> None:
        """See `ssl.SSLObject.do_handshake`; loops call it whenever bytes have come."""
        if self._failure:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, self._failure)
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            reason = error.reason or type(error).__name__
            _log.debug("TLS handshake failed: %s", reason)
            if self._outgoing.pending:
                # Loops drop what they have not sent when the handshake fails, and then the client would not hear why.
                # So they are told to go on; the client hangs up, or the handshake's time is over.
                self._failure = reason
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert is on its way") from None
            self._over()
            raise
        self._over()

    def _over(self) -> None:
        counted, self._counted = self._counted, None
        if counted is not None:
            counted.remove(self)


@dataclass(frozen=True, slots=True)
class TlsPorts:
    """The contexts of the ports; None for a plain one. `metrics` shares the certificate of `http`."""

    http: PortContext | None = None
    grpc: PortContext | None = None
    metrics: PortContext | None = None


def tls_ports(config: ServerConfig, *, clock: Clock) -> TlsPorts:
    """What `config` asks for. Reads the files.

    Raises: TlsProblem.
    """
    http = grpc = metrics = None
    if config.http_tls is not None and (config.allow_http or config.metrics_use_ssl):
        certificates = Certificates(config.http_tls, HTTP_PROTOCOLS, clock=clock)
        http = PortContext(certificates, clock=clock)
        if config.metrics_use_ssl:
            metrics = PortContext(certificates, clock=clock)
    if config.grpc_tls is not None and config.allow_grpc:
        grpc = PortContext(Certificates(config.grpc_tls, GRPC_PROTOCOLS, clock=clock), clock=clock)
    return TlsPorts(http, grpc, metrics)


def listening(context: ssl.SSLContext | None) -> dict[str, Any]:
    """Arguments of `create_server` for a port with `context`; none for a plain port."""
    if context is None:
        return {}
    return {"ssl": context, "ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": SHUTDOWN_S}
