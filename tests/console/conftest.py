"""A browser for all tests of the console, and a server with models of every kind of input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.console.browsing import ROOT, Console, browse, find_chromium, why_not
from tests.support import graphs
from tests.support.optimized import write_optimization
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MARKUP = "<img src=x onerror=alert(1)>\"'& %41 \u202eabc"
"""A model's name that means something to HTML, to addresses, to shells and to the direction of writing."""

LONG = "long-" + "x" * 195


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, or a skip that says what is missing."""
    reason = why_not()
    if reason:
        pytest.skip(f"THE CONSOLE WAS NOT TESTED: {reason}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_chromium())
        yield opened
        opened.close()


def fill(root: Path) -> Path:
    """The shipped models, one for each kind of input, one that is broken, and names nobody should choose."""
    shutil.copytree(ROOT / "model_repo", root, ignore=shutil.ignore_patterns("*.py", "*.md"))
    write_optimization(root / "digits" / "2")
    proof = {"passed": True, "cases": 4, "comparisons": 8, "max_absolute": 0.0, "outputs": [{"name": "<b>out</b>"}]}
    record = {"schema": "tensorquay.provenance/1", "source": {"shown": "a model made for this test"}, "proof": proof}
    (root / "digits" / "1" / "provenance.json").write_text(json.dumps(record))
    (root / "digits" / "1" / "report.html").write_text("<h1>The report</h1><script>alert(1)</script>")
    repo = Repo(root)
    repo.model("broken", {1: graphs.scale(2.0), 2: b"this is no ONNX model"})
    repo.model(MARKUP, {1: graphs.scale(3.0)})
    repo.model(LONG, {1: graphs.scale(3.0)})
    repo.model("mixed", {1: graphs.mixed()})
    repo.model("half", {1: graphs.identity("FP16", ("batch", 8))})
    repo.model("flags", {1: graphs.identity("BOOL", ("batch", 4))})
    repo.model("big_ids", {1: graphs.identity("INT64", ("batch", 3))})
    repo.model("photo", {1: graphs.identity("FP32", ("batch", 2, 3, 4))})
    repo.model("bytes_photo", {1: graphs.identity("UINT8", ("batch", 6, 5, 3))})
    repo.model("expand", {1: graphs.expand()})
    repo.model("many", {1: graphs.identity("FP32", ("batch", 5000))})
    return root


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `fill`."""
    return fill(tmp_path_factory.mktemp("console") / "models")


FLAGS = ("--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false")


@pytest.fixture(scope="session")
def served(repository: Path) -> Iterator[RunningServer]:
    """One server for the tests that change nothing in it."""
    running = start([repository], *FLAGS)
    yield running
    assert running.stop() == 0, running.told()


Opener = Callable[..., Console]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Opens pages of a server: `opened(server, size=NARROW, scheme="dark")`; they close with the test."""
    managers: list[AbstractContextManager[Console]] = []

    def begin(server: RunningServer, **options: Any) -> Console:
        manager = browse(browser, server.url, **options)
        console = manager.__enter__()
        managers.append(manager)
        return console

    yield begin
    problems = []
    for manager in managers:
        try:
            manager.__exit__(None, None, None)
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


@pytest.fixture
def console(opened: Opener, served: RunningServer) -> Console:
    """A wide page of the server for everybody."""
    return opened(served)
