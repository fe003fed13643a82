"""Write the pages under docs/reference: what the code itself says about its commands, settings and metrics.

`make docs` runs it:  python -m tests.tools.references
`--check` writes nothing and says which pages are stale. A page is the text that one function returns; the same code
gives the same text on every machine and terminal. tests/docs/test_references.py refuses a stale page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.tools.command_reference import command_reference
from tests.tools.metrics_reference import metrics_reference
from tests.tools.model_reference import model_reference
from tests.tools.settings_reference import settings_reference

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"

PAGES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("cli.md", command_reference),
    ("settings.md", settings_reference),
    ("model-config.md", model_reference),
    ("metrics.md", metrics_reference),
)
"""File under docs/reference → the function that returns its whole text."""


def stale(name: str, text: str) -> bool:
    """Whether the checked-in page `name` says something else than `text`."""
    page = FOLDER / name
    return not page.exists() or page.read_text(encoding="utf-8") != text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with `--check` only compare. Exit code 1: something is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check: bool = parser.parse_args(arguments).check
    outdated = [(name, text) for name, text in ((name, make()) for name, make in PAGES) if stale(name, text)]
    for name, text in outdated:
        if check:
            print(f"stale: docs/reference/{name}; run make docs")
        else:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(text, encoding="utf-8")
            print(f"wrote docs/reference/{name}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
