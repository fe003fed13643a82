"""The program behind `children.ask`: imports what may crash, and tells as it goes, one JSON document a line.

Runs in interpreters that have nothing of ours, so only the question "runtime" imports any of it. Written for any
Python that an import can use.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Sequence


def imports(names: Sequence[str]) -> None:
    """Import each module; tell before each that it is its turn, at the end how all went: name → "" or the error."""
    went: dict[str, str] = {}
    for name in names:
        _tell({"turn": name, "went": went})
        try:
            importlib.import_module(name)
            went[name] = ""
        except BaseException as error:  # noqa: BLE001  whatever a broken package raises is the answer
            went[name] = f"{type(error).__name__}: {str(error).strip()[:500]}"
    _tell({"turn": None, "went": went})


def versions(names: Sequence[str]) -> None:
    """Tell the version of each distribution, "" for those that are not installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    _tell({"python": sys.version.split()[0], "versions": found})


def runtime(_names: Sequence[str]) -> None:
    """Tell what ONNX Runtime finds on this machine."""
    inspection = importlib.import_module("tensorquay.backends.onnxruntime.inspection")
    _tell(inspection.examine())


def _tell(document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


QUESTIONS: dict[str, Callable[[Sequence[str]], None]] = {"imports": imports, "versions": versions, "runtime": runtime}

if __name__ == "__main__":
    QUESTIONS[sys.argv[1]](sys.argv[2:])
