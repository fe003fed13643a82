"""What one load needs to know: plain values, handed to a thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tensorquay.config.model import ModelConfig
from tensorquay.core.ids import VersionId
from tensorquay.repository.snapshot import Fingerprint, SourceFiles


@dataclass(frozen=True, slots=True)
class Recipe:
    """Load `model_path` as `id`. `folder` is the model's own folder (labels, warm-up data).

    `imported` is what the model was made from; then the configuration may name that kind's platform. `repository` is
    the number of the one it lies in, from 0; None: in none, it came with a load request.
    """

    id: VersionId
    folder: Path
    model_path: Path
    declared: ModelConfig | None
    imported: SourceFiles | None = None
    repository: int | None = None


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """Import `source` for `id`; the files under it are as `fingerprint` says, paths relative to the version folder."""

    id: VersionId
    source: SourceFiles
    fingerprint: Fingerprint
    declared: ModelConfig | None
