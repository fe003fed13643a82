"""Find out what a source is by looking at it, without any framework: first bytes, a zip's list, a folder's names.

A suffix only words the answer where nothing else tells. Nothing is loaded, unpacked or executed; what a file holds
inside is its converter's to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from tensorquay_convert import peek
from tensorquay_convert.detect_files import SHOWN, kind_of_file
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind

ACCEPTED = (
    "accepted are PyTorch (.pt2, TorchScript .pt, file.py:factory with --weights), Hugging Face folders, TensorFlow "
    "(SavedModel, .keras, .h5, frozen .pb, .tflite), JAX factories, scikit-learn (.skops), XGBoost (.json, .ubj), "
    "LightGBM (.txt) and ONNX"
)

DROPPED_FILES = (
    "model.savedmodel",
    "model.pt2",
    "model.pt",
    "model.keras",
    "model.h5",
    "model.graphdef",
    "model.tflite",
    "model.skops",
    "model.ubj",
    "model.json",
    "model.txt",
    "model.onnx",
    "model.pb",
    "model.pth",
    "model.joblib",
    "model.pkl",
)
"""Names under which a version's folder holds a model, ours and Triton's."""

_FACTORY = re.compile(r"(?P<where>.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_TORCH = re.compile(rb"^[ \t]*(?:import|from)[ \t]+(?:torch|torchvision|transformers|timm)\b", re.MULTILINE)
_JAX = re.compile(rb"^[ \t]*(?:import|from)[ \t]+(?:jax|flax|equinox|haiku)\b", re.MULTILINE)
_MAX_SHOWN = 5
_MAX_NESTING = 4
_FACTORY_KINDS = (SourceKind.TORCH_FACTORY, SourceKind.JAX_FACTORY)


_Found: TypeAlias = tuple[SourceKind, tuple[str, ...], Path]
"""A kind, notes on what was chosen, and the part of the source that was."""


@dataclass(frozen=True, slots=True)
class Detected:
    """What a source is.

    Args:
        kind: None for a factory whose framework only shows when it runs (`registry.factory_kind`).
        source: what is really imported: the path or factory as given, or the part of the folder that was chosen.
        shown: "a TensorFlow SavedModel".
        notes: what was chosen and why.
    """

    kind: SourceKind | None
    source: str
    shown: str
    notes: tuple[str, ...] = ()


def detect(job: ImportJob) -> Detected:
    """What `job.source` is; `job.kind` wins over what it looks like.

    Raises: BadSource saying what was found, what is accepted, and what to do.
    """
    source = job.source
    if not source or "\0" in source:
        raise BadSource("the source is empty", remedy=ACCEPTED)
    factory = _FACTORY.fullmatch(source)
    if factory is not None and not _WINDOWS_DRIVE.match(source) and not _exists(source):
        return _factory(job, factory["where"])
    path = Path(source)
    if job.kind in _FACTORY_KINDS:
        raise BadSource(f"'{source}' is no factory", remedy="name it as file.py:function or package.module:function")
    is_folder = peek.kind_of_path(path, source) == "folder"
    found: SourceKind | _Found | None = None
    refusal: BadSource | None = None
    try:
        found = _folder(path, source, _MAX_NESTING) if is_folder else kind_of_file(path, source)
    except BadSource as exc:
        refusal = exc
    if refusal is not None and job.kind is None:
        raise refusal
    kind, notes, chosen = found if isinstance(found, tuple) else (found, (), path)
    if SourceKind.PICKLE in {kind, job.kind} and not job.trust_pickle:
        raise BadSource(
            f"'{source}' is a pickle, and reading a pickle runs whatever code is in it",
            remedy="save the model with skops instead, or give --trust-pickle if you made the file yourself",
        )
    if job.kind is not None or kind is None:
        assert job.kind is not None
        return _as_told(job.kind, source, found)
    if chosen.name == "saved_model.pb":
        chosen, notes = chosen.parent, (*notes, "a SavedModel is its whole folder: that is imported")
    return Detected(kind, str(chosen) if chosen != path else source, SHOWN[kind], notes)


def _as_told(kind: SourceKind, source: str, found: SourceKind | _Found | None) -> Detected:
    looks, notes, chosen = found if isinstance(found, tuple) else (found, (), Path(source))
    if looks is None or looks is kind:
        return Detected(kind, str(chosen) if looks is kind else source, SHOWN[kind], notes)
    return Detected(
        kind, source, SHOWN[kind], (f"it looks like {SHOWN[looks]}, but --kind says {kind.value}: taken as that",)
    )


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:
        return False


def _factory(job: ImportJob, where: str) -> Detected:
    kind = job.kind
    if kind is not None and kind not in _FACTORY_KINDS:
        raise BadSource(
            f"'{job.source}' is a factory, but --kind says {kind.value}",
            remedy=f"factories are {' or '.join(each.value for each in _FACTORY_KINDS)}",
        )
    if where.endswith(".py"):
        if peek.kind_of_path(Path(where), where) != "file":
            raise BadSource(f"'{where}' is a folder, expected a Python file before ':'")
        kind = kind or framework_named_in(Path(where), where)
    return Detected(kind, job.source, SHOWN[kind] if kind is not None else "a factory of a model")


def framework_named_in(path: Path, shown: str) -> SourceKind | None:
    """The kind of a factory by what its file imports; None when it imports both, or neither. Runs nothing."""
    text = peek.head(path, shown, 1 << 20)
    torch, jax = _TORCH.search(text) is not None, _JAX.search(text) is not None
    if torch == jax:
        return None
    return SourceKind.TORCH_FACTORY if torch else SourceKind.JAX_FACTORY


def _folder(folder: Path, shown: str, nesting: int) -> _Found:
    """What a folder is, and which part of it is meant."""
    names = peek.names_in(folder, shown)
    if not names:
        raise BadSource(f"the folder '{shown}' is empty", remedy=ACCEPTED)
    if "saved_model.pb" in names:
        return SourceKind.SAVED_MODEL, (), folder
    if "saved_model.pbtxt" in names:
        raise BadSource(
            f"'{shown}' is a SavedModel in text form", remedy="save it as saved_model.pb, which is what can be loaded"
        )
    if "config.json" in names:
        return _huggingface(shown, names), (), folder
    dropped = [name for name in DROPPED_FILES if name in names]
    versions = sorted((int(name) for name in names if _is_version(name) and (folder / name).is_dir()), reverse=True)
    if len(dropped) > 1:
        raise BadSource(f"'{shown}' holds several models: {', '.join(dropped)}", remedy="give the one that is meant")
    if dropped:
        return _inside(folder / dropped[0], f"{shown}/{dropped[0]}", nesting)
    if versions:
        return _newest(folder, shown, versions, nesting)
    return _only_one(folder, shown, names)


def _inside(path: Path, shown: str, nesting: int) -> _Found:
    """The model in a folder that is only its container."""
    if peek.kind_of_path(path, shown) == "file":
        return kind_of_file(path, shown), (), path
    if nesting == 0:
        raise BadSource(f"'{shown}': no model, {_MAX_NESTING} folders deep", remedy=ACCEPTED)
    return _folder(path, shown, nesting - 1)


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 19 and not name.startswith("0")


def _newest(folder: Path, shown: str, versions: list[int], nesting: int) -> _Found:
    """The highest version of a model's folder, in TensorFlow Serving's layout or Triton's."""
    kind, notes, chosen = _inside(folder / str(versions[0]), f"{shown}/{versions[0]}", nesting)
    if len(versions) > 1:
        others = ", ".join(map(str, versions[1 : 1 + _MAX_SHOWN]))
        notes = (f"version {versions[0]} chosen, the highest; also there: {others}", *notes)
    else:
        notes = (f"version {versions[0]} chosen, the only one", *notes)
    return kind, notes, chosen


def _huggingface(shown: str, names: list[str]) -> SourceKind:
    """Whether a folder with a config.json is a transformer that can be read without running its code."""
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return SourceKind.HUGGING_FACE
    if "model.weights.h5" in names:
        raise BadSource(f"'{shown}' is an unpacked .keras archive", remedy="give the .keras file itself")
    pickled = [name for name in names if name.startswith("pytorch_model") and name.endswith(".bin")]
    if pickled:
        raise BadSource(
            f"'{shown}' has its weights as {pickled[0]}, a pickle, which is not read",
            remedy="save them again with model.save_pretrained(folder, safe_serialization=True)",
        )
    foreign = [name for name in names if name in {"tf_model.h5", "flax_model.msgpack"}]
    raise BadSource(
        f"'{shown}' has a config.json and no weights in it (*.safetensors)"
        + (f"; found {foreign[0]}" if foreign else ""),
        remedy="save the model again with model.save_pretrained(folder)",
    )


def _only_one(folder: Path, shown: str, names: list[str]) -> _Found:
    """The only file in a folder that is a model. Raises: BadSource listing what is there."""
    found: list[tuple[str, SourceKind]] = []
    refused: list[BadSource] = []
    files = [name for name in names if (folder / name).is_file()][:100]
    for name in files:
        try:
            found.append((name, kind_of_file(folder / name, f"{shown}/{name}")))
        except BadSource as exc:
            refused.append(exc)
    if len(found) == 1:
        name, kind = found[0]
        return kind, (f"'{name}' chosen, the only model in the folder",), folder / name
    if len(found) > 1:
        listed = ", ".join(name for name, _ in found[:_MAX_SHOWN])
        raise BadSource(f"'{shown}' holds several models: {listed}", remedy="give the one that is meant")
    if len(files) == 1 == len(names):
        raise refused[0]
    listed = ", ".join(names[:_MAX_SHOWN]) + (" …" if len(names) > _MAX_SHOWN else "")
    raise BadSource(f"no model found in the folder '{shown}', which holds {listed}", remedy=ACCEPTED)


def resolved(job: ImportJob, found: Detected) -> ImportJob:
    """The job with what was found out in it."""
    return replace(job, source=found.source, kind=found.kind)
