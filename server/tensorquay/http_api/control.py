"""The control plane over HTTP: metadata, configuration, statistics, repository, settings, shared memory.

FastAPI routes in front of the engine's look-ups; nothing here is on the path of a prediction. Bodies in and out are the
codecs' (`protocol/v2_json.py`), statuses come from `protocol/status.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from tensorquay import __version__
from tensorquay.config.triton import to_triton_json
from tensorquay.core.errors import ServingError, Unimplemented
from tensorquay.engine import InferenceEngine
from tensorquay.http_api.live import live_routes
from tensorquay.http_api.other_protocols import other_protocol_routes
from tensorquay.http_api.pages import Page, console_routes
from tensorquay.http_api.provenance import provenance_routes
from tensorquay.live.feed import LiveFeed
from tensorquay.protocol import compression, json_bodies
from tensorquay.protocol.json_text import parse_json_object
from tensorquay.protocol.shared_memory import shared_memory_off
from tensorquay.transport.coding import DECOMPRESS_BESIDE_BYTES
from tensorquay.transport.http_message import error_reply

_OK = Response(status_code=200)


def control_app(engine: InferenceEngine, feed: LiveFeed, *, max_body_bytes: int, pages: Mapping[str, Page]) -> FastAPI:
    """The FastAPI application with every route of the V2 protocol but infer and health, the live feed and the console.

    Args:
        max_body_bytes: bound of a body after decompression.
        pages: the console's files; empty: there is no console.
    """
    app = FastAPI(
        title="Tensorquay",
        version=__version__,
        summary="Control plane of the V2 inference protocol",
        # The documentation pages load scripts from elsewhere; the description itself does not.
        docs_url=None,
        redoc_url=None,
        openapi_url="/v2/openapi.json",
        redirect_slashes=False,
    )
    for router in (
        _describing(engine),
        provenance_routes(engine),
        _repository(engine, max_body_bytes),
        _settings(engine, max_body_bytes),
        _shared_memory(engine, max_body_bytes),
        live_routes(feed),
        console_routes(pages),
        _refused(),
        other_protocol_routes(),
    ):
        app.include_router(router)
    app.add_exception_handler(ServingError, _serving_error)
    app.add_exception_handler(HTTPException, _http_exception)
    return app


async def _serving_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    reply = error_reply(error)
    return Response(
        b"".join(reply.parts),
        reply.status,
        {name.decode(): value.decode() for name, value in reply.headers},
        media_type="application/json",
    )


async def _http_exception(_request: Request, error: Exception) -> Response:
    """Routing's own answers in the protocol's shape: unknown path 404, wrong verb 405."""
    assert isinstance(error, HTTPException)
    text = json_bodies.dumps({"error": str(error.detail)})
    return Response(text, error.status_code, dict(error.headers or {}), media_type="application/json")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _body(request: Request, limit: int) -> bytes:
    raw = await request.body()
    coding = compression.content_encoding(request.headers.get("content-encoding"))
    if coding is None:
        return raw
    if len(raw) < DECOMPRESS_BESIDE_BYTES:
        return bytes(compression.decompress(raw, coding, limit))
    return bytes(await asyncio.to_thread(compression.decompress, raw, coding, limit))


def _version(text: str) -> str:
    """A version in a path is digits; anything else names no route."""
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(404, "Not Found")
    return text


def _describing(engine: InferenceEngine) -> APIRouter:
    router = APIRouter(tags=["metadata"])

    @router.get("/v2", summary="Server metadata")
    async def server_metadata() -> Response:
        return _json(json_bodies.encode_server_metadata(engine.server_metadata()))

    @router.get("/v2/models", summary="Names of the models in the repository")
    async def models() -> Response:
        index = await engine.repository_index(ready_only=False)
        return _json(json_bodies.dumps({"models": list(dict.fromkeys(entry.name for entry in index))}))

    # Before the route of a single model: a model called "stats" cannot be described (docs/protocol.md).
    @router.get("/v2/models/stats", summary="Statistics of all models")
    async def all_statistics() -> Response:
        return _json(json_bodies.encode_statistics(engine.statistics()))

    def per_model(suffix: str, summary: str, answer: Callable[[str, str], bytes]) -> None:
        async def plain(model: str) -> Response:
            return _json(answer(model, ""))

        async def versioned(model: str, version: str) -> Response:
            return _json(answer(model, _version(version)))

        router.get(f"/v2/models/{{model}}{suffix}", summary=summary)(plain)
        router.get(f"/v2/models/{{model}}/versions/{{version}}{suffix}", summary=f"{summary}, one version")(versioned)

    per_model("", "Model metadata", lambda m, v: json_bodies.encode_model_metadata(engine.model_metadata(m, v)))
    per_model("/stats", "Model statistics", lambda m, v: json_bodies.encode_statistics(engine.statistics(m, v)))
    per_model("/config", "Model configuration in force", lambda m, v: json_bodies.dumps(_config(engine, m, v)))
    return router


def _config(engine: InferenceEngine, model: str, version: str) -> dict[str, object]:
    config, kind = engine.model_config(model, version)
    return to_triton_json(config, placed=kind)


def _repository(engine: InferenceEngine, limit: int) -> APIRouter:
    router = APIRouter(tags=["model repository"])

    @router.post("/v2/repository/index", summary="Every model and version, with state and reason")
    async def index(request: Request) -> Response:
        ready_only = json_bodies.decode_index(await _body(request, limit))
        return _json(json_bodies.encode_index(await engine.repository_index(ready_only=ready_only)))

    @router.post("/v2/repository/{repository}/index", summary="Not supported: naming a repository")
    @router.post("/v2/repository/{repository}/models/{model}/load", summary="Not supported: naming a repository")
    @router.post("/v2/repository/{repository}/models/{model}/unload", summary="Not supported: naming a repository")
    async def named(repository: str) -> Response:
        raise Unimplemented(f"'repository_name' specification is not supported, got '{repository:.64}'; leave it out")

    @router.post("/v2/repository/models/{model}/load", summary="Load or reload a model (explicit control mode)")
    async def load(model: str, request: Request) -> Response:
        wanted = json_bodies.decode_load(await _body(request, limit))
        await engine.load_model(model, wanted.config, wanted.files)
        return _OK

    @router.post("/v2/repository/models/{model}/unload", summary="Unload a model (explicit control mode)")
    async def unload(model: str, request: Request) -> Response:
        dependents = json_bodies.decode_unload(await _body(request, limit))
        await engine.unload_model(model, unload_dependents=dependents)
        return _OK

    return router


def _settings(engine: InferenceEngine, limit: int) -> APIRouter:
    router = APIRouter(tags=["settings"])

    @router.get("/v2/logging", summary="Log settings")
    async def log_settings() -> Response:
        return _json(json_bodies.dumps(engine.log_settings.get()))

    @router.post("/v2/logging", summary="Change log settings")
    async def update_log_settings(request: Request) -> Response:
        change = parse_json_object(await _body(request, limit), "log settings")
        return _json(json_bodies.dumps(engine.log_settings.update(change)))

    @router.get("/v2/trace/setting", summary="Trace settings")
    async def trace_settings() -> Response:
        return _json(json_bodies.dumps(engine.traces.settings()))

    @router.post("/v2/trace/setting", summary="Change trace settings")
    async def update_trace_settings(request: Request) -> Response:
        change = parse_json_object(await _body(request, limit), "trace settings")
        return _json(json_bodies.dumps(engine.traces.update(change)))

    @router.get("/v2/models/{model}/trace/setting", summary="Trace settings of a model")
    async def model_trace_settings(model: str) -> Response:
        engine.require_known(model)
        return _json(json_bodies.dumps(engine.traces.settings(model)))

    @router.post("/v2/models/{model}/trace/setting", summary="Change trace settings of a model")
    async def update_model_trace_settings(model: str, request: Request) -> Response:
        engine.require_known(model)
        change = parse_json_object(await _body(request, limit), "trace settings")
        return _json(json_bodies.dumps(engine.traces.update(change, model)))

    return router


def _shared_memory(engine: InferenceEngine, limit: int) -> APIRouter:
    router = APIRouter(tags=["shared memory"])
    base = "/v2/systemsharedmemory"

    @router.get(f"{base}/status", summary="Registered system shared-memory regions")
    async def status() -> Response:
        return _json(json_bodies.encode_shared_memory(engine.regions.status()))

    @router.get(f"{base}/region/{{region}}/status", summary="One registered region")
    async def region_status(region: str) -> Response:
        return _json(json_bodies.encode_shared_memory(engine.regions.status(region)))

    @router.post(f"{base}/region/{{region}}/register", summary="Register a region")
    async def register(region: str, request: Request) -> Response:
        if not engine.regions.enabled:
            raise shared_memory_off()
        wanted = json_bodies.decode_shm_register(await _body(request, limit), region)
        engine.regions.register(wanted.name, wanted.key, wanted.offset, wanted.byte_size)
        return _OK

    @router.post(f"{base}/region/{{region}}/unregister", summary="Unregister a region")
    async def unregister(region: str) -> Response:
        engine.regions.unregister(region)
        return _OK

    @router.post(f"{base}/unregister", summary="Unregister all regions")
    async def unregister_all() -> Response:
        engine.regions.unregister()
        return _OK

    cuda = "/v2/cudasharedmemory"

    @router.get(f"{cuda}/status", summary="CUDA regions: none, this build registers none")
    async def cuda_status() -> Response:
        return _json(b"[]")

    # Clients written for Triton unregister both kinds before they start; there is nothing to do.
    @router.post(f"{cuda}/unregister", summary="Unregister all CUDA regions")
    async def cuda_unregister_all() -> Response:
        return _OK

    @router.get(f"{cuda}/region/{{region}}/status", summary="Not supported")
    @router.post(f"{cuda}/region/{{region}}/register", summary="Not supported")
    @router.post(f"{cuda}/region/{{region}}/unregister", summary="Not supported")
    async def cuda_refused(region: str) -> Response:
        raise Unimplemented(
            f"CUDA shared memory is not supported, got region '{region:.64}'; use system shared memory or send the data"
        )

    return router


def _refused() -> APIRouter:
    router = APIRouter(tags=["not supported"])

    async def generate(model: str) -> Response:
        raise Unimplemented(f"the generate extension is not supported, got model '{model:.64}'; use …/infer")

    for action in ("generate", "generate_stream"):
        router.post(f"/v2/models/{{model}}/{action}", summary="Not supported")(generate)
        router.post(f"/v2/models/{{model}}/versions/{{version}}/{action}", summary="Not supported")(generate)
    return router
