"""Which source opens an object of a framework that is in hand (Python API only), told by where its class comes from."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tensorquay_convert import registry
from tensorquay_convert.api import OpenSource
from tensorquay_convert.errors import BadSource, CommandFailed
from tensorquay_convert.job import ImportJob, SourceKind

_HOMES = (
    ("torch", SourceKind.TORCH_FACTORY, "tensorquay_convert.sources.torch_module:open_module"),
    ("keras", SourceKind.KERAS, "tensorquay_convert.sources.keras_model:open_model"),
    ("tensorflow", SourceKind.SAVED_MODEL, "tensorquay_convert.sources.savedmodel:open_function"),
    ("sklearn", SourceKind.SKOPS, "tensorquay_convert.sources.sklearn:open_estimator"),
    ("xgboost", SourceKind.XGBOOST, "tensorquay_convert.sources.boosting:open_model"),
    ("lightgbm", SourceKind.LIGHTGBM, "tensorquay_convert.sources.boosting:open_model"),
    ("jaxlib", SourceKind.JAX_FACTORY, "tensorquay_convert.sources.jax_factory:open_function"),
    ("jax", SourceKind.JAX_FACTORY, "tensorquay_convert.sources.jax_factory:open_function"),
    ("flax", SourceKind.JAX_FACTORY, "tensorquay_convert.sources.jax_factory:open_function"),
)
"""First package of a class among an object's bases → its kind, and `open(object, example_inputs, job)`."""


def open_object(source: Any, example_inputs: Any, job: ImportJob) -> OpenSource:
    """The object in its framework's hands.

    Args: example_inputs: one call's inputs, where the framework needs them; documented at each `open`.
    Raises: BadSource for an object of no known framework, or one that our build opens only as a file.
    """
    packages = [cls.__module__.partition(".")[0] for cls in type(source).__mro__]
    for package, kind, home in _HOMES:
        if package in packages:
            return _opener(kind, home)(source, example_inputs, job)
    if callable(source):
        # A plain function tells no framework; only JAX takes those.
        _, kind, home = _HOMES[-1]
        return _opener(kind, home)(source, example_inputs, job)
    raise BadSource(
        f"an object of class {type(source).__qualname__} is no model of a known framework",
        remedy="give a path, a torch.nn.Module, or a JAX function",
    )


def _opener(kind: SourceKind, home: str) -> Callable[..., OpenSource]:
    module, _, name = home.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as exc:
        raise registry.missing(kind, exc) from exc
    if found is None:
        raise BadSource(
            f"an object of {kind.value} cannot be imported as it is", remedy="save it, and import the file or folder"
        )
    if not callable(found):
        raise CommandFailed(f"{home} is no function")
    return found  # type: ignore[no-any-return]
