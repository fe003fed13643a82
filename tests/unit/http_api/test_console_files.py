"""The console's files as they are shipped: complete, short, and with no way for data to become markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "server" / "tensorquay" / "http_api" / "console"
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]

LONGEST = 400

NAMESPACE = "http://www.w3.org/2000/svg"

FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\b|new Function|javascript:"
    r"|setAttribute\(\"(?:style|on)|\bcookie\b|sessionStorage|indexedDB|XMLHttpRequest|WebSocket"
)


def test_there_is_a_page() -> None:
    assert (FOLDER / "index.html").is_file()
    assert len(SCRIPTS) > 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_plain_short_and_fetches_nothing_from_elsewhere(path: Path) -> None:
    assert re.fullmatch(r"[a-z][a-z-]*\.(?:html|css|js|svg)", path.name), "the server serves files of one folder"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST
    elsewhere = [each for each in re.findall(r"https?://\w[\w.:/-]*", text) if each != NAMESPACE]
    assert not elsewhere
    assert "@import" not in text
    assert path.suffix != ".css" or "url(" not in text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_owns_and_makes_no_markup_of_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// ")
    found = FORBIDDEN.search(text)
    assert not found, found
    for name in re.findall(r"from \"\./([^\"]+)\"", text):
        assert (FOLDER / name).is_file(), name
    assert not re.findall(r"from \"(?!\./)", text), "modules come from the same folder"


def test_the_page_has_nothing_inline_and_all_it_names() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page)
    named = re.findall(r"(?:src|href)=\"console/([^\"]+)\"", page)
    assert named
    for name in named:
        assert (FOLDER / name).is_file(), name


def test_every_script_is_used() -> None:
    pages = [path.read_text(encoding="utf-8") for path in FILES if path.suffix in {".js", ".html"}]
    for path in SCRIPTS:
        assert any(path.name in text for text in pages), f"nothing asks for {path.name}"
