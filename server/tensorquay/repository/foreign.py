"""Which files in a version folder are trained models of another kind, and which of them can be imported.

By name only: nothing is opened here, and what a file really holds is found out by the import, in a process of its own.
Pure. The names are Triton's, TensorFlow Serving's and the frameworks' own (docs/repository.md).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class ForeignKind:
    """A kind of model that is not ONNX. `kind` is what the import calls it; empty: it cannot be imported.

    `why_not` says why, and what to do instead.
    """

    shown: str
    kind: str = ""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model of another kind, found in a version folder.

    `path` is relative to that folder, "." all of it; `name` is what it was known by.
    """

    path: str
    what: ForeignKind
    name: str


_PICKLE = (
    "a pickle runs code when it is read; save it with skops, or convert it with 'tensorquay import --trust-pickle'"
)
_ONLY_THERE = "it runs only on the runtime it was built for; export the model it was made from"

_SAVED_MODEL = ForeignKind("a TensorFlow SavedModel", "savedmodel")
_TORCHSCRIPT = ForeignKind("a TorchScript model", "torchscript")
_KERAS = ForeignKind("a Keras model", "keras")

_ARCHIVE = ForeignKind(
    "a TorchServe archive",
    why_not="unzip it and import the model file in it with 'tensorquay import'; its handler is not run here",
)

_FILES = {
    "model.pt2": ForeignKind("a PyTorch export", "pt2"),
    "model.pt": _TORCHSCRIPT,
    "model.pth": ForeignKind("a PyTorch checkpoint", why_not="it holds weights without a model; export it as .pt2"),
    "model.keras": _KERAS,
    "model.h5": _KERAS,
    "model.graphdef": ForeignKind("a TensorFlow graph", "graphdef"),
    "model.tflite": ForeignKind("a TensorFlow Lite model", "tflite"),
    "model.skops": ForeignKind("a scikit-learn model", "skops"),
    "xgboost.json": ForeignKind("an XGBoost model", "xgboost"),
    "model.ubj": ForeignKind("an XGBoost model", "xgboost"),
    "model.txt": ForeignKind("a LightGBM model", "lightgbm"),
    "model.plan": ForeignKind("a TensorRT engine", why_not=_ONLY_THERE),
    "model.xml": ForeignKind("an OpenVINO model", why_not=_ONLY_THERE),
    "model.py": ForeignKind("a Python model", why_not="code in a repository is not run"),
    "model.joblib": ForeignKind("a pickled model", why_not=_PICKLE),
    "model.pkl": ForeignKind("a pickled model", why_not=_PICKLE),
    "model.pickle": ForeignKind("a pickled model", why_not=_PICKLE),
}

_FOLDERS = {"model.savedmodel": _SAVED_MODEL}

_SUFFIXES = {
    ".pt2": _FILES["model.pt2"],
    ".pt": _TORCHSCRIPT,
    ".keras": _KERAS,
    ".h5": _KERAS,
    ".graphdef": _FILES["model.graphdef"],
    ".tflite": _FILES["model.tflite"],
    ".skops": _FILES["model.skops"],
}
"""What a file that the configuration names may be called."""


def find_foreign(files: Collection[str], wanted: str) -> Foreign | None:
    """The model of another kind among `files` (paths relative to the version folder), if there is one.

    Args: wanted: the model file's name by configuration or default. One that names a foreign file decides.
    """
    tops = {PurePosixPath(path).parts[0] for path in files}
    named = _SUFFIXES.get(PurePosixPath(wanted).suffix) or _FOLDERS.get(wanted)
    if named is not None and wanted in (tops if wanted in _FOLDERS else files):
        return Foreign(wanted, named, wanted)
    for name, what in _FILES.items():
        if name in files:
            return Foreign(name, what, name)
    for name, what in _FOLDERS.items():
        if name in tops and f"{name}/saved_model.pb" in files:
            return Foreign(name, what, name)
    if "saved_model.pb" in files:
        return Foreign(".", _SAVED_MODEL, "saved_model.pb")
    if "config.json" in files and any(path.endswith(".safetensors") and "/" not in path for path in files):
        return Foreign(".", ForeignKind("a Hugging Face model", "huggingface"), "config.json")
    archives = sorted(name for name in tops if name.endswith(".mar"))
    return Foreign(archives[0], _ARCHIVE, archives[0]) if archives else None
