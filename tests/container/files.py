"""Reads Dockerfiles and .dockerignore as far as their tests need; what it does not know, it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCKERFILES = tuple(sorted((ROOT / "docker").glob("Dockerfile*")))

_KNOWN = {
    *("FROM", "ARG", "ENV", "LABEL", "RUN", "COPY", "WORKDIR"),
    *("USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}
"""No ADD, VOLUME, SHELL or ONBUILD in ours."""


@dataclass
class Stage:
    """One FROM: its base with arguments filled in, its name, and its instructions in order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """What stands behind each `instruction`."""
        return [rest for word, rest in self.steps if word == instruction]

    def last(self, instruction: str) -> str:
        """What stands behind the last one, which is the one that counts."""
        return self.all(instruction)[-1]

    def command(self, instruction: str) -> list[str]:
        """The exec form of ENTRYPOINT, CMD or HEALTHCHECK; a shell form fails."""
        found: list[str] = json.loads(self.last(instruction).partition("CMD ")[2] or self.last(instruction))
        return found

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(re.findall(r"(\w+)=(\"[^\"]*\"|\S*)", " ".join(self.all("ENV"))))


@dataclass
class Dockerfile:
    """A Dockerfile: the defaults of its arguments, and its stages; the last is what ships."""

    path: Path
    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def ships(self) -> Stage:
        """The last stage."""
        return self.stages[-1]


def read(path: Path) -> Dockerfile:
    """The file at `path`. Raises: AssertionError for an instruction that ours do not use."""
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.lstrip().startswith("#"))
    found = Dockerfile(path, {}, [])
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        assert word in _KNOWN, f"{path.name}: {line}"
        assert "<<" not in rest, f"{path.name}: older builders know no here-documents: {line}"
        if word == "ARG":
            name, _, default = rest.partition("=")
            found.arguments[name] = default.strip('"')
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            for argument, default in found.arguments.items():
                base = base.replace(f"${{{argument}}}", default)
            found.stages.append(Stage(base, name))
        elif found.stages:
            found.stages[-1].steps.append((word, rest))
    return found


class Ignored:
    """What .dockerignore keeps out of a build: the last pattern that fits a path or a folder above it decides."""

    def __init__(self, text: str) -> None:
        self._rules = [
            (line.removeprefix("!"), line.startswith("!"))
            for line in map(str.strip, text.splitlines())
            if line and not line.startswith("#")
        ]

    def __call__(self, path: str) -> bool:
        kept_out = False
        for pattern, lets_in in self._rules:
            if any(_fits(str(above), pattern) for above in (PurePosixPath(path), *PurePosixPath(path).parents)):
                kept_out = not lets_in
        return kept_out


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path, pattern.removeprefix("**/")) or fnmatchcase(path, f"*/{pattern.removeprefix('**/')}")
    # A single star stops at a slash.
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
