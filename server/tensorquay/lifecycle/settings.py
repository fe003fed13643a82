"""How the lifecycle behaves, and how its start went: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorquay.config.server import ControlMode
from tensorquay.lifecycle.gather import UploadLimits
from tensorquay.repository.files import ScanLimits


@dataclass(frozen=True, slots=True)
class LifecycleSettings:
    """How the manager behaves. Times in seconds; `load_models` is for explicit mode, "*" means all."""

    mode: ControlMode = ControlMode.NONE
    load_models: tuple[str, ...] = ()
    poll_s: float = 15.0
    settle_s: float = 1.0
    scan_limits: ScanLimits = field(default_factory=ScanLimits)
    upload_limits: UploadLimits = field(default_factory=UploadLimits)


@dataclass(frozen=True, slots=True)
class ModelResult:
    """How the initial load of one model ended: versions that serve, and what is wrong (empty when nothing)."""

    name: str
    versions: tuple[int, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StartReport:
    """The outcome of `start`: every model that was to be loaded, by name."""

    models: tuple[ModelResult, ...]

    @property
    def failed(self) -> tuple[ModelResult, ...]:
        """The models of which a wanted version does not serve."""
        return tuple(model for model in self.models if model.problems)
