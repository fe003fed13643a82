"""Which program this is, and in what Python it runs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from tensorquay import __version__
from tensorquay.commands.doctor.findings import Finding, note, ok, problem, warning

LEAST_PYTHON = (3, 11)


def examine(
    *,
    metadata_version: str | None,
    system: str = platform.system(),
    machine: str = platform.machine(),
    python: tuple[int, ...] = tuple(sys.version_info[:3]),
    bits: int = sys.maxsize.bit_length() + 1,
    folder: Path = Path(__file__).parents[2],
) -> Iterator[Finding]:
    """Findings about the program.

    Args:
        metadata_version: of the installed distribution; None when there is none.
        folder: where the program's files are.
    """
    yield ok("program.version", f"tensorquay {__version__} in {folder}")
    if metadata_version is not None and metadata_version != __version__:
        yield warning(
            "program.installation",
            f"what is installed calls itself {metadata_version}, what runs is {__version__}: two installations are "
            "mixed",
            "pip uninstall -y tensorquay until it says that there is none, then install again",
        )
    shown = ".".join(map(str, python))
    if python < LEAST_PYTHON:
        yield problem("program.python", f"Python {shown} is too old", "install Python 3.11 or newer")
    else:
        yield ok("program.python", f"Python {shown}, {sys.executable}")
    if bits < 64:
        yield problem(
            "program.bits",
            "this Python is a 32-bit program: ONNX Runtime has no build for it",
            "install a 64-bit Python",
        )
    if system != "Linux":
        yield note(
            "program.system",
            f"{system} {machine}: the server is made for Linux; front ends, limits of containers and shared memory "
            "are not there",
        )
    else:
        yield ok("program.system", f"{system} {machine}, {platform.release()}")
