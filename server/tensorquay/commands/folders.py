"""Folders that are given as a model repository and are none: said before anything is loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from tensorquay.repository.foreign import find_foreign

_ADDRESS = re.compile(r"(s3|gs|as|https?|hdfs):/+")
"""What tritonserver and TensorFlow Serving take for an object store; a `Path` keeps one slash of two."""


def refuse_address(repository: Path) -> None:
    """Raises: ClickException when `repository` is an address of an object store, not a folder."""
    found = _ADDRESS.match(str(repository))
    if found is not None:
        raise click.ClickException(
            f"the model repository '{found[1]}://{str(repository)[found.end() :]}' is in an object store, and only "
            "folders are read: copy it to one first (k8s/components/object-store does that in a cluster)"
        )


def refuse_unreadable(repository: Path) -> None:
    """Raises: ClickException when `repository` is not there, is no folder, or may not be listed by this user."""
    refuse_address(repository)
    try:
        with os.scandir(repository):
            return
    except FileNotFoundError as exc:
        raise click.ClickException(
            f"the model repository '{repository}' is not a directory: nothing is there; name another one, or in a "
            "container mount one there"
        ) from exc
    except NotADirectoryError as exc:
        raise click.ClickException(f"the model repository '{repository}' is not a directory but a file") from exc
    except OSError as exc:
        who = f" by user {os.getuid()}" if isinstance(exc, PermissionError) and hasattr(os, "getuid") else ""
        raise click.ClickException(
            f"the model repository '{repository}' cannot be read{who}: {exc.strerror or exc}"
        ) from exc


def refuse_model_folder(repository: Path) -> None:
    """Raises: ClickException when `repository` is a single model, by a numbered folder with a model in it.

    TensorFlow Serving calls such a folder a base path, and is given it.
    """
    for name in _folders(repository):
        if name.isascii() and name.isdigit() and _holds_a_model(repository / name):
            parent = Path(os.path.normpath(repository / ".."))
            # A container sees what was mounted, and not where it came from.
            remedy = "mount the folder above it" if os.path.ismount(repository) else f"serve its parent '{parent}'"
            raise click.ClickException(f"'{repository}' is a model's folder, not a repository of models: {remedy}")


def holds_nothing(repository: Path) -> str | None:
    """A sentence when nothing in `repository` can be a model; one may still be put there."""
    if any(not name.startswith(".") for name in _folders(repository)):
        return None
    return f"no models found in '{repository}'; a model is {repository}/NAME/1/model.onnx"


def _holds_a_model(version: Path) -> bool:
    names = _names(version)
    inner = [f"{name}/saved_model.pb" for name in names if (version / name / "saved_model.pb").is_file()]
    return "model.onnx" in names or find_foreign([*names, *inner], "model.onnx") is not None


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _folders(repository: Path) -> list[str]:
    """Names of folders in `repository`; none when it cannot be listed, which whoever scans it says better."""
    try:
        with os.scandir(repository) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
