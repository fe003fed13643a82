"""What the page does when the server leaves, comes back, is full, or wants a header; and that readers may leave too."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
from tests.console.asking import Asking, digits
from tests.console.browsing import ROOT, Console, told_first
from tests.console.conftest import Opener
from tests.support.serving import RunningServer
from tests.support.waiting import until

pytestmark = pytest.mark.browser

Serve = Callable[..., RunningServer]

READERS = 32


def test_the_server_stops_and_comes_back(opened: Opener, serve: Serve) -> None:
    first = serve([ROOT / "model_repo"])
    console = opened(first, refusals=True)
    page = console.open()
    page.wait_for_function("() => document.querySelector('.tiles').dataset.at")
    assert first.stop() == 0
    banner = page.get_by_text("Connection lost.")
    banner.wait_for()
    page.get_by_text("What is shown is").wait_for()
    page.locator("#link-state[data-kind=lost]").get_by_text("Reconnecting").wait_for()
    assert page.evaluate("document.body.classList.contains('stale')")
    # What was told last stays: nothing is made up, nothing is taken away.
    assert page.get_by_role("rowheader").get_by_role("link", name="digits", exact=True).is_visible()
    shown = page.locator(".tiles").get_attribute("data-at")
    serve([ROOT / "model_repo"], f"--http-port={first.http.rpartition(':')[2]}")
    page.locator("#link-state[data-kind=live]").wait_for()
    banner.wait_for(state="detached")
    page.wait_for_function("(shown) => document.querySelector('.tiles').dataset.at !== shown", arg=shown)
    assert not page.evaluate("document.body.classList.contains('stale')")


@pytest.mark.parametrize(
    ("route", "said", "wanted"),
    [
        ("model", "This could not be read", "Everything, with what was found out by itself"),
        ("try", "The form cannot be made", "The same as code"),
    ],
)
def test_what_was_not_answered_is_asked_again(
    opened: Opener, served: RunningServer, route: str, said: str, wanted: str
) -> None:
    console = opened(served, refusals=True)
    page = console.page
    told = told_first(console.base)
    page.route("**/v2/**", lambda route: route.abort())
    page.route("**/v2/live", lambda route: route.fulfill(body=told, content_type="text/event-stream"), times=1)
    page.goto(f"{console.base}/#/{route}/simple")
    page.get_by_text(said).first.wait_for()
    page.get_by_text("Connection lost.").wait_for()
    page.unroute_all()
    page.get_by_text(wanted).wait_for()
    page.get_by_text(said).first.wait_for(state="detached")


def _readers(server: RunningServer) -> int:
    """Connections to the live feed, counted by asking for one too many."""
    with socket.create_connection(server.http.split(":"), timeout=10) as connection:  # type: ignore[arg-type]
        connection.sendall(b"GET /v2/live HTTP/1.1\r\nHost: x\r\n\r\n")
        return int(connection.recv(64).split()[1])


def test_a_reader_that_leaves_is_forgotten(opened: Opener, serve: Serve) -> None:
    server = serve([ROOT / "model_repo"])
    with Asking(server, digits()) as client:
        for _ in range(READERS + 4):
            console = opened(server)
            console.open()
            console.page.close()
        until(lambda: _readers(server) == 200, "places are free again")
        before = client.answers
        until(lambda: client.answers > before + 5, "predictions go on")


def test_too_many_readers_are_told_so(opened: Opener, serve: Serve) -> None:
    server = serve([ROOT / "model_repo"])
    host, port = server.http.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(READERS):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            connection.sendall(b"GET /v2/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
        console = opened(server, refusals=True)
        page = console.page
        page.goto(server.url)
        page.get_by_text("Too many readers watch this server.").wait_for()
        page.get_by_text("32 readers watch the live figures already").wait_for()
        assert page.get_by_text("Waiting for the server").is_visible()
    page.locator("#link-state[data-kind=live]").wait_for()
    page.get_by_text("Too many readers").wait_for(state="detached")


def test_closed_apis_open_with_their_header(opened: Opener, serve: Serve) -> None:
    closed = "--http-restricted-api=statistics,inference,metadata,model-config:x-key=open sesame"
    server = serve([ROOT / "model_repo"], closed)
    console = opened(server, refusals=True)
    page = console.page
    page.goto(server.url)
    page.get_by_text("The live figures are closed off.").wait_for()
    page.get_by_role("button", name="Give the header").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_label("Header").input_value() == "x-key"
    dialog.get_by_label("Value").fill("wrong")
    dialog.get_by_role("button", name="Use it").click()
    page.get_by_text("The live figures are closed off.").wait_for()
    page.get_by_role("button", name="Access").click()
    dialog.get_by_label("Header").fill("x-key")
    dialog.get_by_label("Value").fill("open sesame")
    page.keyboard.press("Enter")
    page.locator("#link-state[data-kind=live]").wait_for()
    page.get_by_role("link", name="Try digits").click()
    page.get_by_role("heading", name="Inputs").wait_for()
    console.send()
    page.locator(".timing").wait_for()
    code = console.code("curl")
    assert '-H "x-key: $TENSORQUAY_KEY"' in code
    assert "sesame" not in page.content() + code
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"


def test_a_feed_that_is_not_there_is_said(opened: Opener, served: RunningServer) -> None:
    console = opened(served, refusals=True)
    page = console.page
    page.route("**/v2/live", lambda route: route.fulfill(status=404, json={"error": "Not Found"}))
    page.goto(served.url)
    page.get_by_text("This server has no live feed.").wait_for()
    page.unroute("**/v2/live")
    page.get_by_role("button", name="Try now").click()
    page.locator("#link-state[data-kind=live]").wait_for()


def test_a_tab_that_nobody_looks_at_gives_its_place_back(console: Console) -> None:
    page = console.page
    page.clock.install()
    console.open()
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, value: true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/v2/live")):
        page.clock.fast_forward(61_000)
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, value: false })")
    with page.expect_request("**/v2/live"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.locator("#link-state[data-kind=live]").get_by_text("Live", exact=True).wait_for()


def test_a_tab_opened_in_the_background_takes_no_place_before_it_is_seen(console: Console) -> None:
    page = console.page
    page.add_init_script("Object.defineProperty(document, 'hidden', { configurable: true, value: true })")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{console.base}/#/model/digits")
    page.get_by_text("Waiting for the server").wait_for()
    assert not [url for url in asked if url.endswith("/v2/live")]
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, value: false })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.locator("#link-state[data-kind=live]").wait_for()


def test_no_console_where_it_is_off(serve: Serve) -> None:
    import httpx

    server = serve([ROOT / "model_repo"], "--console=off")
    assert httpx.get(server.url).status_code == 404
    assert httpx.get(f"{server.url}/console/main.js").status_code == 404


def test_front_end_processes_hand_the_page_over(opened: Opener, serve: Serve) -> None:
    server = serve([ROOT / "model_repo"], "--frontends=2")
    console = opened(server)
    page = console.open()
    with Asking(server, digits()):
        page.wait_for_function(
            "() => parseFloat(document.querySelector('[data-tile=requests] .tile-number').textContent) > 1"
        )
    console.try_("digits")
    console.send()
    page.locator(".timing").wait_for()
