"""A page of the console in a real browser, and a guard on everything it should never do.

Console errors, broken scripts, violations of the content security policy and requests to other hosts fail the test that
saw them, unless it said beforehand that it provokes refused requests.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / ".console-screenshots"

WIDE = (1400, 900)
NARROW = (360, 740)


def find_chromium() -> str | None:
    """A system's Chromium, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def why_not() -> str:
    """Why no browser can be driven here; empty: one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the package playwright is not installed (extra 'browser')"
    return "" if find_chromium() else "there is no chromium; on Debian: apt-get install chromium"


def told_first(base: str) -> bytes:
    """What the live feed of a server says until its first figures: for a page whose feed then ends."""
    told = b""
    with httpx.stream("GET", f"{base}/v2/live") as stream:
        for piece in stream.iter_bytes():
            told += piece
            if told.count(b"event: figures") and told.endswith(b"\n\n"):
                break
    return told


@dataclass
class Console:
    """One open page. `refusals`: refused requests are part of the test, so what the browser logs of them is too."""

    page: Page
    base: str
    refusals: bool = False
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", self._asked)
        # Told by the browser itself; a listener of our own, for not every violation is logged.
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => "
            "console.error('violation: ' + event.violatedDirective + ' ' + event.blockedURI));"
        )

    def _heard(self, message: Any) -> None:
        text = message.text
        if message.type in {"error", "warning"} and not (self.refusals and text.startswith("Failed to load resource")):
            self.wrong.append(f"{message.type}: {text}")

    def _asked(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.netloc != urlsplit(self.base).netloc:
            self.wrong.append(f"asked {request.url}")

    def check(self) -> None:
        """Fail if the page did anything that it never should."""
        assert not self.wrong, "\n".join(self.wrong)

    def open(self, route: str = "#/") -> Page:
        """Go to a page of the console and wait until it is live."""
        self.page.goto(f"{self.base}/{route}")
        self.page.locator("#link-state[data-kind=live]").wait_for()
        return self.page

    def model(self, name: str, version: str = "") -> Page:
        """A model's page."""
        return self.open("/".join(["#", "model", *(quote(part, safe="") for part in (name, version) if part)]))

    def try_(self, name: str, version: str = "") -> Page:
        """A model's form."""
        page = self.open("/".join(["#", "try", *(quote(part, safe="") for part in (name, version) if part)]))
        page.get_by_role("heading", name="Inputs").wait_for()
        return page

    def send(self) -> None:
        """Send the form and wait for what comes of it."""
        self.page.get_by_role("button", name="Send", exact=True).click()
        self.page.locator(".result :is(.timing, .notice)").first.wait_for()

    def values(self, output: str) -> Any:
        """The values of an output of the answer, as its button copies them."""
        self.page.get_by_role("region", name=output, exact=True).get_by_role("button", name="Copy values").click()
        return json.loads(self.copied())

    def code(self, kind: str) -> str:
        """What the button of the code panel copies in language `kind` (curl, triton, ours)."""
        self.page.locator(f"[data-code={kind}]").click()
        self.page.locator(".code-head").get_by_role("button", name="Copy").click()
        return self.copied()

    def copied(self) -> str:
        """What is on the clipboard."""
        return self.page.evaluate("navigator.clipboard.readText()")

    def run(self, script: str, argument: Any = None) -> Any:
        """The value of a script in the page; `load(name)` in it is one of the console's modules."""
        wrapped = (
            "(argument) => { const load = (name) => import('/console/' + name); return (" + script + ")(argument); }"
        )
        return self.page.evaluate(wrapped, argument)

    def screenshot(self, name: str, *, whole: bool = True) -> Path:
        """The page, or what of it is on the screen, as a picture among the artefacts."""
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=whole)
        return path


@contextlib.contextmanager
def browse(
    browser: Browser,
    base: str,
    *,
    size: tuple[int, int] = WIDE,
    scheme: str = "light",
    refusals: bool = False,
) -> Iterator[Console]:
    """A page of its own, with a clipboard; what it did wrong fails the test at its end."""
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        permissions=["clipboard-read", "clipboard-write"],
        accept_downloads=True,
    )
    try:
        console = Console(context.new_page(), base, refusals)
        yield console
        console.check()
    finally:
        context.close()
