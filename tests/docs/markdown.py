"""The project's Markdown as its reader sees it: pages, and the fenced blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

SHELL = frozenset({"sh", "bash", "console", "shell"})

MARKS = (
    "# needs a cluster",
    "# needs a GPU",
    "# needs the network",
    "# needs a quiet machine",
)
"""First lines of blocks that no test can run; the reader sees them. Nothing else excuses a block."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+) *(?P<language>[\w+-]*)[^`\n]*$")
_LEFT_OUT = frozenset({"node_modules", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line` is its fence's, from 1; `shows`: it follows the block before it at once."""

    page: str
    line: int
    language: str
    text: str
    shows: bool

    @property
    def mark(self) -> str:
        """The mark it begins with, or nothing."""
        first = self.text.partition("\n")[0]
        return first if first in MARKS else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every Markdown file of the project, by its path from the root; not what tools and environments bring."""
    return [path.relative_to(ROOT).as_posix() for path in _walk(ROOT)]


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _LEFT_OUT or path.is_symlink():
            continue
        if path.is_dir():
            # An environment of somebody's own is no document of ours.
            if not (path / "pyvenv.cfg").exists():
                yield from _walk(path)
        elif path.suffix == ".md":
            yield path


def text_of(page: str) -> str:
    """The page as it stands."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    """Its fenced blocks, in order, without the indentation of their fences."""
    return list(read_blocks(page, text_of(page)))


def block_with(page: str, part: str) -> Block:
    """The one block of `page` that has `part` in it and can be run."""
    found = [block for block in blocks_of(page) if part in block.text and not block.mark]
    assert len(found) == 1, f"{page} has {len(found)} blocks with {part!r}"
    return found[0]


def read_blocks(page: str, text: str) -> Iterator[Block]:
    """The blocks of `text`; fails where a fence is never closed."""
    lines = iter(enumerate(text.splitlines(), start=1))
    blank_since_block = False
    for number, line in lines:
        opening = _FENCE.match(line)
        if opening is None:
            blank_since_block = blank_since_block and not line.strip()
            continue
        body = []
        indent, fence = len(opening["indent"]), opening["fence"]
        for _, inner in lines:
            if inner.strip() == fence:
                break
            body.append(inner[indent:] if inner[:indent].isspace() else inner)
        else:
            raise AssertionError(f"{page}:{number}: this fence is never closed")
        content = "".join(f"{each}\n" for each in body)
        yield Block(page, number, opening["language"], content, shows=blank_since_block)
        blank_since_block = True


def commands_in(block: Block) -> str:
    """The script in a shell block: all of it, or in a console's the lines behind the prompt."""
    if block.language != "console":
        return block.text
    typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block.text, re.MULTILINE)
    return "".join(f"{each}\n" for each in typed)


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *(```+|~~~+).*?^ *\1 *$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """What links into the page may end in: its headings, as GitHub names them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found
