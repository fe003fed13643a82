"""The calls a client offers, sync and async, over any codec and transport.

Each method is one line: the codec says what to send and how to read the answer, `retry.converse` says what to do next,
and the two drivers below obey it. Nothing else differs between sync and async.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from tensorquay_client.calls import Call, Codec, Reply
from tensorquay_client.casting import cast_inputs
from tensorquay_client.errors import ClientError
from tensorquay_client.messages import (
    InferResult,
    ModelMetadata,
    Parameter,
    RepositoryEntry,
    ServerMetadata,
    infer_request,
    version_text,
)
from tensorquay_client.retry import Outcome, Pause, Retry, converse
from tensorquay_client.tensors import TensorLike

T = TypeVar("T")
Version = int | str | None
"""None: the server's version policy chooses."""


class Transport(Protocol):
    """Carries calls; sync."""

    def send(self, call: Call[Any], timeout_s: float | None) -> Reply:
        """One try."""

    def close(self) -> None:
        """Release connections."""


class AsyncTransport(Protocol):
    """Carries calls; async."""

    async def send(self, call: Call[Any], timeout_s: float | None) -> Reply:
        """One try."""

    async def close(self) -> None:
        """Release connections."""


class _Base:
    """What both kinds of client hold: address, codec, defaults."""

    def __init__(self, url: str, codec: Codec, *, timeout_s: float | None, retry: Retry) -> None:
        self._url, self._codec, self._timeout_s, self._retry = url, codec, timeout_s, retry
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r}{', closed' if self._closed else ''})"

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self!r}: make a new client")


class Client(_Base):
    """Calls of a V2 inference server. Safe to use from several threads; keeps its connections: make one, close it.

    Every method raises the errors of `tensorquay_client.errors`. `version` None leaves the choice to the server.
    """

    def __init__(
        self,
        url: str,
        codec: Codec,
        transport: Transport,
        *,
        timeout_s: float | None,
        retry: Retry,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(url, codec, timeout_s=timeout_s, retry=retry)
        self._transport, self._sleep = transport, sleep

    def live(self) -> bool:
        """Whether the server is alive. Raises ConnectionFailed if there is none."""
        return self._do(self._codec.live())

    def ready(self) -> bool:
        """Whether the server is ready for predictions."""
        return self._do(self._codec.ready())

    def model_ready(self, model: str, version: Version = None) -> bool:
        """Whether the model (version) is ready; False also if there is none of that name."""
        return self._do(self._codec.model_ready(model, version_text(version)))

    def server_metadata(self) -> ServerMetadata:
        """The server's name, version and protocol extensions."""
        return self._do(self._codec.server_metadata())

    def model_metadata(self, model: str, version: Version = None) -> ModelMetadata:
        """The model's versions, inputs and outputs."""
        return self._do(self._codec.model_metadata(model, version_text(version)))

    def model_config(self, model: str, version: Version = None) -> dict[str, Any]:
        """The model's configuration, with the field names of Triton's ModelConfig."""
        return self._do(self._codec.model_config(model, version_text(version)))

    def statistics(self, model: str = "", version: Version = None) -> list[dict[str, Any]]:
        """Counts and cumulative times per model version; of all models without a name."""
        return self._do(self._codec.statistics(model, version_text(version)))

    def repository_index(self, *, ready: bool = False) -> list[RepositoryEntry]:
        """Every model version the server knows with its state, or only the ready ones."""
        return self._do(self._codec.repository_index(ready=ready))

    def load_model(
        self,
        model: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Load or reload a model (servers in explicit mode).

        Args: config: a model configuration as JSON, instead of the one on disk. files: "1/model.onnx" → content,
            instead of the files on disk; needs `config`. timeout_s: instead of the client's.
        """
        self._do(self._codec.load_model(model, config, files), timeout_s)

    def unload_model(self, model: str, *, dependents: bool = False, timeout_s: float | None = None) -> None:
        """Unload a model (servers in explicit mode); returns before its memory is free."""
        self._do(self._codec.unload_model(model, dependents=dependents), timeout_s)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        version: Version = None,
        outputs: Sequence[str] | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's own word
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
        classification: Mapping[str, int] | None = None,
        cast: bool = False,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InferResult:
        """One prediction.

        Args:
            inputs: name → array with the batch axis, or a `Tensor` to say the type. dtypes are sent as they are.
            outputs: names of the wanted outputs; None: all.
            id: returned with the answer.
            parameters: custom request parameters, and those of the protocol (`sequence_id`, `timeout` in µs, …).
            priority: 1 is the highest; 0 the model's default.
            classification: output → k: instead of it, its k best classes; read them with `InferResult.classes`.
            cast: ask once for the model's metadata and cast inputs to its types, if their values survive.
            timeout_s: instead of the client's, for everything together.
            headers: further headers or gRPC metadata of this call.
        """
        if cast:
            inputs = cast_inputs(inputs, self._declared(model, version_text(version)))
        request = infer_request(
            model,
            inputs,
            version=version,
            outputs=outputs,
            id=id,
            parameters=parameters,
            priority=priority,
            classification=classification,
        )
        return self._do(self._codec.infer(request, headers or {}), timeout_s)

    def close(self) -> None:
        """Release the connections."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _declared(self, model: str, version: str) -> ModelMetadata:
        found = self._metadata.get((model, version))
        if found is None:
            found = self._metadata[model, version] = self.model_metadata(model, version)
        return found

    def _do(self, call: Call[T], timeout_s: float | None = None) -> T:
        self._open()
        steps = converse(call, self._retry, self._timeout_s if timeout_s is None else timeout_s, time.monotonic)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            outcome = None
            if isinstance(step, Pause):
                self._sleep(step.seconds)
                continue
            try:
                outcome = self._transport.send(call, step.timeout_s)
            except ClientError as error:
                outcome = error


class AsyncClient(_Base):
    """`Client` for asyncio: the same methods, awaited. Belongs to the event loop of its first call."""

    def __init__(
        self,
        url: str,
        codec: Codec,
        transport: AsyncTransport,
        *,
        timeout_s: float | None,
        retry: Retry,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(url, codec, timeout_s=timeout_s, retry=retry)
        self._transport, self._sleep = transport, sleep

    async def live(self) -> bool:
        """See `Client.live`."""
        return await self._do(self._codec.live())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._do(self._codec.ready())

    async def model_ready(self, model: str, version: Version = None) -> bool:
        """See `Client.model_ready`."""
        return await self._do(self._codec.model_ready(model, version_text(version)))

    async def server_metadata(self) -> ServerMetadata:
        """See `Client.server_metadata`."""
        return await self._do(self._codec.server_metadata())

    async def model_metadata(self, model: str, version: Version = None) -> ModelMetadata:
        """See `Client.model_metadata`."""
        return await self._do(self._codec.model_metadata(model, version_text(version)))

    async def model_config(self, model: str, version: Version = None) -> dict[str, Any]:
        """See `Client.model_config`."""
        return await self._do(self._codec.model_config(model, version_text(version)))

    async def statistics(self, model: str = "", version: Version = None) -> list[dict[str, Any]]:
        """See `Client.statistics`."""
        return await self._do(self._codec.statistics(model, version_text(version)))

    async def repository_index(self, *, ready: bool = False) -> list[RepositoryEntry]:
        """See `Client.repository_index`."""
        return await self._do(self._codec.repository_index(ready=ready))

    async def load_model(
        self,
        model: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """See `Client.load_model`."""
        await self._do(self._codec.load_model(model, config, files), timeout_s)

    async def unload_model(self, model: str, *, dependents: bool = False, timeout_s: float | None = None) -> None:
        """See `Client.unload_model`."""
        await self._do(self._codec.unload_model(model, dependents=dependents), timeout_s)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        version: Version = None,
        outputs: Sequence[str] | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's own word
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
        classification: Mapping[str, int] | None = None,
        cast: bool = False,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InferResult:
        """See `Client.infer`."""
        if cast:
            inputs = cast_inputs(inputs, await self._declared(model, version_text(version)))
        request = infer_request(
            model,
            inputs,
            version=version,
            outputs=outputs,
            id=id,
            parameters=parameters,
            priority=priority,
            classification=classification,
        )
        return await self._do(self._codec.infer(request, headers or {}), timeout_s)

    async def close(self) -> None:
        """Release the connections."""
        self._closed = True
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _declared(self, model: str, version: str) -> ModelMetadata:
        found = self._metadata.get((model, version))
        if found is None:
            found = self._metadata[model, version] = await self.model_metadata(model, version)
        return found

    async def _do(self, call: Call[T], timeout_s: float | None = None) -> T:
        self._open()
        steps = converse(call, self._retry, self._timeout_s if timeout_s is None else timeout_s, time.monotonic)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            outcome = None
            if isinstance(step, Pause):
                await self._sleep(step.seconds)
                continue
            try:
                outcome = await self._transport.send(call, step.timeout_s)
            except ClientError as error:
                outcome = error
