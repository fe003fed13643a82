"""Every command and Python example in the documents is run, a page's in their order, and prints what the page shows.

`pages.py` says who runs what; here is what the ordinary environment can, what takes long, and what needs a framework.
"""

from __future__ import annotations

import json
import re

import pytest
from tests.docs.desk import Desk
from tests.docs.markdown import SHELL, Block, blocks_of, pages
from tests.docs.pages import FRAMEWORKS_LONG, PREPARED, PRINTS, RUNNABLE, Runner, runner

SHOWN = frozenset({"", "text", "json"})
"""Languages of blocks that, right below a command, are what it prints."""

PROGRAM = re.compile(r"^\s*(curl|kubectl|make|openssl|promtool|unzip)\b", re.MULTILINE)
"""What a machine may lack. That our own commands are there is not in question."""

LIMITS_S = {Runner.TEST: 100, Runner.LONG: 1200, Runner.FRAMEWORKS: 600}


def _pages_of(who: Runner) -> list[str]:
    return [page for page in pages() if any(runner(block) is who for block in _runnable(page))]


def _runnable(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in RUNNABLE]


def _read(page: str, who: Runner, desk: Desk) -> None:
    """Run the blocks of `page` that are for `who`, and compare what is shown below them."""
    PREPARED.get((page, who), lambda _: None)(desk)
    blocks = blocks_of(page)
    for block in blocks:
        for program in PROGRAM.findall(block.text) if block.language in SHELL and runner(block) is who else ():
            if desk.lacks(program):
                pytest.skip(f"{program} is not installed: the commands of {page} were NOT tried")
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language not in RUNNABLE or runner(block) is not who:
            continue
        shows = following is not None and following.shows and following.language in SHOWN
        printed = desk.run(block, timeout_s=LIMITS_S[who], shown=shows)
        for part, expected in PRINTS.get(page, {}).items():
            assert part not in block.text or expected in printed, f"{block} prints {printed}, not {expected}"
        if following is not None and shows:
            _compare(following, printed, desk)


def _last_json(printed: str) -> object:
    """The last object in what was printed, None without one; text may stand around it."""
    found, place, decoder = None, printed.find("{"), json.JSONDecoder()
    while place >= 0:
        try:
            found, place = decoder.raw_decode(printed, place)
        except json.JSONDecodeError:
            place += 1
        place = printed.find("{", place)
    return found


def _compare(shown: Block, printed: str, desk: Desk) -> None:
    if shown.language == "json":
        assert _last_json(printed) == json.loads(shown.text), f"{shown} shows another answer than {printed}"
        return
    said = [line.strip() for line in desk.as_told(printed + desk.complaints).splitlines()]
    for line in filter(str.strip, shown.text.splitlines()):
        # An ellipsis stands for anything; what differs from run to run is written with one.
        pattern = re.compile(".*".join(map(re.escape, line.strip().split("…"))))
        assert any(pattern.fullmatch(each) for each in said), f"{shown} shows {line!r}, printed was:\n{printed}"


# A page has many blocks; each has its own limit.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _pages_of(Runner.TEST))
def test_a_page_does_what_it_says(page: str, desk: Desk) -> None:
    _read(page, Runner.TEST, desk)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", _pages_of(Runner.LONG))
def test_what_takes_long(page: str, desk: Desk) -> None:
    _read(page, Runner.LONG, desk)


@pytest.mark.frameworks
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page in FRAMEWORKS_LONG else [])
        for page in _pages_of(Runner.FRAMEWORKS)
    ],
)
def test_what_needs_a_framework(page: str, desk: Desk) -> None:
    _read(page, Runner.FRAMEWORKS, desk)
