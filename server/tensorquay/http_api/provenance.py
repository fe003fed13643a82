"""What an import or an optimisation left beside a served model, over HTTP: where it comes from, its proof or its
measurements, the report for people.

The files are whoever's wrote the repository: read with a bound, never out of the model's folder, JSON only when it is
JSON, and the page so that it can run nothing and reach nobody.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from tensorquay.core.errors import InvalidArgument, ModelFailed, NotFound
from tensorquay.engine import InferenceEngine
from tensorquay.protocol.json_text import parse_json_object
from tensorquay.repository.files import MissingFile, UnusableFile, read_inside

_MAX_BYTES = 32 << 20
_REPORT = "report.html"
_NOT_IMPORTED = "it was not imported with 'tensorquay import'"
_NEITHER = f"{_NOT_IMPORTED}, nor optimised with 'tensorquay optimize'"
_FILES = {
    "provenance": ("provenance.json", "Where the model comes from", _NOT_IMPORTED),
    "verification": ("verification.json", "The proof that it equals its source", _NOT_IMPORTED),
    "optimization": (
        "optimization.json",
        "What its optimisation measured",
        "it was not optimised with 'tensorquay optimize'",
    ),
    "report": (_REPORT, "The proof or the measurements as a page for people", _NEITHER),
}
"""By route: the file, what it is, and why it may not be there."""

_HARMLESS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def provenance_routes(engine: InferenceEngine) -> APIRouter:
    """`…/provenance`, `…/verification`, `…/optimization` (JSON), `…/report` (HTML) of a model or one version of it."""
    router = APIRouter(tags=["metadata"])

    def both(kind: str, summary: str) -> None:
        async def plain(model: str) -> Response:
            return await _answer(engine, model, "", kind)

        async def versioned(model: str, version: str) -> Response:
            if not (version.isascii() and version.isdigit()):
                raise HTTPException(404, "Not Found")
            return await _answer(engine, model, version, kind)

        router.get(f"/v2/models/{{model}}/{kind}", summary=summary)(plain)
        router.get(f"/v2/models/{{model}}/versions/{{version}}/{kind}", summary=f"{summary}, one version")(versioned)

    for kind, (_, summary, _) in _FILES.items():
        both(kind, summary)
    return router


async def _answer(engine: InferenceEngine, model: str, version: str, kind: str) -> Response:
    """Raises: NotFound when nothing of that kind is there; ModelFailed when what is there cannot be read."""
    folder = engine.model_files(model, version)
    name, _, why_not = _FILES[kind]
    try:
        real = await asyncio.to_thread(folder.resolve)
        data = await asyncio.to_thread(read_inside, real / name, name, real, _MAX_BYTES)
    except MissingFile as exc:
        raise NotFound(f"model '{model:.128}' has no {name}: {why_not}") from exc
    except UnusableFile as exc:
        raise ModelFailed(f"model '{model:.128}': {exc}") from exc
    if name == _REPORT:
        return Response(data, media_type="text/html; charset=utf-8", headers=_HARMLESS)
    try:
        parse_json_object(data, name)
    except InvalidArgument as exc:
        raise ModelFailed(f"model '{model:.128}': {exc}") from exc
    return Response(data, media_type="application/json", headers={"x-content-type-options": "nosniff"})
