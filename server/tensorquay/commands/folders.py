"""Folders that are given as a model repository and are none: said before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import click


def refuse_model_folder(repository: Path) -> None:
    """Raises: ClickException when `repository` is a single model, by a numbered folder with a model file in it."""
    for name in _folders(repository):
        if name.isascii() and name.isdigit() and (repository / name / "model.onnx").is_file():
            parent = Path(os.path.normpath(repository / ".."))
            raise click.ClickException(
                f"'{repository}' is a model's folder, not a repository of models: serve its parent '{parent}'"
            )


def warn_of_nothing(repository: Path, command: str) -> None:
    """Tell on standard error when nothing in `repository` can be a model. One may still be put there."""
    if not any(not name.startswith(".") for name in _folders(repository)):
        click.echo(
            f"{command}: warning: no models found in '{repository}'; a model is {repository}/NAME/1/model.onnx",
            err=True,
        )


def _folders(repository: Path) -> list[str]:
    """Names of folders in `repository`; none when it cannot be listed, which whoever scans it says better."""
    try:
        with os.scandir(repository) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
