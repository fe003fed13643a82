"""The subcommands of `tensorquay`, one module each, imported by `cli.py` when used."""
