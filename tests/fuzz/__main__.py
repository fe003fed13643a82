"""Fuzz what reads strangers' bytes: `python -m tests.fuzz`, from the root of a clone (`make fuzz SECONDS=60`).

Each target runs for so many seconds in a process of its own. What it found worth keeping stays in `.fuzz/`, so the next
run goes on from there; an input that breaks a target is printed as Python writes bytes, for `found.py`. Coverage is of
the server's Python code; "features" are branches by how often they were taken.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.all_targets import TARGETS
from tests.fuzz.target import Target

_STATUS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)
_INPUT_S, _MEMORY_MIB = 10, 2048
"""An input that takes longer, or a process that takes more, is a finding."""
_GRACE_S = 120
"""Starting, and going through what was kept, come before the seconds that count."""


@dataclass(frozen=True)
class Outcome:
    """What a run of libFuzzer said: executions, edges, features and inputs kept, and its exit status."""

    executions: int
    edges: int
    features: int
    kept: int
    status: int

    @classmethod
    def read(cls, text: str, status: int) -> Outcome:
        """From libFuzzer's own lines; zeros where it said nothing."""
        found = _STATUS.findall(text)
        last = [int(number) for number in found[-1]] if found else [0, 0, 0, 0]
        done = _DONE.search(text)
        return cls(int(done[1]) if done else last[0], last[1], last[2], last[3], status)

    def told(self) -> str:
        """In words."""
        return (
            f"{self.executions:,} executions, {self.edges:,} edges, {self.features:,} features, "
            f"{self.kept:,} inputs kept"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the targets one after another. Returns: 0, or 1 when one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)}; all when none")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where inputs are kept (.fuzz)")
    given = parser.parse_args(arguments)
    if not set(given.targets) <= set(TARGETS):
        parser.error(f"expected some of {', '.join(TARGETS)}")
    try:
        importlib.import_module("atheris")
    except ImportError:
        print("fuzz: atheris is not installed; pip install -e '.[fuzz]' (wheels: Linux on x86-64)", file=sys.stderr)
        return 1
    broken = 0
    for name in given.targets or TARGETS:
        outcome, found = fuzz(TARGETS[name], given.folder / name, given.seconds)
        print(f"{name:<11}{'BROKEN' if outcome.status else 'ok'}: {outcome.told()}", flush=True)
        if outcome.status:
            broken += 1
            print(found, flush=True)
    return 1 if broken else 0


def fuzz(target: Target, folder: Path, seconds: int) -> tuple[Outcome, str]:
    """One target for `seconds`. Returns: what came of it, and what is to be said when it broke."""
    kept, broke = folder / "kept", folder / "broke"
    for each in (kept, broke):
        each.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (kept / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    before = set(broke.iterdir())
    command = [
        *(sys.executable, "-m", "tests.fuzz.one", target.name, str(kept)),
        *(f"-max_total_time={seconds}", f"-max_len={target.max_bytes}", f"-timeout={_INPUT_S}"),
        *(f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={broke}/", "-print_final_stats=1"),
    ]
    log = folder / "log.txt"
    with log.open("wb") as said:
        try:
            status = subprocess.run(
                command, stdout=said, stderr=subprocess.STDOUT, check=False, timeout=seconds + _GRACE_S
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    text = log.read_text(errors="replace")
    found = "\n".join(f"  {path.name}: {path.read_bytes()!r}" for path in sorted(set(broke.iterdir()) - before))
    return Outcome.read(text, status), f"{found}\n  the end of {log}:\n{text[-4000:]}"


if __name__ == "__main__":
    sys.exit(main())
