"""docs/quickstart.md: every way in is there, short, and ends with what one sees. Its commands: test_pages.py."""

from __future__ import annotations

import re

from tests.docs.markdown import ROOT, SHELL, prose, text_of
from tests.docs.tables import tables

PAGE = "docs/quickstart.md"

WAYS_IN = ["pip", "Container", "Kubernetes", "Drop a model in a folder", "Import a trained model", "Optimise"]


def sections() -> dict[str, str]:
    """Heading → text, in order."""
    parts = re.split(r"^## (.*)\n", text_of(PAGE), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_way_in_has_a_section_with_commands_that_ends_with_what_one_sees() -> None:
    found = sections()
    assert list(found) == WAYS_IN
    for name, text in found.items():
        fences = re.findall(r"^```(\w+)\n", text, re.MULTILINE)
        assert SHELL & set(fences), name
        assert fences[-1] in {"text", "json"} or "You see" in text.rpartition("```")[2], name


def test_every_section_is_short_and_says_where_there_is_more() -> None:
    for name, text in sections().items():
        words = re.findall(r"\w+", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        assert len(words) < 140, f"{name}: {len(words)} words"
        assert re.search(r"\]\((?!quickstart)[\w-]+\.md", text), f"{name} links to no page"


def test_the_page_begins_with_where_each_reader_goes() -> None:
    beginning = prose(PAGE).partition("\n## ")[0]
    linked = set(re.findall(r"\]\(([^)]+)\)", beginning))
    pages = {path.name for path in (ROOT / "docs").glob("migrate-from-*.md")}
    assert pages <= linked
    assert len([link for link in linked if link.startswith("#")]) == len(WAYS_IN)


def test_each_migration_page_says_first_who_should_not_come() -> None:
    for path in sorted((ROOT / "docs").glob("migrate-from-*.md")):
        page = f"docs/{path.name}"
        beginning = prose(page).partition("\n## ")[0]
        assert "**Stay with " in beginning, page
        assert "**Switch**" in beginning, page
        assert tables(page, "Metrics, traces, logs" if "triton" in page else "Metrics")
        assert re.search(r"\*\*[Bb]ack\*\*", prose(page)), page
