"""Load one version, from the file to warm sessions. Blocking: called in a load thread; touches nothing shared.

The order is cheapest refusal first: signature, configuration, labels, instances, and only then sessions. Whatever
fails, no session stays open.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tensorquay.backends.api import Backend, GraphSignature, LoadRequest, Session, TellsFacts
from tensorquay.config.advice import OPTIMIZATION_FILE
from tensorquay.config.effective import Defaults, effective, signature
from tensorquay.config.machine import CpuFacts
from tensorquay.config.model import EffectiveConfig, InlineRun, InstanceKind, ModelConfig
from tensorquay.config.rules import without_gpu
from tensorquay.core.clock import Clock
from tensorquay.core.errors import ServingError
from tensorquay.core.signature import Signature
from tensorquay.lifecycle.instances import PlannedSession, plan_instances
from tensorquay.lifecycle.labels import read_labels
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.optimized import Advised, Here, advise
from tensorquay.lifecycle.recipe import Recipe
from tensorquay.lifecycle.warmup import WarmupReport, warm_up

_log = logging.getLogger("tensorquay.lifecycle")

BackendChoice = Callable[[ModelConfig], Backend]
"""The backend for a configuration (its `backend` or `platform`, which may be empty); raises ServingError for none."""


class Loader:
    """Loads versions. Stateless after construction; several threads may call it at once.

    Args:
        backend_for: picks the runtime.
        thread_budget: intra-op threads a session may have whose configuration does not say.
        defaults: for what neither a model's configuration nor its graph says.
        cpu: this machine's, for models that were optimised for one; None: not known.
    """

    def __init__(
        self,
        backend_for: BackendChoice,
        *,
        thread_budget: int,
        clock: Clock,
        defaults: Defaults | None = None,
        cpu: CpuFacts | None = None,
    ) -> None:
        self._backend_for = backend_for
        self._thread_budget = thread_budget
        self._defaults = defaults or Defaults()
        self._clock = clock
        self._cpu = cpu

    def load(self, recipe: Recipe) -> LoadedVersion:
        """A warm version.

        Raises: ServingError saying what is wrong with the model; whatever else a runtime raises passes through.
        Nothing stays open then.
        """
        started_ns = self._clock.now_ns()
        recipe = _as_onnx(recipe)
        backend = self._backend_for(recipe.declared if recipe.declared is not None else ModelConfig())
        graph = backend.inspect(recipe.model_path)
        runtime = backend.facts() if isinstance(backend, TellsFacts) else None
        here = Here(self._cpu, runtime, self._thread_budget, backend.gpus)
        advised = advise(recipe, here)
        try:
            parts = self._open(recipe, backend, graph, advised)
        except ServingError as exc:
            if advised.execution is None:
                raise
            # What a file advises must not keep a model from serving that serves without it.
            parts = self._open(recipe, backend, graph, replace(advised, execution=None))
            note = (
                f"the settings of {OPTIMIZATION_FILE} are not applied, the model does not load with them: {exc.message}"
            )
            advised = replace(advised, execution=None, notes=(*advised.notes, note))
        load_ns = self._clock.now_ns() - started_ns
        return _describe(recipe, backend, replace(parts, load_ns=load_ns, advised=advised, here=here))

    def _open(self, recipe: Recipe, backend: Backend, graph: GraphSignature, advised: Advised) -> _Parts:
        """Warm sessions; none stays open when one fails."""
        config, takes = self._settle(recipe, graph, advised)
        planned = plan_instances(
            config.config.instance_groups,
            backend.gpus,
            config.config.execution,
            no_gpu_because=backend.no_gpu_because,
        )
        made: list[Session] = []
        try:
            for each in planned:
                made.append(self._make(backend, recipe, config, each))  # noqa: PERF401  `made` must be exact if one fails
            report = warm_up(made, takes, config.config.warmup, recipe.folder, self._clock)
            if report.batch_lost and config.origins["max_batch_size"] == "default":
                # Nobody said that it batches, the graph only looked like it: then it serves one request at a time.
                config, takes = self._settle(recipe, graph, advised, report.batch_lost)
                report = warm_up(made, takes, config.config.warmup, recipe.folder, self._clock)
        except BaseException:
            close_sessions(made)
            raise
        return _Parts(config, takes, planned, tuple(made), report)

    def _settle(
        self, recipe: Recipe, graph: GraphSignature, advised: Advised, not_a_batch: str = ""
    ) -> tuple[EffectiveConfig, Signature]:
        config = effective(
            recipe.id.name,
            recipe.declared,
            graph.inputs,
            graph.outputs,
            defaults=self._defaults,
            not_a_batch=not_a_batch,
            advice=advised.execution,
        )
        labels = read_labels(recipe.folder, config.config)
        return config, signature(config, graph.inputs, graph.outputs, labels)

    def _make(self, backend: Backend, recipe: Recipe, config: EffectiveConfig, planned: PlannedSession) -> Session:
        execution = config.config.execution
        return backend.load(
            LoadRequest(
                model_path=recipe.model_path,
                # A session that fell back must not be asked for the GPU again.
                execution=without_gpu(execution) if planned.fallback else execution,
                kind=planned.kind,
                device_id=planned.device_id,
                thread_budget=self._thread_budget,
            )
        )


def close_sessions(sessions: Sequence[Session]) -> None:
    """Close each of `sessions`; one that fails to close does not keep the others open."""
    for session in sessions:
        try:
            session.close()
        except Exception:  # noqa: BLE001  a runtime may raise anything; the version is gone either way
            _log.exception("a session did not close cleanly")


def collect_and_freeze() -> None:
    """Take what a load left out of the garbage collector's rounds, so that no round stops requests later.

    Thawed first: frozen garbage of a version unloaded since would otherwise stay for ever.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _as_onnx(recipe: Recipe) -> Recipe:
    """`recipe` without what its configuration says of the format it had before it was imported."""
    if recipe.imported is None or recipe.declared is None:
        return recipe
    return replace(recipe, declared=replace(recipe.declared, platform="", backend="", default_model_filename=""))


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a load has made when all went well."""

    config: EffectiveConfig
    signature: Signature
    planned: tuple[PlannedSession, ...]
    sessions: tuple[Session, ...]
    warmup: WarmupReport
    load_ns: int = 0
    advised: Advised = field(default_factory=Advised)
    here: Here = field(default_factory=Here)


def _describe(recipe: Recipe, backend: Backend, parts: _Parts) -> LoadedVersion:
    config = parts.config.config
    placements = tuple(session.placement for session in parts.sessions)
    kinds = [placed.kind or each.kind for each, placed in zip(parts.planned, placements, strict=True)]
    on_cpu = all(kind is not InstanceKind.GPU for kind in kinds)
    mode = config.execution.inline
    inline = mode is InlineRun.ALWAYS or (mode is InlineRun.AUTO and parts.warmup.cheap and on_cpu)
    slots = tuple(
        session for each, session in zip(parts.planned, parts.sessions, strict=True) for _ in range(each.slots)
    )
    told = [each.fallback for each in parts.planned if each.fallback]
    # Instances on several devices mostly say the same: each sentence once.
    notes = tuple(
        dict.fromkeys(
            (*told, *(note for each in placements for note in each.notes), *parts.warmup.notes, *parts.advised.notes)
        )
    )
    properties = {
        "providers": "; ".join(dict.fromkeys(",".join(each.providers) for each in placements)),
        "intra_op_threads": str(placements[0].intra_op_threads),
        "instances": str(len(slots)),
        "runs_on": "event loop" if inline else "worker thread",
        "fastest_run_us": str(parts.warmup.run_ns // 1000),
    }
    if parts.signature.unbatched_because:
        properties["unbatched_because"] = parts.signature.unbatched_because
    if parts.advised.shown:
        properties["optimized"] = parts.advised.shown
    if recipe.imported is not None:
        properties["imported_from"] = recipe.imported.shown
    if notes:
        properties["notes"] = "; ".join(notes)
    return LoadedVersion(
        id=recipe.id,
        signature=parts.signature,
        effective=parts.config,
        sessions=slots,
        placements=placements,
        inline=inline,
        kind=InstanceKind.CPU if on_cpu else InstanceKind.GPU,
        run_ns=parts.warmup.run_ns,
        load_ns=parts.load_ns,
        platform=config.platform or f"{backend.name}_onnx",
        backend=config.backend or backend.name,
        notes=notes,
        properties=properties,
        files=recipe.model_path.parent,
        advised=parts.advised,
        here=parts.here,
    )
