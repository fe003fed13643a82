"""What a pass is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.results import NodeSensitivity, PassReport, Subject
from tensorquay_convert.optimize.samples import Samples
from tensorquay_convert.optimize.variants import Settings

Say = Callable[[str], None]
"""Takes a few words on what is being done now; "3 of 10" in it moves a bar."""


@dataclass(slots=True)
class Workbench:
    """What a pass may use. Owner: the one job that runs passes.

    Args:
        baseline: the model before any pass, which mixed precision is judged against.
        scratch: an empty folder for temporary files, removed afterwards by its owner.
        rules: the gate that mixed precision works towards.
        settings: what the variant will run with.
        patience_s: what a pass that tries many things may take, about.
        sensitivity: filled by the pass that measures it.
    """

    baseline: Path
    subject: Subject
    samples: Samples
    scratch: Path
    rules: GateRules
    settings: Settings
    seed: int
    say: Say
    features: tuple[str, ...] = ()
    patience_s: float = 60.0
    sensitivity: list[NodeSensitivity] = field(default_factory=list)


class Pass(Protocol):
    """Rewrites a model. Made by its registry entry from a step's parameters."""

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """Write the changed model to `target`, large weights beside it (`files.save`); leave `source` as it is.

        When it changes nothing it still writes `target`, and says so in its report.
        Raises: CommandFailed with one sentence when it cannot be applied to this model or needs what is not installed;
            whatever a library raises passes through and costs this variant only.
        """
        ...


MakePass = Callable[[Mapping[str, Any]], Pass]
"""A pass from a step's parameters. Raises: ValueError for parameters it does not know."""
