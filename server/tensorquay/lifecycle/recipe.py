"""What one load needs to know: plain values, handed to a thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tensorquay.config.model import ModelConfig
from tensorquay.core.ids import VersionId


@dataclass(frozen=True, slots=True)
class Recipe:
    """Load `model_path` as `id`. `folder` is the model's own folder (labels, warm-up data)."""

    id: VersionId
    folder: Path
    model_path: Path
    declared: ModelConfig | None
