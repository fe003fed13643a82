"""What tests of pages share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.docs.desk import Desk

from tensorquay import cli

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A reader's desk, cleared when the test ends. Not below `tmp_path`: sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="desk-") as folder:
        reader = Desk(Path(folder))
        try:
            yield reader
        finally:
            reader.close()


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """`typed("check", folder)`: our command line, in this process; its exit code, and all it said."""

    def type_in(*arguments: object) -> tuple[int, str]:
        code = cli.main([str(each) for each in arguments])
        return code, "".join(capsys.readouterr())

    return type_in
