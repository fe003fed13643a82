"""`python -m tensorquay_convert import SOURCE …` (or `optimize`, `profile`): without the rest of `tensorquay`."""

from __future__ import annotations

import sys
from importlib import import_module

import click

_COMMANDS = {
    "import": ("tensorquay_convert.cli", "import_model"),
    "optimize": ("tensorquay_convert.optimize_cli", "optimize"),
    "profile": ("tensorquay_convert.profile_cli", "profile"),
}


def main() -> int:
    """Run the command line and return its exit code."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in _COMMANDS:
        click.echo(f"expected one of {', '.join(_COMMANDS)}, got '{name[:64]}'", err=True)
        return 2
    module, attribute = _COMMANDS[name]
    command: click.Command = getattr(import_module(module), attribute)
    try:
        outcome = command.main(arguments, prog_name=f"tensorquay {name}", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        return 1
    return outcome if isinstance(outcome, int) else 0


if __name__ == "__main__":
    sys.exit(main())
