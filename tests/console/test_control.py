"""Loading, unloading and activating from the page: said before, done once, shown as it went; absent where it is off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.console.asking import Asking, digits
from tests.console.browsing import ROOT
from tests.console.conftest import FLAGS, MARKUP, Opener, fill
from tests.support import graphs
from tests.support.repo import Repo
from tests.support.serving import RunningServer

pytestmark = pytest.mark.browser

Serve = Callable[..., RunningServer]


@pytest.fixture
def own(serve: Serve, tmp_path: Path) -> RunningServer:
    """A server that a test may change."""
    return serve([fill(tmp_path / "models")], *FLAGS)


def test_a_version_is_activated_and_the_other_goes(opened: Opener, own: RunningServer) -> None:
    console = opened(own)
    page = console.model("digits")
    with Asking(own, digits()):
        page.get_by_role("button", name="Activate version 1").click()
        dialog = page.get_by_role("dialog")
        assert "Version 1 serves already" in dialog.inner_text()
        assert "version 2 is drained and unloaded" in dialog.inner_text()
        dialog.get_by_role("button", name="Activate", exact=True).click()
        dialog.wait_for(state="detached")
        page.locator(".version").filter(has_text="Version 2").locator(".badge[data-kind=off]").wait_for()
    # What the configuration says besides is kept: labels, and the range of pixels.
    console.try_("digits")
    assert page.get_by_label("as labels, best").is_checked()
    assert page.get_by_label("Pixels become").locator("option").first.inner_text() == "0 to 16 (the model's)"
    console.send()
    page.locator(".timing").get_by_text("1", exact=True).wait_for()
    console.model("digits")
    page.get_by_role("button", name="Activate version 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Activate", exact=True).click()
    page.locator(".version").filter(has_text="Version 1").locator(".badge[data-kind=off]").wait_for()
    page.locator(".version").filter(has_text="Version 2").locator(".badge[data-kind=ready]").wait_for()


def test_an_older_version_is_brought_back_and_then_what_is_configured(
    opened: Opener, serve: Serve, tmp_path: Path
) -> None:
    repo = Repo(tmp_path / "models")
    repo.model("scale", {number: graphs.scale(float(number)) for number in (1, 2, 3)})
    console = opened(serve([repo.root], *FLAGS))
    page = console.model("scale")

    def badge(number: int, kind: str) -> Any:
        return page.locator(".version").filter(has_text=f"Version {number}").locator(f".badge[data-kind={kind}]")

    policy = page.locator(".version-policy")
    policy.get_by_text("latest { num_versions: 1 }").wait_for()
    assert policy.get_by_role("button", name="As configured").count() == 0
    page.get_by_label("Never loaded:").select_option("1")
    page.get_by_role("button", name="Activate it").click()
    page.get_by_role("dialog").get_by_role("button", name="Activate", exact=True).click()
    badge(1, "ready").wait_for()
    badge(3, "off").wait_for()
    policy.get_by_text("specific { versions: [1] }, by a load request").wait_for()
    assert page.get_by_label("Never loaded:").locator("option").all_inner_texts() == ["2"]
    policy.get_by_role("button", name="As configured").click()
    page.get_by_role("dialog").get_by_role("button", name="As configured").click()
    badge(3, "ready").wait_for()
    badge(1, "off").wait_for()
    policy.get_by_text("latest { num_versions: 1 }").wait_for()
    # The button that was pressed is gone: the keyboard goes on at the page's heading, not at the document's beginning.
    page.wait_for_function("document.activeElement.tagName === 'H1'")


def test_a_model_is_unloaded_and_loaded(opened: Opener, own: RunningServer) -> None:
    console = opened(own)
    page = console.model(MARKUP)
    page.get_by_role("button", name="Unload").click()
    dialog = page.get_by_role("dialog")
    assert "Nobody asked it in the last 10 seconds." in dialog.inner_text()
    dialog.get_by_role("button", name="Unload").click()
    page.locator(".version .badge[data-kind=off]").wait_for()
    assert page.locator("#said").inner_text()
    assert page.get_by_role("button", name="Unload").count() == 0
    page.get_by_role("button", name="Load", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Load", exact=True).click()
    page.locator(".version .badge[data-kind=ready]").wait_for()


def test_a_load_that_fails_says_why_and_leaves_what_serves(opened: Opener, own: RunningServer) -> None:
    console = opened(own, refusals=True)
    page = console.model("broken")
    page.get_by_role("button", name="Activate version 2").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Activate", exact=True).click()
    dialog.locator(".server-said").get_by_text("is no ONNX model").wait_for()
    assert "HTTP 400" in dialog.inner_text()
    dialog.get_by_role("button", name="Close").click()
    page.locator(".version").filter(has_text="Version 1").locator(".badge[data-kind=ready]").wait_for()
    assert page.locator(".version").filter(has_text="Version 2").get_by_text("is no ONNX model").is_visible()


def test_escape_changes_nothing(opened: Opener, own: RunningServer) -> None:
    console = opened(own)
    page = console.model("digits")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    page.get_by_role("button", name="Unload").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Unload"
    assert not asked


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_what_may_not_be_done_is_not_offered(opened: Opener, serve: Serve, mode: str) -> None:
    server = serve([ROOT / "model_repo"], f"--model-control-mode={mode}")
    console = opened(server)
    page = console.model("digits")
    page.locator(".version").first.wait_for()
    for name in ("Load", "Reload", "Unload", "Activate version 1"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0
    page.get_by_role("link", name="Try it").first.wait_for()
    page.locator(".version-policy").get_by_text("start it with --model-control-mode=explicit").wait_for()
    console.open()
    page.get_by_text(f"{mode}: load and unload are off").wait_for()


def test_a_new_version_appears_by_itself(opened: Opener, serve: Serve, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "models")
    repo.model("scale", {1: graphs.scale(2.0)})
    server = serve([repo.root], "--model-control-mode=poll", "--repository-poll-secs=1")
    console = opened(server)
    page = console.model("scale")
    page.locator(".version .badge[data-kind=ready]").wait_for()
    repo.version("scale", 2, graphs.scale(3.0))
    page.locator(".version").filter(has_text="Version 2").locator(".badge[data-kind=ready]").wait_for()
    repo.version("scale", 3, b"this is no ONNX model")
    page.locator(".version").filter(has_text="Version 3").get_by_text("is no ONNX model").wait_for()
    console.open()
    page.get_by_label("Needs attention").get_by_text("scale, version 3, failed to load. Version 2 serves.").wait_for()
