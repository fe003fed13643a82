"""A frozen TensorFlow graph as an OpenSource: run, converted, looked into.

SavedModels, Keras models and frozen graphs all come here. The graph keeps the model's own layout at its interface
(images stay NHWC); tf2onnx moves channels inside.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tensorquay_convert.api import Exported, Say, SourceFacts
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import tensorflow_export
from tensorquay_convert.sources.tensorflow_axes import settle, with_values
from tensorquay_convert.sources.tensorflow_batch import axis_names, chosen, freed
from tensorquay_convert.sources.tensorflow_graph import Frozen, Run, Session, attempt, quiet, runner, versions
from tensorquay_convert.sources.tensorflow_inside import Layout, index_ranges, layouts
from tensorquay_convert.tensors import Array, Arrays, TensorSpec

_AT_ONCE = 64
"""Tensors fetched in one run by `values_inside`: bounds what is held, not what can be asked."""


@dataclass(frozen=True, slots=True)
class Description:
    """What `SourceFacts` gets beside the interface."""

    kind: SourceKind
    shown: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


class TensorflowSource:
    """An OpenSource over a frozen graph.

    Args:
        run: the model as its framework runs it, before it was frozen; used unless a fixed axis has to be freed.
    Raises: Unsupported when the batch axis is fixed and cannot be freed, and `job` does not say `static`.
    """

    def __init__(self, job: ImportJob, frozen: Frozen, run: Run, about: Description) -> None:
        self._job = job
        frozen = chosen(frozen, job)
        frozen, run, notes = freed(job, frozen, run, about.shown)
        values = index_ranges(frozen.graph_def, {each.tensor: each.name for each in frozen.inputs})
        frozen = replace(frozen, inputs=with_values(frozen.inputs, values))
        # A large graph is not imported once more only to be asked for shapes.
        asked = attempt(run if frozen.large else runner(frozen))
        interface, unsure = settle(frozen.inputs, frozen.outputs, axis_names(job), asked)
        self._frozen: Frozen | None = frozen
        self._run: Run | None = run
        self._optimized: Frozen | None = None
        self._exported: Path | None = None
        self._facts = SourceFacts(
            kind=about.kind,
            shown=about.shown,
            interface=interface,
            files=about.files,
            versions=versions(*about.packages),
            notes=(*about.notes, *notes, *unsure, *layout_notes(interface.inputs)),
        )

    @property
    def facts(self) -> SourceFacts:
        """See `OpenSource`."""
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        """See `OpenSource`."""
        assert self._run is not None
        with quiet():
            answers = self._run(inputs)
        return {spec.name: answers[spec.name] for spec in self._facts.interface.outputs}

    def export(self, target: Path, say: Say) -> Exported:
        """See `OpenSource`."""
        import tensorflow as tf  # noqa: PLC0415

        assert self._frozen is not None
        opset = tensorflow_export.opset_of(self._job.opset)
        with quiet():
            say("optimizing the TensorFlow graph")
            self._optimized = ready = _optimized(self._frozen)
            say(f"converting {len(ready.graph_def.node)} nodes with tf2onnx, opset {opset}")
            constants = None
            graph_def = ready.graph_def
            if ready.large:
                from tf2onnx import tf_utils  # noqa: PLC0415

                constants = tf_utils.compress_graph_def(graph_def)
            with tf.Graph().as_default() as graph, tf.device("/cpu:0"):
                tf.import_graph_def(graph_def, name="")
                model = tensorflow_export.convert(graph, _wanted(ready, constants, self._facts.shown), opset)
            tensorflow_export.write(model, self._facts.interface, target, ready.weights_bytes)
        self._exported = target
        return tensorflow_export.exported(opset)

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        """See `OpenSource`. tf2onnx keeps TensorFlow's tensor names, but moves channels: those values are turned."""
        if self._optimized is None or self._optimized.large or self._exported is None:
            return {}
        with quiet():
            return _values(self._optimized, inputs, names, layouts(self._exported))

    def close(self) -> None:
        """See `OpenSource`."""
        self._frozen = self._optimized = self._run = None
        gc.collect()


def layout_notes(inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Says how images go in, where that is what a client gets wrong first."""
    images = [spec.name for spec in inputs if len(spec.shape or ()) == 4 and (spec.shape or ())[3] in {1, 3, 4}]
    if not images:
        return ()
    return (f"'{', '.join(images)}': channels come last (NHWC), as in the source; they are moved inside the model",)


def _optimized(frozen: Frozen) -> Frozen:
    """After TensorFlow's own folding and inlining, which tf2onnx builds on. A large graph stays: it cannot be sent."""
    import tensorflow as tf  # noqa: PLC0415
    from tf2onnx import tf_loader  # noqa: PLC0415

    if frozen.large:
        return frozen
    entered, left = [each.tensor for each in frozen.inputs], [each.tensor for each in frozen.outputs]
    fixed = tf_loader.fix_freezing_errors_part2(frozen.graph_def)
    with tf.Graph().as_default():
        tf.compat.v1.import_graph_def(fixed, name="")
        return replace(frozen, graph_def=tf_loader.tf_optimize(entered, left, fixed))


def _wanted(frozen: Frozen, constants: Any, what: str) -> tensorflow_export.Wanted:
    return tensorflow_export.Wanted(
        arguments={
            "input_names": [each.tensor for each in frozen.inputs],
            "output_names": [each.tensor for each in frozen.outputs],
            "const_node_values": constants,
        },
        renamed={each.tensor: each.name for each in (*frozen.inputs, *frozen.outputs)},
        weights_bytes=frozen.weights_bytes,
        what=what,
    )


def _values(
    frozen: Frozen, inputs: Arrays, names: Sequence[str], laid: Mapping[str, Layout | None]
) -> dict[str, Array]:
    """Values of tensors by TensorFlow's names, laid out as in the ONNX model; none that have another rank there."""
    session = Session(frozen)
    known = [name for name in names if session.has(name)]
    found: dict[str, Array] = {}
    for start in range(0, len(known), _AT_ONCE):
        asked = known[start : start + _AT_ONCE]
        for name, value in zip(asked, session.fetch(inputs, asked), strict=True):
            layout = laid.get(name)
            if layout is not None and layout.rank == value.ndim:
                found[name] = np.moveaxis(value, -1, 1) if layout.channels_first else value
    session.close()
    return found
