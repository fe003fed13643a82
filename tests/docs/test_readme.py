"""The README is read in three minutes. That what it shows works is tested with every other page's (test_pages.py)."""

from __future__ import annotations

import re

from tests.docs.markdown import prose


def test_three_minutes_are_enough_to_read_it() -> None:
    assert len(re.findall(r"\w+", prose("README.md"))) < 3 * 200
