"""The first page: what is served and what is wrong with it, live."""

from __future__ import annotations

import re

import pytest
from tests.console.asking import Asking, digits, wrong
from tests.console.browsing import Console
from tests.console.conftest import LONG, MARKUP, Opener
from tests.support.serving import RunningServer

pytestmark = pytest.mark.browser


def test_it_shows_every_model_with_its_state(console: Console) -> None:
    page = console.open()
    for name in ("digits", "simple", "simple_identity", "broken", "mixed"):
        page.get_by_role("rowheader").get_by_role("link", name=name, exact=True).wait_for()
    row = page.get_by_role("row").filter(has_text="Failed")
    assert "this is no ONNX" not in row.inner_text()
    assert "'model.onnx' is no ONNX model" in row.inner_text()
    attention = page.get_by_label("Needs attention")
    assert "broken, version 2, failed to load. Version 1 serves." in attention.inner_text()
    attention.get_by_role("link").filter(has_text="broken").click()
    page.get_by_role("heading", name="broken", exact=True).wait_for()
    page.get_by_text("Version 2 does not serve: what follows is of version 1.").wait_for()


def test_it_asks_nobody_else_and_logs_no_error(console: Console) -> None:
    page = console.open()
    page.get_by_text("models,").wait_for()
    for route in ("#/model/digits", "#/model/simple", "#/try", "#/try/digits", "#/try/mixed", "#/"):
        console.open(route)
    # `console` fails the test at its end for any error, violation or foreign request on the way.
    assert (
        page.evaluate("document.querySelectorAll('script:not([src]), style, [style]:not([style^=\"--\"])').length") == 0
    )


def test_figures_are_live_and_those_of_the_server(console: Console, served: RunningServer) -> None:
    page = console.open()
    with Asking(served, digits(), digits(4), wrong()):
        page.wait_for_function(
            "() => parseFloat(document.querySelector('[data-tile=requests] .tile-number').textContent) > 1"
        )
        # The page's newest figures and the server's are compared when both are of the same second.
        page.wait_for_function(
            """async () => {
                const [{ rate, durationParts, count }, answer] = await Promise.all(
                    [import('/console/format.js'), fetch('/v2/live/now')]);
                const now = await answer.json();
                const tiles = document.querySelector('.tiles');
                if (tiles.dataset.at !== String(now.at_ms) || !now.server.latency_ms) return false;
                const shown = (key) => tiles.querySelector(`[data-tile=${key}] .tile-number`).textContent;
                const wanted = {
                    requests: rate(now.server.requests_per_s), failures: rate(now.server.failures_per_s),
                    waiting: count(now.server.waiting), p99: durationParts(now.server.latency_ms.p99)[0],
                };
                for (const [key, value] of Object.entries(wanted)) {
                    const said = shown(key);
                    if (said !== value) throw new Error(`${key}: the page says ${said}, the server ${value}`);
                }
                return true;
            }"""
        )
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="digits")).first
        page.wait_for_function(
            "() => [...document.querySelectorAll('.models-row')].some((row) => row.textContent.startsWith('digits')"
            " && parseFloat(row.querySelector('[data-label=\"Requests/s\"]').textContent) > 1)"
        )
        assert re.search(r"\d", row.inner_text())
        page.get_by_text("simple, version 1, fails requests").wait_for()


def test_charts_draw_what_happens_and_can_be_read_with_the_keyboard(console: Console, served: RunningServer) -> None:
    page = console.model("digits", "2")
    with Asking(served, digits(), digits(3)):
        page.wait_for_function("() => document.querySelectorAll('.chart-plot path[d]:not([d=\"\"])').length >= 8")
        chart = page.get_by_role("slider", name="Latency", exact=True)
        page.wait_for_function(
            "(chart) => /p99 [\\d.]+ (ms|µs)/.test(chart.getAttribute('aria-valuetext'))", arg=chart.element_handle()
        )
        chart.hover()
        page.locator(".chart-readout:visible").filter(has_text="p99").wait_for()
        page.mouse.move(0, 0)
        chart.focus()
        page.keyboard.press("ArrowLeft")
        page.locator(".chart-readout:visible").get_by_text("ago").wait_for()
    page.keyboard.press("Tab")
    page.locator(".chart-readout:visible").filter(has_text="p99").wait_for(state="hidden")


def test_names_are_text_and_nothing_else(console: Console) -> None:
    page = console.open()
    page.get_by_label("Search models").fill("onerror")
    link = page.get_by_role("rowheader").get_by_role("link", name=MARKUP, exact=True)
    assert link.inner_text() == MARKUP
    link.click()
    assert page.get_by_role("heading", level=1).inner_text() == MARKUP
    page.get_by_text("[-1, 4]").first.wait_for()
    page.get_by_role("link", name="Try it", exact=True).last.click()
    page.get_by_role("heading", name="Inputs").wait_for()
    console.send()
    page.locator(".timing").wait_for()
    console.try_(LONG)
    console.send()
    page.locator(".timing").wait_for()
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_proofs_and_measurements_are_shown_and_reports_open(console: Console) -> None:
    page = console.model("digits", "1")
    page.get_by_text("a model made for this test").wait_for()
    page.get_by_text("on 4 cases, 8 comparisons.").wait_for()
    page.get_by_role("cell", name="0").or_(page.get_by_text("<b>out</b>")).first.wait_for()
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open the whole report").click()
    popup.value.get_by_role("heading", name="The report").wait_for()
    popup.value.close()
    page.get_by_text("It was not optimised.").wait_for()
    page.get_by_role("link", name="Version 2", exact=True).click()
    page.get_by_text("static int8, minmax is 1.7 × as fast").wait_for()
    page.get_by_text("Its settings are not in force here: the").wait_for()
    page.get_by_text("It was put into the repository as it is").wait_for()
    page.get_by_text("Everything, with what was found out by itself").click()
    page.get_by_text('"max_batch_size": 64').wait_for()


def test_search_and_filters_find_models(console: Console) -> None:
    page = console.open()
    total = page.locator(".models-total")
    page.get_by_label("Search models").fill("DIG")
    total.get_by_text("1 of").wait_for()
    page.get_by_label("Search models").fill("")
    page.get_by_label("State").select_option("failed")
    total.get_by_text("1 of").wait_for()
    assert page.get_by_role("rowheader").first.inner_text().startswith("broken")
    page.get_by_label("Search models").fill("no such model")
    page.get_by_text("No model fits.").wait_for()


def test_a_model_that_is_not_there_says_so(console: Console) -> None:
    page = console.model("nosuch")
    page.get_by_text("The repository has no model of this name.").wait_for()
    page.goto(f"{console.base}/#/nonsense/page")
    page.get_by_role("heading", name="No such page").wait_for()


def test_the_theme_follows_the_system_and_is_remembered(opened: Opener, served: RunningServer) -> None:
    console = opened(served, scheme="dark")
    page = console.open()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Theme: as the system").click()
    light = page.evaluate(background)
    assert light != dark
    console.open("#/try")
    page.reload()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(background) == dark
