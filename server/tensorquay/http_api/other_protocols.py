"""Paths of other servers' protocols: clients that were not translated yet are told so, and what to call instead.

A plain 404 would look like a server that is not there. Sources: REST APIs of TensorFlow Serving and KServe (V1), and of
TorchServe.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import Response

from tensorquay.core.errors import NotFound

_TORCHSERVE = "is TorchServe's protocol; this server speaks V2 (docs/migrate-from-torchserve.md)"

OTHERS: Mapping[str, str] = {
    "/v1/{rest:path}": "is the protocol of TensorFlow Serving and KServe V1; this server speaks V2: predict by "
    "POST /v2/models/NAME/infer, health is GET /v2/health/ready (docs/migrate-from-tf-serving.md)",
    "/predictions/{rest:path}": f"{_TORCHSERVE}: predict by POST /v2/models/NAME/infer",
    "/explanations/{rest:path}": f"{_TORCHSERVE}, and explains no predictions",
    "/ping": f"{_TORCHSERVE}: health is GET /v2/health/ready",
    "/models": f"{_TORCHSERVE}: models are listed by POST /v2/repository/index",
    "/models/{rest:path}": f"{_TORCHSERVE}: a model is described by GET /v2/models/NAME, and loaded and unloaded by "
    "POST /v2/repository/models/NAME/load and …/unload",
}
"""Route → what to say of a path that it matches."""


def other_protocol_routes() -> APIRouter:
    """Routes that answer 404 with a sentence, whatever the verb."""
    router = APIRouter(include_in_schema=False)
    for path, sentence in OTHERS.items():
        router.add_api_route(path, _teller(path, sentence), methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
    return router


def _teller(path: str, sentence: str) -> Callable[[], Awaitable[Response]]:
    shown = path.partition("{")[0].rstrip("/")

    async def tell() -> Response:
        raise NotFound(f"Not Found: {shown} {sentence}")

    return tell
