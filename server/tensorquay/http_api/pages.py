"""The console's files over HTTP: `/`, `/console/<file>`, `/favicon.ico`.

Read once, at start, from the package; a path only ever chooses among them. The page may run its own scripts, talk to
this server and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

_FOLDER = "console"
_INDEX = "index.html"
_ICON = "favicon.svg"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    # Asked for anew each time and mostly answered with 304: a new server never meets an old page.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One file. `tag` is its ETag, with quotes."""

    content: bytes
    media_type: str
    tag: str


def console_pages() -> dict[str, Page]:
    """The console's files by name; empty when this build has none."""
    folder = resources.files("tensorquay.http_api").joinpath(_FOLDER)
    if not folder.is_dir():
        return {}
    found: dict[str, Page] = {}
    for each in folder.iterdir():
        suffix = "." + each.name.rpartition(".")[2]
        if suffix in _TYPES and each.is_file():
            content = each.read_bytes()
            found[each.name] = Page(content, _TYPES[suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def console_routes(pages: Mapping[str, Page]) -> APIRouter:
    """Routes to `pages`; none without an index page."""
    router = APIRouter(include_in_schema=False)
    if _INDEX not in pages:
        return router

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _answer(pages.get(_INDEX), request)

    @router.api_route("/console/{name}", methods=["GET", "HEAD"])
    async def file(name: str, request: Request) -> Response:
        return _answer(pages.get(name), request)

    @router.api_route("/favicon.ico", methods=["GET", "HEAD"])
    async def icon(request: Request) -> Response:
        # Browsers ask for it by this name whatever the page says, and take any picture.
        return _answer(pages.get(_ICON), request) if _ICON in pages else Response(status_code=204)

    return router


def _answer(page: Page | None, request: Request) -> Response:
    if page is None:
        raise HTTPException(404, "Not Found")
    headers = {**_HEADERS, "etag": page.tag}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if page.tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(page.content, media_type=page.media_type, headers=headers)
