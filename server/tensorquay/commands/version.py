"""`tensorquay version`: this program, Python, and the libraries that decide what a prediction is."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import click

from tensorquay import __version__

_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "grpcio", "protobuf", "uvicorn")


@click.command(short_help="Show versions.", context_settings={"help_option_names": ["-h", "--help"]})
def version() -> None:
    """Show the versions of tensorquay and of what it runs on."""
    click.echo(f"tensorquay {__version__}")
    click.echo(f"python {platform.python_version()} ({platform.system().lower()} {platform.machine()})")
    for library in _LIBRARIES:
        try:
            click.echo(f"{library} {installed(library)}")
        except PackageNotFoundError:
            continue
