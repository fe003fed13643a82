"""The console's files: what is served, with which headers, and that a path only chooses among them."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from tensorquay.http_api.pages import Page, console_pages, console_routes

PAGES = {
    "index.html": Page(b"<!doctype html>", "text/html; charset=utf-8", '"one"'),
    "app.js": Page(b"1", "text/javascript; charset=utf-8", '"two"'),
}


def client(pages: dict[str, Page]) -> httpx.AsyncClient:
    app = FastAPI(redirect_slashes=False)
    app.include_router(console_routes(pages))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    ("path", "name"), [("/", "index.html"), ("/console/index.html", "index.html"), ("/console/app.js", "app.js")]
)
async def test_a_file_comes_with_headers_that_keep_it_at_home(path, name):
    async with client(PAGES) as http:
        answer = await http.get(path)
        head = await http.head(path)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200,
        PAGES[name].content,
        PAGES[name].media_type,
    )
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert answer.headers["cache-control"] == "no-cache"
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(PAGES[name].content)))


@pytest.mark.parametrize("known", ['"one"', 'W/"one"', '"zero", "one"', "*"])
async def test_who_has_a_file_is_told_so(known):
    async with client(PAGES) as http:
        answer = await http.get("/", headers={"if-none-match": known})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"one"')
    assert "content-security-policy" in answer.headers


async def test_who_has_an_older_one_gets_the_new_one():
    async with client(PAGES) as http:
        assert (await http.get("/", headers={"if-none-match": '"two"'})).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/console/",
        "/console",
        "/console/nothing.js",
        "/console/../pages.py",
        "/console/..%2fpages.py",
        "/console/%2e%2e/pages.py",
        "/console//etc/passwd",
        "/console/app.js/",
        "/console/%00",
        "/index.html",
        "/console/APP.JS",
    ],
)
async def test_there_is_nothing_else(path):
    async with client(PAGES) as http:
        assert (await http.get(path)).status_code == 404


async def test_the_icon_that_browsers_ask_for():
    async with client(PAGES) as http:
        assert (await http.get("/favicon.ico")).status_code == 204
    icon = Page(b"<svg/>", "image/svg+xml", '"i"')
    async with client({**PAGES, "favicon.svg": icon}) as http:
        answer = await http.get("/favicon.ico")
    assert (answer.content, answer.headers["content-type"]) == (b"<svg/>", "image/svg+xml")


async def test_without_a_console_there_is_nothing():
    async with client({}) as http:
        assert [(await http.get(path)).status_code for path in ("/", "/console/app.js", "/favicon.ico")] == [404] * 3


def test_every_file_of_this_build_has_a_type_and_a_tag():
    pages = console_pages()
    assert "index.html" in pages
    assert all(page.content and page.tag.startswith('"') and page.media_type for page in pages.values())
    assert len({page.tag for page in pages.values()}) == len(pages)
