"""What the lifecycle tells whoever optimises models in the background, and that one where nobody does."""

from __future__ import annotations

import logging
from typing import Protocol

from tensorquay.config.model import BackgroundOptimization
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.recipe import Recipe

_log = logging.getLogger("tensorquay.lifecycle")


class OptimizesVersions(Protocol):
    """Decides by itself whether a version is worth it. Loop-confined; no call waits or raises."""

    def consider(self, recipe: Recipe, loaded: LoadedVersion) -> None:
        """`loaded` has become READY, made by `recipe`."""
        ...

    def forget(self, version: VersionId) -> None:
        """`version` is being unloaded: end what was begun for it."""
        ...

    async def close(self) -> None:
        """End everything, and wait until it has ended."""
        ...


class NoOptimizing:
    """Optimises nothing, and says so when a model asks for it."""

    def consider(self, _recipe: Recipe, loaded: LoadedVersion) -> None:
        """See `OptimizesVersions.consider`."""
        if loaded.effective.config.optimization.background is not BackgroundOptimization.NEVER:
            _log.info("%s: asks to be optimised in the background, which is switched off here", loaded.id.key)

    def forget(self, version: VersionId) -> None:
        """See `OptimizesVersions.forget`."""

    async def close(self) -> None:
        """See `OptimizesVersions.close`."""
