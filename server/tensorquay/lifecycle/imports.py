"""What the lifecycle asks of whoever turns models of other kinds into ONNX, and the answer when nobody does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tensorquay.core.errors import ModelFailed
from tensorquay.lifecycle.recipe import ImportOrder

SayProgress = Callable[[str], None]
"""Takes a few words on what an import is doing; called on the loop, any number of times."""


class ImportsModels(Protocol):
    """An importer. Loop-confined; cancelling `bring` ends what it began."""

    async def bring(self, order: ImportOrder, say: SayProgress) -> Path:
        """The ONNX model for `order`: imported and proven now, or earlier from the same files.

        Raises: ServingError in one sentence, with what would help.
        """
        ...


class NoImports:
    """Imports nothing and says so."""

    async def bring(self, order: ImportOrder, _say: SayProgress) -> Path:
        """See `ImportsModels.bring`."""
        raise ModelFailed(
            f"no model.onnx; found {order.source.name}, {order.source.shown}, and importing is switched off here: "
            "start with --auto-import=true, or convert it with 'tensorquay import'"
        )
