"""What came of background optimisations, on disk: so that a restart does not try again what led to nothing.

One folder per optimisation, by a digest of everything it depends on, with the report of the run beside the outcome.
Bounded: the oldest go first. Blocking. Several servers may share it. Whatever cannot be read counts as never tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from tensorquay.optimizing.command import Outcome, Result

_OUTCOME = "outcome.json"
_REPORT = "report"
_SCHEMA = "tensorquay.background-optimization/1"
_MAX_BYTES = 1 << 16
_KEPT = 200


class OutcomeMemory:
    """See the module.

    Args: root: made when first needed, readable by this user only.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def recall(self, key: str) -> Outcome | None:
        """The outcome remembered under `key`, 64 hexadecimal digits."""
        try:
            with (self._root / key / _OUTCOME).open("rb") as file:
                said = json.loads(file.read(_MAX_BYTES))
            if said["schema"] != _SCHEMA:
                return None
            return Outcome(Result(said["result"]), str(said["sentence"]), int(said["version"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def remember(self, key: str, outcome: Outcome) -> None:
        """Keep `outcome` for `recall`.

        Raises: OSError when the folder cannot be written.
        """
        folder = self._folder(key)
        said = {
            "schema": _SCHEMA,
            "result": outcome.result.value,
            "sentence": outcome.sentence,
            "version": outcome.version,
        }
        descriptor, name = tempfile.mkstemp(prefix=".outcome-", dir=folder)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(said, file)
            Path(name).replace(folder / _OUTCOME)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._forget_oldest()

    def report_folder(self, key: str) -> Path:
        """Where the command puts its report.

        Raises: OSError when the folder cannot be written.
        """
        return self._folder(key) / _REPORT

    def _folder(self, key: str) -> Path:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / key
        folder.mkdir(exist_ok=True)
        return folder

    def _forget_oldest(self) -> None:
        # Another server may do the same at this moment.
        with contextlib.suppress(OSError):
            there = sorted(self._root.iterdir(), key=lambda each: each.stat().st_mtime_ns)
            for old in there[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
