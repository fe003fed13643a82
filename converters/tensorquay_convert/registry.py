"""Which converter opens which kind of source: our own by module path, strangers' by entry point.

Nothing is imported before it is asked for, and only in the worker. A stranger's converter, registered in the group
"tensorquay.converters" (name = a `SourceKind` value, object = a `Converter` or its class), wins over ours.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from tensorquay_convert.api import Converter
from tensorquay_convert.detect import framework_named_in
from tensorquay_convert.errors import BadSource, CommandFailed, FrameworkMissing
from tensorquay_convert.job import SourceKind

GROUP = "tensorquay.converters"

_SOURCES = "tensorquay_convert.sources"
BUILT_IN: Mapping[SourceKind, str] = {
    SourceKind.TORCH_EXPORT: f"{_SOURCES}.torch_export:TorchExportConverter",
    SourceKind.TORCHSCRIPT: f"{_SOURCES}.torchscript:TorchScriptConverter",
    SourceKind.TORCH_FACTORY: f"{_SOURCES}.torch_factory:TorchFactoryConverter",
    SourceKind.HUGGING_FACE: f"{_SOURCES}.huggingface:HuggingFaceConverter",
    SourceKind.SAVED_MODEL: f"{_SOURCES}.savedmodel:SavedModelConverter",
    SourceKind.KERAS: f"{_SOURCES}.keras_model:KerasConverter",
    SourceKind.GRAPH_DEF: f"{_SOURCES}.graphdef:GraphDefConverter",
    SourceKind.TFLITE: f"{_SOURCES}.tflite:TfliteConverter",
    SourceKind.JAX_FACTORY: f"{_SOURCES}.jax_factory:JaxConverter",
    SourceKind.SKOPS: f"{_SOURCES}.sklearn:SklearnConverter",
    SourceKind.PICKLE: f"{_SOURCES}.sklearn:SklearnConverter",
    SourceKind.XGBOOST: f"{_SOURCES}.boosting:BoostingConverter",
    SourceKind.LIGHTGBM: f"{_SOURCES}.boosting:BoostingConverter",
    SourceKind.ONNX: f"{_SOURCES}.onnx_file:OnnxConverter",
}

EXTRAS: Mapping[SourceKind, str] = {
    SourceKind.TORCH_EXPORT: "torch",
    SourceKind.TORCHSCRIPT: "torch",
    SourceKind.TORCH_FACTORY: "torch",
    SourceKind.HUGGING_FACE: "torch",
    SourceKind.SAVED_MODEL: "tensorflow",
    SourceKind.KERAS: "tensorflow",
    SourceKind.GRAPH_DEF: "tensorflow",
    SourceKind.TFLITE: "tensorflow",
    SourceKind.JAX_FACTORY: "jax",
    SourceKind.SKOPS: "sklearn",
    SourceKind.PICKLE: "sklearn",
    SourceKind.XGBOOST: "boosting",
    SourceKind.LIGHTGBM: "boosting",
    SourceKind.ONNX: "cpu",
}
"""The extra of this distribution that brings what a kind needs."""


def converter_for(kind: SourceKind) -> Converter:
    """A fresh converter for `kind`.

    Raises: FrameworkMissing when a package that its module needs is not installed; CommandFailed when a stranger's
    converter cannot be loaded.
    """
    found = _strangers(kind)
    if found is None:
        module, _, name = BUILT_IN[kind].partition(":")
        try:
            found = getattr(import_module(module), name)
        except ModuleNotFoundError as exc:
            raise missing(kind, exc) from exc
    made = found() if isinstance(found, type) else found
    return cast("Converter", made)


def factory_kind(source: str) -> SourceKind:
    """The framework of a factory that detection could not tell: by what its module's file imports, else PyTorch.

    Runs in the worker: finding a module inside a package imports the package.
    Raises: BadSource when the module is not there.
    """
    where = source.rpartition(":")[0]
    if where.endswith(".py"):
        return framework_named_in(Path(where), where) or SourceKind.TORCH_FACTORY
    try:
        spec = find_spec(where)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise BadSource(
            f"there is no module '{where}' in {sys.executable}",
            remedy="start the import in the folder that holds it, or name the file: path/to/file.py:factory",
        )
    found = framework_named_in(Path(spec.origin), where) if spec.origin and spec.origin.endswith(".py") else None
    return found or SourceKind.TORCH_FACTORY


def _strangers(kind: SourceKind) -> Any:
    for point in entry_points(group=GROUP):
        if point.name == kind.value:
            try:
                return point.load()
            except Exception as exc:
                raise CommandFailed(
                    f"the converter for {kind.value} ({point.value}) cannot be loaded: {type(exc).__name__}: {exc}"
                ) from exc
    return None


def missing(kind: SourceKind, error: ModuleNotFoundError) -> CommandFailed:
    """The failure to tell when `error` came up while a source of `kind` was handled."""
    package = (error.name or "a package").partition(".")[0]
    if package == "tensorquay_convert":
        return CommandFailed(f"this installation has no converter for {kind.value} ({error.name} is missing)")
    return framework_missing(kind, package)


def framework_missing(kind: SourceKind, package: str) -> FrameworkMissing:
    """ "importing a .pt2 needs torch, which is not installed", with the command that helps."""
    return FrameworkMissing(
        f"importing {kind.value} needs {package}, which is not installed in {sys.executable}",
        remedy=f"pip install 'tensorquay[{EXTRAS[kind]}]', or name an interpreter that has it with --python",
        facts={"package": package, "extra": EXTRAS[kind], "interpreter": sys.executable},
    )
