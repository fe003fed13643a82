"""Backends by name: ours, and those that other distributions bring through an entry point.

Decides only which class a name means; a backend is made on first use and kept, because its runtime is loaded once per
process anyway. Third parties register a callable without arguments that returns a `Backend`, in the entry-point group
`tensorquay.backends`, under the name configurations use.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

from tensorquay.backends.api import Backend
from tensorquay.core.errors import ModelFailed, ServingError

BackendFactory: TypeAlias = Callable[[], Backend]

ENTRY_POINT_GROUP = "tensorquay.backends"
DEFAULT = "onnxruntime"


class BackendRegistry:
    """Makes each backend at most once. Thread-safe.

    Args: extra: factories by name, before those of entry points and after ours (tests, embedding programs).
    """

    def __init__(self, extra: Mapping[str, BackendFactory] | None = None) -> None:
        self._factories: dict[str, BackendFactory] = {DEFAULT: _onnxruntime, **(extra or {})}
        self._made: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        """Every name `get` knows, sorted."""
        return tuple(sorted({*self._factories, *_entry_points()}))

    def get(self, name: str = DEFAULT) -> Backend:
        """The backend called `name`; "" means the default. Blocking the first time: it imports a runtime.

        Raises: ModelFailed for an unknown name, listing the known ones, or when the backend cannot be made.
        """
        name = name or DEFAULT
        with self._lock:
            found = self._made.get(name)
            if found is None:
                found = self._made[name] = self._make(name)
            return found

    def _make(self, name: str) -> Backend:
        factory = self._factories.get(name)
        try:
            if factory is None:
                point = _entry_points().get(name)
                if point is None:
                    raise ModelFailed(f"unknown backend '{name[:64]}', expected one of {', '.join(self.names())}")
                factory = point.load()
            backend = factory()
        except ServingError:
            raise
        except Exception as exc:
            # Somebody else's code: whatever it raises is the reason why this backend cannot be had.
            raise ModelFailed(f"backend '{name}' cannot be loaded: {type(exc).__name__}") from exc
        missing = [part for part in ("name", "gpus", "inspect", "load") if not hasattr(backend, part)]
        if missing:
            raise ModelFailed(f"backend '{name}' is not a backend: it has no {', '.join(missing)}")
        return backend


def _onnxruntime() -> Backend:
    # By name, so that listing backends does not import a runtime.
    module = importlib.import_module("tensorquay.backends.onnxruntime.backend")
    backend: Backend = module.OnnxRuntimeBackend()
    return backend


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
