"""Read label files: one label per line, from inside the model's folder and nowhere else.

Triton follows `label_filename: "../../x"` out of the repository; here that is refused (it would show any file of the
machine to whoever asks for a classification).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tensorquay.config.model import ModelConfig
from tensorquay.core.errors import ModelFailed
from tensorquay.repository.files import UnusableFile, read_inside

MAX_LABEL_BYTES = 16 << 20
"""Largest label file read; a million labels of sixteen characters."""


def read_labels(folder: Path, config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The labels of each output of `config` that names a file, by output name.

    Args: folder: the model's folder.
    Raises: ModelFailed for a file that is not there, not inside, not text, or too large.
    """
    found: dict[str, tuple[str, ...]] = {}
    for output in config.outputs:
        if output.labels_file:
            found[output.name] = _read(folder, output.labels_file, output.name)
    return found


def unlabelled(config: ModelConfig, labels: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A sentence for each output of known width whose file has fewer lines than classes: the rest comes unnamed."""
    notes: list[str] = []
    for output in config.outputs:
        classes = output.dims[-1] if output.dims else -1
        found = labels.get(output.name)
        if found is not None and len(found) < classes:
            lines = f"{len(found)} line{'' if len(found) == 1 else 's'}"
            notes.append(
                f"output '{output.name}': label file '{output.labels_file[:64]}' has {lines} for {classes} classes; "
                "classifications name the others by index only"
            )
    return notes


def _read(folder: Path, name: str, output: str) -> tuple[str, ...]:
    pure = PurePosixPath(name)
    shown = name[:64]
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\x00" in name:
        raise ModelFailed(f"output '{output}': label_filename '{shown}' is not a file inside the model's folder")
    try:
        data = read_inside(folder / name, shown, folder.resolve(), MAX_LABEL_BYTES)
        text = data.decode()
    except UnusableFile as exc:
        raise ModelFailed(f"output '{output}': label_filename {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ModelFailed(f"output '{output}': label_filename '{shown}' is not UTF-8 text") from exc
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.rstrip("\r") for line in lines)
