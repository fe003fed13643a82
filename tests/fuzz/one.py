"""One target under the fuzzer, in a process of its own: libFuzzer ends the process when its time is over.

    python -m tests.fuzz.one TARGET [libFuzzer's options and folders]

Needs atheris (`pip install -e '.[fuzz]'`). An input given as a file is run once.
"""

from __future__ import annotations

import importlib
import random
import sys

import atheris


def main() -> None:
    """Instrument the server's packages, and run the target until libFuzzer stops."""
    name = sys.argv.pop(1)
    # Everything of ours that is imported in here tells the fuzzer which branches were taken.
    with atheris.instrument_imports(include=["tensorquay"]):
        target = importlib.import_module("tests.fuzz.all_targets").TARGETS[name]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        def damage(piece: bytes) -> bytes:
            # libFuzzer gives nothing back for nothing.
            return bytes(atheris.Mutate(piece or b"\0", max(len(piece) + 16, 16)))

        random_ = random.Random(seed)
        if target.mutate is None or random_.random() < 0.1:
            return bytes(atheris.Mutate(data, max_size))
        return bytes(target.mutate(data, random_, damage)[:max_size])

    atheris.Setup(sys.argv, target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
