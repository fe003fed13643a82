"""An OTLP collector for tests: takes spans over HTTP, decodes them with OpenTelemetry's own messages, waits for them.

It can also be a bad one: `behave` says what it does with the next requests.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TIMEOUT_S = 30

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Seen:
    """A span with what is around it."""

    span: Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return plain(self.span.attributes)

    @property
    def links(self) -> set[tuple[str, str]]:
        return {(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links}


def plain(attributes: Any) -> dict[str, Any]:
    """KeyValues as a dictionary; each key may be there once."""
    found = {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}
    assert len(found) == len(attributes)
    return found


@dataclass
class Collector:
    """One that listens on a free port of this machine. Close it."""

    port: int = 0
    spans: list[Seen] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request, names in lower case."""
    behave: Behaviour | None = None
    """Instead of taking spans."""
    tls: ssl.SSLContext | None = None
    keeps: bool = True
    """Whether spans are decoded and kept; a load would fill the memory."""

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._connections: list[socket.socket] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                collector._connections.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self, body)

            def log_message(self, *arguments: object) -> None:
                """Tests read what servers say, not this."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http{'' if self.tls is None else 's'}://127.0.0.1:{self.port}/v1/traces"

    def take(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """One request, whose `body` was read."""
        with self._changed:
            if self.keeps:
                self.requests.append({name.lower(): value for name, value in handler.headers.items()})
            behave = self.behave
            if behave is None and self.keeps:
                self._keep(handler, body)
            self._changed.notify_all()
        if behave is not None:
            behave(handler)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _keep(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        assert handler.path == "/v1/traces"
        assert handler.headers["Content-Type"] == "application/x-protobuf"
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                assert scope.scope.name == "tensorquay"
                self.spans += [Seen(span, about) for span in scope.spans]

    def wait(self, enough: Callable[[Collector], bool]) -> None:
        """Until `enough` of it is true."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self), TIMEOUT_S), (
                f"{len(self.requests)} requests came, with {[seen.name for seen in self.spans]}"
            )

    def of(self, traceparent: str, count: int) -> dict[str, Seen]:
        """The spans of the trace that `traceparent` names, by name, once there are `count`."""
        trace = traceparent.split("-")[1]

        def mine() -> list[Seen]:
            return [seen for seen in self.spans if seen.trace == trace]

        self.wait(lambda _: len(mine()) >= count)
        found = mine()
        assert len(found) == count == len({seen.name for seen in found}), [seen.name for seen in found]
        return {seen.name: seen for seen in found}

    def batch(self, link: tuple[str, str]) -> Seen:
        """The batch span that `link` names."""
        self.wait(lambda c: any((seen.trace, seen.id) == link for seen in c.spans))
        (found,) = [seen for seen in self.spans if (seen.trace, seen.id) == link]
        assert found.name == "batch"
        return found

    def close(self) -> None:
        """Take nothing more, on no connection."""
        self._server.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join(TIMEOUT_S)
