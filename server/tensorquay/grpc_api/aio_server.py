"""Runs the method table on grpcio's asyncio server.

The reference transport: everything a call means is in the handlers; this file only moves bytes, deadlines,
cancellations and statuses. Handlers see raw message bytes, so no generated stubs are needed.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio

from tensorquay.core.errors import ErrorKind, ServingError, Unavailable
from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.core.trace_context import TRACEPARENT, of_metadata
from tensorquay.engine import InferenceEngine
from tensorquay.grpc_api.aio_access import address, logged_stream, logged_unary
from tensorquay.grpc_api.infer import MAX_STREAM_INFLIGHT, Answer, InferHandler, InferStream
from tensorquay.grpc_api.methods import SERVICE, Method, category_of
from tensorquay.protocol import reflection
from tensorquay.protocol.status import grpc_code, grpc_message
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.grpc_access import StreamAccess
from tensorquay.transport.listen import PortTaken
from tensorquay.transport.tls import Certificates
from tensorquay.transport.tls_files import TlsMaterial

_log = logging.getLogger("tensorquay.grpc")

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_STREAMS = 4096
_INFER, _STREAM = f"{SERVICE}ModelInfer", f"{SERVICE}ModelStreamInfer"
_REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


class GrpcServer:
    """A grpcio server over the handlers.

    Args:
        restricted: access category → (header, value); the metadata key is "triton-grpc-protocol-" + header.
        max_message_bytes: largest message either way.
        tls: the certificates of the port; None for cleartext.
        access: takes a line per call, while there is an access log.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        infer: InferHandler,
        control: Mapping[str, Method],
        *,
        host: str,
        port: int,
        restricted: Mapping[str, tuple[str, str]],
        max_message_bytes: int,
        tls: Certificates | None = None,
        access: AccessLog | None = None,
    ) -> None:
        self._engine = engine
        self._access = access
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                # Two servers on one port would share its traffic in silence; a taken port must be an error.
                ("grpc.so_reuseport", 0),
                # Triton's keepalive policy, which its users' clients are tuned to.
                ("grpc.keepalive_time_ms", 7_200_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 300_000),
                ("grpc.http2.max_ping_strikes", 2),
            ]
        )
        calls = self._calls = _Calls(engine, infer, control, restricted, access)
        self._server.add_generic_rpc_handlers((_Router(calls, control, access),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                self.port = int(self._server.add_insecure_port(address))
            else:
                self.port = int(self._server.add_secure_port(address, _credentials(tls)))
        except RuntimeError as error:
            raise PortTaken(
                f"cannot listen for gRPC on {host} port {port}: it is taken or not ours to listen on; stop the other "
                "process or choose another port with --grpc-port (0 takes a free one)"
            ) from error

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, end streams that only wait for more, give running calls `grace_s`, then cut them."""
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        self._calls.end_streams()
        await stopping
        if self._access is not None:
            self._access.close()


def _credentials(tls: Certificates) -> Any:
    """The newest certificate for every handshake; gRPC asks from threads of its own."""
    used = tls.newest()

    def configuration(material: TlsMaterial) -> Any:
        return grpc.ssl_server_certificate_configuration(
            [(material.key, material.certificate)], root_certificates=material.roots
        )

    def newer() -> Any:
        nonlocal used
        newest = tls.newest()
        if newest is used:
            return None
        used = newest
        return configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        configuration(used), newer, require_client_authentication=used.roots is not None
    )


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Method path → the kind of handler grpcio needs."""

    def __init__(self, calls: _Calls, control: Mapping[str, Method], access: AccessLog | None) -> None:
        unary: dict[str, Any] = {path: calls.unary(path, method) for path, method in control.items()}
        unary[_INFER] = calls.model_infer
        streams: dict[str, Any] = dict.fromkeys(_REFLECTION, calls.reflection)
        streams[_STREAM] = calls.model_stream_infer
        if access is not None:
            unary = {path: logged_unary(access, path, serve) for path, serve in unary.items()}
            streams = {path: logged_stream(access, path, serve) for path, serve in streams.items()}
        self._access = access
        self._handlers = {path: grpc.unary_unary_rpc_method_handler(serve) for path, serve in unary.items()}
        self._handlers |= {path: grpc.stream_stream_rpc_method_handler(serve) for path, serve in streams.items()}

    def service(self, handler_call_details: Any) -> Any:
        """grpcio's look-up; None answers UNIMPLEMENTED."""
        found = self._handlers.get(handler_call_details.method)
        if found is None and self._access is not None:
            log = self._access
            # grpcio answers by itself, and does not say to whom.
            log.grpc(handler_call_details.method, "UNIMPLEMENTED", begun_ns=log.now_ns(), peer=None, sizes=(0, 0))
        return found


class _Calls:
    """The coroutines grpcio runs, one per call."""

    def __init__(
        self,
        engine: InferenceEngine,
        infer: InferHandler,
        control: Mapping[str, Method],
        restricted: Mapping[str, tuple[str, str]],
        access: AccessLog | None = None,
    ) -> None:
        self._engine = engine
        self._infer = infer
        self._access = access
        self._control = control
        self._restricted = restricted
        # What ends each open stream: its client may neither ask nor leave for hours.
        self._streams: set[Callable[[], None]] = set()

    def end_streams(self) -> None:
        """End every open stream after the answers it already has."""
        for end in list(self._streams):
            end()

    def unary(self, path: str, method: Method) -> Any:
        """A control method as grpcio wants it."""

        async def call(message: bytes, context: Any) -> bytes:
            await self._check_access(path, context)
            try:
                return await method(message)
            except ServingError as error:
                failure = error
            except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
                failure = unexpected(error, _log, f"serving {path.rpartition('/')[2]}")
            return await _abort(context, failure)

        return call

    async def model_infer(self, message: bytes, context: Any) -> bytes:
        """ModelInfer. grpcio cancels this coroutine when the client cancels or its deadline passes."""
        await self._check_access(_INFER, context)
        answered: asyncio.Future[bytes | ServingError] = asyncio.get_running_loop().create_future()

        def answer(outcome: bytes | ServingError) -> None:
            if not answered.done():
                answered.set_result(outcome)

        metadata, deadline_ns = context.invocation_metadata() or (), self._deadline_ns(context)
        trace = None if self._infer.sampler is None else self._infer.begin_trace(Entrance.GRPC, of_metadata(metadata))
        ticket = self._infer.start(
            message,
            answer if trace is None else partial(self._answer_traced, trace, deadline_ns, answer),
            metadata=metadata,
            deadline_ns=deadline_ns,
            note=getattr(context, "note", None),
            trace=trace,
        )
        try:
            outcome = await answered
        except asyncio.CancelledError:
            if ticket is not None:
                ticket.cancel()
            raise
        if trace is not None:
            await context.send_initial_metadata(((TRACEPARENT, trace.traceparent.decode()),))
        return outcome if isinstance(outcome, bytes) else await _abort(context, outcome)

    def _answer_traced(
        self, trace: RequestTrace, deadline_ns: int | None, answer: Answer, outcome: bytes | ServingError
    ) -> None:
        self._infer.end_trace(trace, outcome, deadline_ns)
        answer(outcome)

    async def model_stream_infer(self, messages: AsyncIterator[bytes], context: Any) -> None:
        """ModelStreamInfer: a reader feeds the stream, this coroutine writes what it emits."""
        await self._check_access(_STREAM, context)
        outbox: asyncio.Queue[bytes | ServingError | None] = asyncio.Queue()
        room = asyncio.Event()
        stream = InferStream(
            self._infer,
            metadata=context.invocation_metadata() or (),
            deadline_ns=self._deadline_ns(context),
            emit=outbox.put_nowait,
            fail=outbox.put_nowait,
            idle=room.set,
            access=None if self._access is None else StreamAccess(self._access, _STREAM, address(context)),
        )

        async def read() -> None:
            async for message in messages:
                stream.feed(message)
                # A client that sends and does not read is not read either.
                while stream.inflight + outbox.qsize() >= MAX_STREAM_INFLIGHT:
                    room.clear()
                    await room.wait()
            while stream.inflight:
                room.clear()
                await room.wait()
            outbox.put_nowait(None)

        def end() -> None:
            outbox.put_nowait(Unavailable("the server is shutting down and has stopped accepting new requests"))

        self._streams.add(end)
        reader = asyncio.create_task(read(), name="grpc-stream-reader")
        try:
            while (item := await outbox.get()) is not None:
                if isinstance(item, ServingError):
                    await _abort(context, item)
                await context.write(item)
                room.set()
        finally:
            self._streams.discard(end)
            stream.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def reflection(self, messages: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Server reflection, v1 and v1alpha: they differ in their package's name only."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        self._streams.add(end)
        source = aiter(messages)
        try:
            while True:
                coming = asyncio.ensure_future(anext(source, None))
                try:
                    await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
                    message = coming.result() if coming.done() else None
                finally:
                    coming.cancel()
                if message is None:
                    return
                yield reflection.answer(message)
        finally:
            self._streams.discard(end)

    def _deadline_ns(self, context: Any) -> int | None:
        remaining_s = context.time_remaining()
        if remaining_s is None or remaining_s > 1e6:
            return None
        return self._engine.clock.now_ns() + int(max(remaining_s, 0.0) * 1e9)

    async def _check_access(self, path: str, context: Any) -> None:
        needed = self._restricted.get(category_of(path) or "")
        if needed is None:
            return
        header, value = needed
        given = dict(context.invocation_metadata() or ()).get(f"triton-grpc-protocol-{header.lower()}", "")
        if not hmac.compare_digest(str(given).encode(), value.encode()):
            if path in {_INFER, _STREAM}:
                self._engine.refused(ErrorKind.UNAVAILABLE)
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{header}'"
            )


async def _abort(context: Any, error: ServingError) -> bytes:
    """End the call with `error`'s status. Never returns: grpcio raises."""
    trailing: tuple[tuple[str, str], ...] = ()
    if error.retry_after_s is not None:
        # What gRPC clients with a retry policy understand: milliseconds to wait.
        trailing = (("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))),)
    await context.abort(_CODES[grpc_code(error.kind)], grpc_message(error), trailing)
    raise AssertionError("grpcio's abort returned")
