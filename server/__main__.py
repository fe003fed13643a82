"""`python server …` from a clone: the same command as the installed `tensorquay`."""

from __future__ import annotations

import sys


def main() -> int:
    """Start the command, or say what is missing."""
    try:
        from tensorquay.cli import main as command  # noqa: PLC0415 - may be missing, see below

        return command()
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("tensorquay"):
            raise
        print(
            f"tensorquay: the package '{exc.name}' is not installed for {sys.executable}; run 'make serve', "
            "or install the project with 'pip install .[cpu]'",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
