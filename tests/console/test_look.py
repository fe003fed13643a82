"""How it looks and can be used: contrast, a phone's width, the keyboard, a thousand models; pictures of all pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.console.asking import Asking, digits, wrong
from tests.console.browsing import NARROW, ROOT, WIDE, Console, told_first
from tests.console.conftest import Opener
from tests.support import graphs
from tests.support.repo import Repo
from tests.support.serving import RunningServer

pytestmark = pytest.mark.browser

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


def _overview(console: Console) -> None:
    page = console.open()
    page.wait_for_function(
        "() => parseFloat(document.querySelector('[data-tile=requests] .tile-number').textContent) > 1"
    )


def _model(console: Console) -> None:
    page = console.model("digits", "2")
    page.get_by_text("Judged on").or_(page.get_by_text("Compared with")).first.wait_for()
    page.wait_for_function("() => document.querySelectorAll('.chart-plot path[d]:not([d=\"\"])').length >= 8")


def _answer(console: Console) -> None:
    page = console.try_("digits")
    page.locator("input[type=file]").set_input_files(ROOT / "docs" / "images" / "digit.png")
    page.get_by_text("80 × 80 pixels became").wait_for()
    console.send()
    page.locator(".bars").first.wait_for()


def _refusal(console: Console) -> None:
    page = console.try_("simple")
    page.get_by_label("INPUT1, element 16").fill("7")
    page.get_by_label("Size of dimension 1 of INPUT0").fill("3")
    page.get_by_label("Size of dimension 1 of INPUT0").press("Tab")
    console.send()
    page.locator(".result .notice").wait_for()


def _question(console: Console) -> None:
    page = console.model("digits")
    page.get_by_role("button", name="Activate version 1").click()
    page.get_by_role("dialog").wait_for()


def _lost(console: Console) -> None:
    """The server tells its first figures, and then nobody hears of it any more."""
    page = console.page
    told = told_first(console.base)
    page.route("**/v2/live", lambda route: route.abort())
    page.route("**/v2/live", lambda route: route.fulfill(body=told, content_type="text/event-stream"), times=1)
    page.goto(console.base)
    page.get_by_text("Connection lost.").wait_for()
    page.get_by_text("What is shown is").wait_for()


PAGES: dict[str, Callable[[Console], None]] = {
    "overview": _overview, "model": _model, "answer": _answer, "refusal": _refusal, "question": _question,
    "lost": _lost,
}  # fmt: skip


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read(
    opened: Opener, served: RunningServer, name: str, scheme: str, size: tuple[int, int]
) -> None:
    """Enough contrast everywhere, nothing wider than the screen; a picture of it is kept."""
    console = opened(served, size=size, scheme=scheme, refusals=True)
    with Asking(served, digits(), digits(4), wrong()):
        PAGES[name](console)
    # A dialog dims what is on the screen, not the whole page.
    console.screenshot(f"{name}-{scheme}-{'wide' if size == WIDE else 'narrow'}", whole=name != "question")
    low = console.page.evaluate(CONTRAST)
    assert not low, low
    assert console.page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_every_control_has_a_name_and_a_visible_focus(console: Console) -> None:
    for route in ("#/", "#/model/digits", "#/try/digits", "#/try/flags", "#/try/simple"):
        page = console.open(route)
        page.get_by_role("heading", name="Inputs").or_(page.get_by_role("heading", name="Models")).first.wait_for()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, a[href], input, select, textarea')]
                .filter((each) => each.checkVisibility())
                .filter((each) => !(each.textContent.trim() || each.getAttribute('aria-label') || each.labels?.length))
                .map((each) => each.outerHTML)"""
        )
        assert not nameless
        page.keyboard.press("Tab")
        seen = set()
        for _ in range(60):
            state = page.evaluate(
                """() => {
                    const at = document.activeElement;
                    // A file's field is hidden: its label shows the focus.
                    const shown = at.type === 'file' ? at.nextElementSibling : at;
                    const style = getComputedStyle(shown);
                    const tag = at.outerHTML.slice(0, 120);
                    return { body: at === document.body, tag, outline: style.outlineStyle, width: style.outlineWidth };
                }"""
            )
            if state["body"]:
                break
            assert state["outline"] == "solid", state
            assert float(state["width"].removesuffix("px")) >= 2, state
            seen.add(state["tag"])
            page.keyboard.press("Tab")
        assert len(seen) >= 6


def test_a_prediction_with_the_keyboard_alone(console: Console) -> None:
    page = console.open()
    press = page.keyboard.press

    def tab_to(text: str, limit: int = 80) -> None:
        for _ in range(limit):
            press("Tab")
            now = page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
            )
            if now == text:
                return
        raise AssertionError(f"the keyboard does not get to “{text}”")

    page.get_by_role("link", name="Try digits").wait_for()
    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to("Try simple")
    press("Enter")
    page.get_by_role("heading", name="Inputs").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    tab_to("INPUT0, element 1")
    press("Control+a")
    page.keyboard.type("41")
    tab_to("INPUT1, element 1")
    press("Control+a")
    page.keyboard.type("1")
    press("Control+Enter")
    page.locator(".timing").wait_for()
    assert console.values("OUTPUT0")[0][0] == 42
    page.locator("[data-code=curl]").focus()
    press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text() == "Python, tritonclient"


def test_motion_is_spared_who_asks_for_it(console: Console) -> None:
    page = console.page
    page.emulate_media(reduced_motion="reduce")
    console.open()
    moving = page.evaluate("document.getAnimations().length")
    assert moving == 0


def test_a_thousand_models_are_fifty_rows(opened: Opener, serve: Callable[..., RunningServer], tmp_path: Path) -> None:
    repo = Repo(tmp_path / "models")
    content = graphs.scale(2.0).SerializeToString()
    for number in range(1000):
        folder = repo.root / f"model_{number:04}" / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
    server = serve([repo.root], "--model-control-mode=explicit", "--load-model=model_0007")
    console = opened(server)
    page = console.open()
    page.get_by_text("1,000 models", exact=True).wait_for()
    assert page.locator(".models-body .models-group").count() == 50
    page.get_by_role("button", name="Next").click()
    page.get_by_role("rowheader", name="model_0050").wait_for()
    page.get_by_text("Page 2 of 20").wait_for()
    # Seconds that bring nothing new for the rows change nothing in them.
    changes = page.evaluate(
        """async () => {
            let changes = 0;
            const watch = new MutationObserver((records) => { changes += records.length; });
            const everything = { subtree: true, childList: true, characterData: true, attributes: true };
            watch.observe(document.querySelector('.models-body'), everything);
            const tiles = document.querySelector('.tiles');
            for (let tick = 0; tick < 2; tick += 1) {
                const was = tiles.dataset.at;
                await new Promise((done) => {
                    const ticks = new MutationObserver(() => {
                        if (tiles.dataset.at === was) return;
                        ticks.disconnect();
                        done();
                    });
                    ticks.observe(tiles, { attributes: true });
                });
            }
            watch.disconnect();
            return changes;
        }"""
    )
    assert changes == 0
    page.get_by_label("Search models").fill("0777")
    page.get_by_text("1 of 1,000 models").wait_for()
    page.get_by_role("rowheader").get_by_role("link", name="model_0777", exact=True).click()
    page.get_by_role("button", name="Load", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Load", exact=True).click()
    page.locator(".version .badge[data-kind=ready]").wait_for()
