"""Every unary method but ModelInfer: method path → coroutine over message bytes.

Metadata, configuration, statistics, repository, settings, shared memory and `grpc.health.v1`. Codecs are
`protocol/v2_proto*.py`, answers the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorquay.config.triton import to_triton_proto
from tensorquay.core.errors import Unimplemented
from tensorquay.engine import InferenceEngine
from tensorquay.grpc_api.methods import HEALTH_CHECK, SERVICE, Method
from tensorquay.protocol import health
from tensorquay.protocol import proto_bodies as codec
from tensorquay.protocol.shared_memory import shared_memory_off


def control_methods(engine: InferenceEngine) -> Mapping[str, Method]:
    """Method path → handler. A handler raises ServingError for the status to send."""
    calls = _Calls(engine)
    table: dict[str, Method] = {
        f"{SERVICE}{name}": method
        for name, method in (
            ("ServerLive", calls.server_live),
            ("ServerReady", calls.server_ready),
            ("ModelReady", calls.model_ready),
            ("ServerMetadata", calls.server_metadata),
            ("ModelMetadata", calls.model_metadata),
            ("ModelConfig", calls.model_config),
            ("ModelStatistics", calls.model_statistics),
            ("RepositoryIndex", calls.repository_index),
            ("RepositoryModelLoad", calls.repository_load),
            ("RepositoryModelUnload", calls.repository_unload),
            ("SystemSharedMemoryStatus", calls.shm_status),
            ("SystemSharedMemoryRegister", calls.shm_register),
            ("SystemSharedMemoryUnregister", calls.shm_unregister),
            ("CudaSharedMemoryStatus", calls.cuda_status),
            ("CudaSharedMemoryRegister", calls.cuda_register),
            ("CudaSharedMemoryUnregister", calls.cuda_unregister),
            ("TraceSetting", calls.trace_setting),
            ("LogSettings", calls.log_settings),
        )
    }
    table[HEALTH_CHECK] = calls.health_check
    return table


class _Calls:
    """One coroutine per method; the class only holds the engine."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    async def server_live(self, _message: bytes) -> bytes:
        return codec.encode_live(self._engine.live())

    async def server_ready(self, _message: bytes) -> bytes:
        return codec.encode_ready(self._engine.ready())

    async def model_ready(self, message: bytes) -> bytes:
        name, version = codec.decode_name_version(message)
        return codec.encode_ready(self._engine.model_ready(name, version))

    async def health_check(self, message: bytes) -> bytes:
        return health.check(message, ready=self._engine.ready())

    async def server_metadata(self, _message: bytes) -> bytes:
        return codec.encode_server_metadata(self._engine.server_metadata())

    async def model_metadata(self, message: bytes) -> bytes:
        name, version = codec.decode_name_version(message)
        return codec.encode_model_metadata(self._engine.model_metadata(name, version))

    async def model_config(self, message: bytes) -> bytes:
        name, version = codec.decode_name_version(message)
        config, kind = self._engine.model_config(name, version)
        return codec.encode_model_config(to_triton_proto(config, placed=kind))

    async def model_statistics(self, message: bytes) -> bytes:
        name, version = codec.decode_name_version(message)
        return codec.encode_statistics(self._engine.statistics(name, version))

    async def repository_index(self, message: bytes) -> bytes:
        repository, ready_only = codec.decode_index(message)
        _refuse_repository(repository)
        return codec.encode_index(await self._engine.repository_index(ready_only=ready_only))

    async def repository_load(self, message: bytes) -> bytes:
        repository, name, wanted = codec.decode_load(message)
        _refuse_repository(repository)
        await self._engine.load_model(name, wanted.config, wanted.files)
        return b""

    async def repository_unload(self, message: bytes) -> bytes:
        repository, name, dependents = codec.decode_unload(message)
        _refuse_repository(repository)
        await self._engine.unload_model(name, unload_dependents=dependents)
        return b""

    async def shm_status(self, message: bytes) -> bytes:
        name = codec.decode_region_name(message)
        return codec.encode_shared_memory(self._engine.regions.status(name))

    async def shm_register(self, message: bytes) -> bytes:
        if not self._engine.regions.enabled:
            raise shared_memory_off()
        region = codec.decode_shm_register(message)
        self._engine.regions.register(region.name, region.key, region.offset, region.byte_size)
        return b""

    async def shm_unregister(self, message: bytes) -> bytes:
        self._engine.regions.unregister(codec.decode_region_name(message))
        return b""

    async def cuda_status(self, message: bytes) -> bytes:
        if codec.decode_region_name(message):
            raise _no_cuda()
        return b""  # an empty map: no region is registered

    async def cuda_register(self, _message: bytes) -> bytes:
        raise _no_cuda()

    async def cuda_unregister(self, message: bytes) -> bytes:
        # Clients written for Triton unregister all of both kinds before they start; there is nothing to do.
        if codec.decode_region_name(message):
            raise _no_cuda()
        return b""

    async def trace_setting(self, message: bytes) -> bytes:
        model, change = codec.decode_trace_setting(message)
        if model:
            self._engine.require_known(model)
        traces = self._engine.traces
        shown = traces.update(change, model) if change else traces.settings(model)
        return codec.encode_trace_setting({k: v if isinstance(v, list) else [v] for k, v in shown.items()})

    async def log_settings(self, message: bytes) -> bytes:
        change = codec.decode_log_settings(message)
        settings = self._engine.log_settings
        return codec.encode_log_settings(settings.update(change) if change else settings.get())


def _refuse_repository(name: str) -> None:
    if name:
        raise Unimplemented(f"'repository_name' specification is not supported, got '{name:.64}'; leave it out")


def _no_cuda() -> Unimplemented:
    return Unimplemented("CUDA shared memory is not supported; use system shared memory or send the data")
