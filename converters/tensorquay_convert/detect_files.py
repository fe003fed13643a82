"""What one file is, by its bytes. Knows formats by their magic numbers and layouts; reads a few kilobytes.

Sources: the formats' own documentation: zip, HDF5, flatbuffers and protobuf encodings, pickle protocol, safetensors,
`torch.save` (data.pkl), TorchScript (constants.pkl, code/), PyTorch's pt2 archive (archive_format, models/*.json).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tensorquay_convert import peek
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import SourceKind
from tensorquay_convert.peek import Field

SHOWN: Mapping[SourceKind, str] = {
    SourceKind.TORCH_EXPORT: "a PyTorch exported program",
    SourceKind.TORCHSCRIPT: "a TorchScript module",
    SourceKind.TORCH_FACTORY: "a factory of a PyTorch module",
    SourceKind.HUGGING_FACE: "a Hugging Face model",
    SourceKind.SAVED_MODEL: "a TensorFlow SavedModel",
    SourceKind.KERAS: "a Keras model",
    SourceKind.GRAPH_DEF: "a frozen TensorFlow graph",
    SourceKind.TFLITE: "a TensorFlow Lite model",
    SourceKind.JAX_FACTORY: "a factory of a JAX function",
    SourceKind.SKOPS: "a scikit-learn model (skops)",
    SourceKind.PICKLE: "a pickled scikit-learn model",
    SourceKind.XGBOOST: "an XGBoost model",
    SourceKind.LIGHTGBM: "a LightGBM model",
    SourceKind.ONNX: "an ONNX model",
}

_FACTORY_REMEDY = "give a factory that builds the module, file.py:function, with --weights '{shown}'"
_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""The number that starts every file of PyTorch's first format, as a pickled long."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".sav"}
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_KNOWN_REFUSALS = (
    (b"GGUF", 0, "a GGUF file of llama.cpp", "this server runs ONNX models; convert the original weights"),
    (b"ORTM", 4, "a model in ONNX Runtime's own format", "import the .onnx file it was made from"),
    (b"CBM1", 0, "a CatBoost model", "save it with save_model(…, format='onnx') and import that"),
    (b"binf", 0, "an XGBoost model in the old binary format", "save it again as .json or .ubj with save_model"),
    (b"TFL2", 4, "a TensorFlow Lite model of a version that is no longer read", "convert it again"),
    (b"\x93NUMPY", 0, "a NumPy array", "arrays are inputs: give it with --example"),
    (b"\x89PNG", 0, "an image", "images are inputs: give it with --example"),
    (b"\xff\xd8\xff", 0, "an image", "images are inputs: give it with --example"),
    (b"\x7fELF", 0, "a program or library", ""),
    (b"version https://git-lfs", 0, "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    (b"<?xml", 0, "XML (an OpenVINO model?)", "import the model it was made from"),
    (b"<!DOCTYPE", 0, "a web page", "download the file itself"),
    (b"<html", 0, "a web page", "download the file itself"),
)


def kind_of_file(path: Path, shown: str) -> SourceKind:
    """What a regular file is.

    Args: shown: its name in texts.
    Raises: BadSource saying what it is instead, and what to do.
    """
    begin = peek.head(path, shown)
    if not begin:
        raise BadSource(f"'{shown}' is empty")
    for magic, at, what, remedy in _KNOWN_REFUSALS:
        if begin[at : at + len(magic)] == magic:
            raise BadSource(f"'{shown}' is {what}", remedy=remedy)
    if begin.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path, shown)
    if begin.startswith(_HDF5):
        return SourceKind.KERAS
    if begin[4:8] == b"TFL3":
        return SourceKind.TFLITE
    found = _text(begin, path, shown) or _pickle(begin, path, shown)
    if found is not None:
        return found
    _refuse_safetensors(begin, path, shown)
    _refuse_compressed(begin, shown)
    return _protobuf(path, shown)


def _zip(path: Path, shown: str) -> SourceKind:
    names = peek.zip_names(path, shown)
    inner = {name.partition("/")[2] for name in names}
    flat = set(names)
    if "archive_format" in inner | flat or any(re.fullmatch(r"models/[^/]+\.json", name) for name in inner | flat):
        return SourceKind.TORCH_EXPORT
    if {"serialized_exported_program.json", "serialized_exported_program.pt"} & (flat | inner):
        return SourceKind.TORCH_EXPORT
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return SourceKind.TORCHSCRIPT
    if "data.pkl" in inner:
        raise BadSource(
            f"'{shown}' is a pickled PyTorch checkpoint: weights or objects without the code that runs them",
            remedy=_FACTORY_REMEDY.format(shown=shown),
        )
    if "config.json" in flat and {"model.weights.h5", "model.weights.npz", "model.weights.json"} & flat:
        return SourceKind.KERAS
    if "schema.json" in flat:
        return SourceKind.SKOPS
    if flat and all(name.endswith(".npy") for name in flat):
        raise BadSource(f"'{shown}' holds NumPy arrays", remedy="arrays are inputs: give it with --example")
    if "MAR-INF/MANIFEST.json" in flat:
        raise BadSource(
            f"'{shown}' is a TorchServe archive",
            remedy="unzip it and import the file that its MAR-INF/MANIFEST.json calls serializedFile; what its handler "
            "does before and after the model is not run here and moves to the client, or into the model",
        )
    listed = ", ".join(sorted(names)[:5])
    raise BadSource(
        f"'{shown}' is a zip archive of no known kind" + (f"; it holds {listed}" if listed else "; it is empty"),
        remedy="if a model's folder is in it, unpack it and give the folder",
    )


def _text(begin: bytes, path: Path, shown: str) -> SourceKind | None:
    """Formats that are text, and XGBoost's UBJSON, whose keys are readable."""
    if re.match(rb"tree\r?\nversion=", begin):
        return SourceKind.LIGHTGBM
    if not begin.startswith(b"{"):
        return None
    if begin[1:2] in {b"L", b"l", b"i", b"U", b"I", b"#", b"$"} and b"learner" in begin[:64]:
        return SourceKind.XGBOOST
    if begin.lstrip(b"{ \t\r\n")[:1] not in {b'"', b"}"}:
        return None
    if b'"learner"' in begin:
        return SourceKind.XGBOOST
    if path.name == "config.json":
        raise BadSource(f"'{shown}' is only the configuration of a model", remedy="give the folder it lies in")
    if b'"format": "layers-model"' in begin or b'"modelTopology"' in begin:
        raise BadSource(f"'{shown}' is a TensorFlow.js model", remedy="import the Keras or SavedModel it was made from")
    raise BadSource(f"'{shown}' is JSON of no known kind", remedy="XGBoost's has a 'learner' in it")


def _pickle(begin: bytes, path: Path, shown: str) -> SourceKind | None:
    is_pickle = begin[:1] == b"\x80" and 2 <= begin[1] <= 5 if len(begin) > 1 else False
    if is_pickle and _TORCH_MAGIC in begin[:16]:
        raise BadSource(
            f"'{shown}' is a pickled PyTorch checkpoint in the format before PyTorch 1.6",
            remedy=_FACTORY_REMEDY.format(shown=shown),
        )
    if is_pickle:
        return SourceKind.PICKLE
    named = path.suffix.lower() in _PICKLE_SUFFIXES
    packed = begin.startswith(_ZLIB) or any(begin.startswith(magic) for magic in _COMPRESSED)
    # joblib compresses the whole pickle; only the name tells what is inside.
    if named and packed:
        return SourceKind.PICKLE
    # Protocol 0 is text without any mark of its own.
    if named and begin[:1] in {b"(", b"c"}:
        return SourceKind.PICKLE
    return None


def _refuse_safetensors(begin: bytes, path: Path, shown: str) -> None:
    length = int.from_bytes(begin[:8], "little")
    if len(begin) > 9 and begin[8:9] == b"{" and 2 <= length <= 100 << 20:
        if path.with_name("config.json").is_file():
            raise BadSource(
                f"'{shown}' is only the weights of a model", remedy="give the folder, its config.json is there"
            )
        raise BadSource(
            f"'{shown}' is a safetensors file: weights without the code that runs them",
            remedy=_FACTORY_REMEDY.format(shown=shown),
        )


def _refuse_compressed(begin: bytes, shown: str) -> None:
    for magic, name in _COMPRESSED.items():
        if begin.startswith(magic):
            raise BadSource(f"'{shown}' is compressed ({name})", remedy="unpack it and give the model in it")
    if begin[257:262] == b"ustar":
        raise BadSource(f"'{shown}' is a tar archive", remedy="unpack it and give the model in it")


_ONNX = {Field(1, False), Field(7, True)}
_SAVED = {Field(1, False), Field(2, True)}
_GRAPH_FIELDS = {1, 2, 3, 4, 5}


def _protobuf(path: Path, shown: str) -> SourceKind:
    """ONNX, GraphDef and SavedModel are all protobuf messages without a magic number: their fields tell."""
    fields, whole = peek.protobuf_fields(path, shown)
    numbers = {field.number for field in fields}
    suffix = path.suffix.lower()
    if fields >= _ONNX:
        found = SourceKind.ONNX
    elif fields >= _SAVED and path.name == "saved_model.pb":
        found = SourceKind.SAVED_MODEL
    elif (
        Field(1, True) in fields
        and numbers <= _GRAPH_FIELDS
        and (Field(4, True) in fields or suffix in {".pb", ".graphdef"})
    ):
        found = SourceKind.GRAPH_DEF
    elif fields and not whole and suffix in {".onnx", ".pb", ".graphdef"}:
        raise BadSource(f"'{shown}' is cut short: it ends in the middle of a field; is it still being copied?")
    elif suffix == ".onnx":
        raise BadSource(f"'{shown}' is no ONNX model: it has no graph in it")
    else:
        raise BadSource(f"'{shown}' is of no known kind: it begins with {_dump(path, shown)}", remedy=ACCEPTED_FILES)
    if not whole:
        raise BadSource(f"'{shown}' is {SHOWN[found]} that is cut short; is it still being copied?")
    return found


ACCEPTED_FILES = (
    "accepted files are .pt2, TorchScript .pt, .keras, .h5, .pb, .tflite, .skops, XGBoost's .json and .ubj, "
    "LightGBM's .txt, .onnx"
)


def _dump(path: Path, shown: str) -> str:
    """The first bytes, so that a person may recognise them."""
    begin = peek.head(path, shown, 16)
    if all(32 <= byte < 127 or byte in {9, 10, 13} for byte in begin):
        return repr(begin.decode())
    return "bytes " + begin[:8].hex(" ")
