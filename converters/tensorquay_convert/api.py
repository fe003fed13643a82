"""What a converter has to offer, and nothing of how it is run.

A converter lives in `sources/` (or in a stranger's package, through the entry-point group "tensorquay.converters") and
is only ever used inside a worker process of its own: it may import its framework, and crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.tensors import Arrays, Interface

Say = Callable[[str], None]
"""Tells the user, in a few words, what is being done now or what is worth knowing. "3 of 10" in it moves a bar."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known about an opened source before anything is converted.

    `shown` is one line for people ("a PyTorch exported program, 2 inputs, 1.2 M parameters"). `files` are all files
    the model is made of: their digests go into the provenance. `versions`: packages that take part, by name.
    `side_files` go beside the model under the given names (tokenizers …). `labels`: class names by output, where the
    source knows them. `notes`: what the user should know ("signature 'serving_default' chosen; also there: 'embed'").
    """

    kind: SourceKind
    shown: str
    interface: Interface
    files: tuple[Path, ...]
    versions: Mapping[str, str]
    side_files: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did. `attempts`: what was tried before and why it was not it, in order ("dynamo: …")."""

    exporter: str
    opset: int
    attempts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class OpenSource(Protocol):
    """A source in its framework's hands. Used by one thread; `close` ends it."""

    @property
    def facts(self) -> SourceFacts:
        """See `SourceFacts`."""
        ...

    def run(self, inputs: Arrays) -> Arrays:
        """The framework's own answer, in inference mode.

        Args: inputs: every input of the interface that is not optional, by name; shapes and dtypes fit it.
        Returns: every output of the interface by name, as numpy arrays of its dtype, on the CPU.
        Raises: whatever the framework raises; the caller words it.
        """
        ...

    def export(self, target: Path, say: Say) -> Exported:
        """Write the ONNX model to `target` (external data only beside it, above 1.5 GB).

        The graph's inputs and outputs have the interface's names and order, dynamic axes its axis names.
        Raises: Unsupported, naming operator, node and, where known, the line of the model's source.
        """
        ...

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """The framework's own values of tensors inside the exported graph, for those of `names` that it can tell.

        Args: names: of values (node outputs) in the ONNX graph that `export` wrote.
        Returns: what is known; empty when this framework cannot look inside. Never raises for unknown names.
        """
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...


class Converter(Protocol):
    """Opens sources of some kinds."""

    kinds: tuple[SourceKind, ...]
    extra: str
    """The extra of this distribution that brings the framework ("torch"); empty when nothing is needed."""

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """Load the source into the framework.

        Raises: BadSource for what cannot be read, is incomplete or not trusted; FrameworkMissing; Unsupported.
        """
        ...
