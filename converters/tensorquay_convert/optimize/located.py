"""Find the model that a command names: a file, a version's folder, a model's folder, or a name in a repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tensorquay_convert.errors import BadSource
from tensorquay_convert.publish import is_model_name

MODEL_FILE = "model.onnx"
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Located:
    """A model found.

    Args:
        path: of the ONNX file.
        name: what to call it; a file outside a repository is called by its name.
        version: None outside a repository.
        folder: the model's folder in a repository, to publish into; None outside of one.
    """

    path: Path
    name: str
    version: int | None = None
    folder: Path | None = None


def locate(text: str, repository: Path, version: int | None = None) -> Located:
    """The model that `text` names.

    Args:
        text: a path (anything with a separator or that ends in .onnx, or that exists and is no model's name in the
            repository), NAME, or NAME:VERSION.
        version: which one; None: the highest.
    Raises: BadSource saying what was looked for, where, and what is there.
    """
    if is_model_name(text) and (repository / text).is_dir():
        return _in_model(repository / text, text, version)
    name, colon, number = text.rpartition(":")
    if colon and number.isascii() and number.isdigit() and not Path(text).exists():
        if version is not None and version != int(number):
            raise BadSource(f"'{text}' names version {int(number)} and --version says {version}: which one?")
        return locate(name, repository, int(number))
    path = Path(text)
    if text and path.is_dir():
        return _in_folder(path, version)
    if path.is_file():
        if version is not None:
            raise BadSource(f"'{text}' is a file: --version goes with a model's name or folder")
        if path.name == MODEL_FILE:
            return _in_folder(path.absolute().parent, None)
        return Located(path, path.stem)
    raise BadSource(f"'{text}' is neither a file nor a model in '{repository}'", remedy=_there(repository))


def _in_folder(folder: Path, version: int | None) -> Located:
    """A version's folder, or a model's."""
    whole = folder.absolute()
    if (whole / MODEL_FILE).is_file():
        if version is not None and whole.name != str(version):
            raise BadSource(f"'{folder}' is one version's folder: --version goes with a model's name or folder")
        if _is_version(whole.name):
            return Located(whole / MODEL_FILE, whole.parent.name, int(whole.name), whole.parent)
        return Located(whole / MODEL_FILE, whole.name)
    return _in_model(whole, whole.name, version)


def _in_model(folder: Path, name: str, version: int | None) -> Located:
    versions = sorted(int(each.name) for each in folder.iterdir() if _is_version(each.name) and each.is_dir())
    if not versions:
        raise BadSource(f"'{folder}' has no versions: expected <number>/{MODEL_FILE} in it")
    if version is not None and version not in versions:
        raise BadSource(f"model '{name}' has no version {version}; it has {', '.join(map(str, versions))}")
    chosen = versions[-1] if version is None else version
    path = folder / str(chosen) / MODEL_FILE
    if path.is_file():
        return Located(path, name, chosen, folder)
    others = [each for each in path.parent.glob("*.onnx") if each.is_file()] if path.parent.is_dir() else []
    if len(others) == 1:
        return Located(others[0], name, chosen, folder)
    raise BadSource(
        f"version {chosen} of model '{name}' has no {MODEL_FILE}",
        remedy="models of other kinds are imported first: tensorquay import",
    )


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0" and len(name) <= 19


def _there(repository: Path) -> str:
    try:
        names = sorted(each.name for each in repository.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError:
        return f"'{repository}' is no folder that can be read; say where the models are with --repository"
    if not names:
        return f"there is no model in '{repository}'; say where the models are with --repository"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"there are: {', '.join(names[:_MOST_NAMES])}{more}"
