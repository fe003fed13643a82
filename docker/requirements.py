"""Prints what the named extras of pyproject.toml need, without Tensorquay itself: images install that first.

So the layer with the dependencies depends on pyproject.toml and the pins only; a change of code leaves it as it is.
Run by the Dockerfiles in the repository's root: python3 docker/requirements.py cpu
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(project: Path, extras: list[str]) -> list[str]:
    """The dependencies and those of `extras`, as pip reads them; an extra that is not there ends the program."""
    table = tomllib.loads(project.read_text())["project"]
    optional = table["optional-dependencies"]
    unknown = sorted(set(extras) - set(optional))
    if unknown:
        sys.exit(f"{project} has no extra {', '.join(unknown)}; it has {', '.join(sorted(optional))}")
    return [*table["dependencies"], *(each for extra in extras for each in optional[extra])]


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])))
