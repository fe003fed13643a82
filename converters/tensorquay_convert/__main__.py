"""`python -m tensorquay_convert SOURCE --name NAME …`: imports without the rest of the command `tensorquay`."""

from __future__ import annotations

import sys

import click

from tensorquay_convert.cli import import_model


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        outcome = import_model.main(prog_name="tensorquay-import", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        return 1
    return outcome if isinstance(outcome, int) else 0


if __name__ == "__main__":
    sys.exit(main())
