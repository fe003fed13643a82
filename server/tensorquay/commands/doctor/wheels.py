"""Are the installed packages those this server needs, in versions that fit, and do they import?

What is needed is asked from this distribution's own metadata, so nothing is listed twice. Packages are imported in a
process of its own, because a broken native library ends the interpreter that loads it.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorquay.backends.onnxruntime.runtime import installed_wheels
from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, listed, note, ok, problem, warning

DISTRIBUTION = "tensorquay"

_MODULES = {
    "grpcio": "grpc",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "protobuf": "google.protobuf",
    "onnxruntime-gpu": "onnxruntime",
}
"""What is imported, where it is not the distribution's name."""

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")

Version = Callable[[str], str | None]
"""The installed version of a distribution, None when there is none."""

Import = Callable[[Sequence[str]], Ended]
"""Imports modules elsewhere; see `probe.imports`."""


def installed_version(name: str) -> str | None:
    """See `Version`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def own_requirements() -> list[str] | None:
    """What this distribution's metadata says it needs; None when it is not installed as one."""
    try:
        return importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return None


def needed(requirements: Iterable[str], extra: str = "") -> dict[str, str]:
    """Distribution → allowed versions (">=2.0"), of what is needed here for `extra` alone, or without any.

    Raises: ImportError without the package that reads this.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - it may be what is missing

    found: dict[str, str] = {}
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        of_extra = marker is not None and "extra" in str(marker)
        if of_extra != bool(extra) or (marker is not None and not marker.evaluate({"extra": extra})):
            continue
        found[requirement.name] = str(requirement.specifier)
    return found


def fits(version: str, allowed: str) -> bool:
    """Whether `version` is one of `allowed`, which also takes pre-releases."""
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - as above
    from packaging.version import InvalidVersion  # noqa: PLC0415

    try:
        return SpecifierSet(allowed).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def examine(
    requirements: list[str] | None,
    *,
    version: Version = installed_version,
    runtimes: Callable[[], Sequence[str]] = installed_wheels,
    import_all: Import,
    folders: Sequence[Path] = (),
) -> Iterator[Finding]:
    """Findings about packages.

    Args:
        requirements: of `own_requirements`.
        folders: where packages are installed, for what an installer left there.
    """
    yield from _runtime(list(runtimes()), version)
    if requirements is None:
        yield note(
            "packages.metadata",
            "tensorquay runs without being installed, so what it needs is not known",
            "pip install . in the folder of its sources",
        )
        return
    try:
        wanted = needed(requirements)
        bounds = {
            name: needed(requirements, extra).get(name, "")
            for name, extra in zip(_RUNTIMES, ("cpu", "gpu"), strict=True)
        }
    except ImportError:
        yield problem(
            "packages.packaging", "the package 'packaging' is not installed", f"pip install --upgrade {DISTRIBUTION}"
        )
        return
    wanted |= {name: bound for name, bound in bounds.items() if version(name) is not None}
    yield from _versions(wanted, version)
    present = [name for name in wanted if version(name) is not None]
    yield from _imports(present, import_all)
    yield from _leftovers(folders)


def _runtime(wheels: list[str], version: Version) -> Iterator[Finding]:
    if not wheels:
        yield problem(
            "packages.runtime",
            "ONNX Runtime is not installed: no model can be run",
            "pip install 'tensorquay[cpu]', or 'tensorquay[gpu]' on a machine with NVIDIA GPUs (never both)",
        )
    elif len(wheels) > 1:
        yield problem(
            "packages.runtime",
            f"{' and '.join(wheels)} are both installed and overwrite each other's files",
            f"pip uninstall -y {' '.join(wheels)}; then pip install 'tensorquay[cpu]' or 'tensorquay[gpu]', not both",
        )
    else:
        yield ok("packages.runtime", f"one ONNX Runtime: {wheels[0]} {version(wheels[0])}")


def _versions(wanted: Mapping[str, str], version: Version) -> Iterator[Finding]:
    good = []
    for name, allowed in sorted(wanted.items()):
        have = version(name)
        if have is None:
            yield problem(
                f"packages.{name}",
                f"the package '{name}' ({name}{allowed}) is not installed",
                f"pip install '{name}{allowed}'",
            )
        elif not fits(have, allowed):
            yield problem(
                f"packages.{name}",
                f"the package '{name}' is {have}, expected {allowed}",
                f"pip install --upgrade '{name}{allowed}'",
            )
        else:
            good.append(f"{name} {have}")
    yield ok("packages.versions", f"{len(good)} packages in versions that fit: {listed(good, 100)}")


def _imports(names: Sequence[str], import_all: Import) -> Iterator[Finding]:
    """Import each. One that ends the interpreter is told, and the others are tried without it."""
    modules = {_MODULES.get(name, name.replace("-", "_")): name for name in names}
    left = list(modules)
    went: dict[str, str] = {}
    while left:
        ended = import_all(left)
        said = ended.document()
        # Before its first word it was at the first.
        told: dict[str, Any] = said if isinstance(said, dict) else {"turn": left[0], "went": {}}
        went |= told["went"]
        turn = told["turn"]
        if turn is not None:
            went[turn] = f"the interpreter {ended.why or 'ended without a word'}"
        if ended.late:
            break  # the next may hang as well
        left = [module for module in left if module not in went]
    broken = {module: why for module, why in went.items() if why}
    for module, why in broken.items():
        name = modules[module]
        yield problem(
            f"packages.{name}",
            f"importing '{module}' fails: {why}",
            f"pip install --force-reinstall --no-cache-dir {name}",
        )
    if not broken and len(went) == len(modules):
        yield ok("packages.imports", f"all {len(modules)} of them can be imported")


def _leftovers(folders: Sequence[Path]) -> Iterator[Finding]:
    """Folders named "~…": what pip moved out of its way and could not remove, mostly because it was in use."""
    for folder in folders:
        left = sorted(each.name for each in folder.glob("~*")) if folder.is_dir() else []
        if left:
            yield warning(
                "packages.leftovers",
                f"an interrupted installation left {listed(left)} in {folder}",
                "remove these, and install again what they belong to",
            )


def package_folders() -> list[Path]:
    """Where this interpreter has packages."""
    return [Path(each) for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
