"""Do the jobs of an optimisation: in the worker, from plain values to plain values. One job, one process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorquay_convert import provenance
from tensorquay_convert.optimize import choose, files, gate, measure
from tensorquay_convert.optimize.goals import Objective
from tensorquay_convert.optimize.jobs import (
    MODEL,
    Prepared,
    PrepareJob,
    Reference,
    ReferenceJob,
    Sat,
    SittingJob,
    TrialJob,
    Tried,
    key_of,
)
from tensorquay_convert.optimize.machine import machine_of
from tensorquay_convert.optimize.passes import registry
from tensorquay_convert.optimize.passes.api import Say, Workbench
from tensorquay_convert.optimize.plain import from_plain, to_plain
from tensorquay_convert.optimize.prepare import prepare
from tensorquay_convert.optimize.results import NodeSensitivity, PassReport, Point, Sitting
from tensorquay_convert.optimize.samples import Samples
from tensorquay_convert.optimize.session import Opened, open_session

_MIXED_SHARE = 1 / 5
"""Of the time budget, for a pass that builds and judges many models."""
_SLOW_SHARE = 1 / 750
"""A point is left out when one run of the baseline takes more than this share of the time budget."""


_JUDGING_S, _JUDGING_SHARE = 5.0, 1 / 40
"""What judging one variant may take, at least and as a share of the time budget."""


def perform(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """Do what `request_of` wrote. Returns: plain values of the job's result. Raises: CommandFailed."""
    kind, work = _JOBS[request["job"]]
    return {"event": "done", "result": to_plain(work(from_plain(kind, request["values"]), say))}


def _prepare(job: PrepareJob, say: Say) -> Prepared:
    job.samples.mkdir(parents=True, exist_ok=True)
    return Prepared(*prepare(job.model, job.name, job.data, job.labels, job.goals, job.samples, say))


def _reference(job: ReferenceJob, say: Say) -> Reference:
    samples = Samples(job.samples)
    baseline, again = open_session(job.model, job.settings), open_session(job.model, job.settings)
    points, notes = _worth_timing(baseline, samples, job, say)
    seconds = max(_JUDGING_S, job.budget_s * _JUDGING_SHARE)
    notes += gate.reference(baseline, samples, job.reference, say, seconds=seconds, rules=job.rules)
    sittings = []
    for number, point in enumerate(points, start=1):
        say(f"timing the model against itself, {point.name}, {number} of {len(points)}")
        sittings.append(_sit(baseline, again, samples, point, job.seconds, job.seed))
    return Reference(_digest(job.model), points, tuple(sittings), machine_of(baseline), baseline.nodes, tuple(notes))


def _worth_timing(
    baseline: Opened, samples: Samples, job: ReferenceJob, say: Say
) -> tuple[tuple[Point, ...], list[str]]:
    """The points at which a run takes little enough of the budget; the fastest one always stays."""
    say("running the model as it is")
    took = []
    for point in job.points:
        run = baseline.prepared(samples.timing(point))
        run()
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    most = max(min(took), job.budget_s * _SLOW_SHARE)
    kept = tuple(point for point, seconds in zip(job.points, took, strict=True) if seconds <= most)
    notes = [
        f"{point.name} was not timed: one run takes {seconds:.1f} s, too much of the time budget"
        for point, seconds in zip(job.points, took, strict=True)
        if seconds > most
    ]
    return kept, notes


def _sit(baseline: Opened, variant: Opened, samples: Samples, point: Point, seconds: float, seed: int) -> Sitting:
    inputs = samples.timing(point)
    return measure.sit(baseline.prepared(inputs), variant.prepared(inputs), point, seconds=seconds, seed=seed)


def _trial(job: TrialJob, say: Say) -> Tried:
    made, passes, sensitivity = _made(job, say)
    digest = _digest(made)
    tried = Tried(passes, digest, files.size(made), sensitivity=sensitivity)
    if passes and not any(each.changed for each in passes):
        return tried
    same = job.known.get(key_of(digest, job.variant.settings))
    if same is not None:
        return replace(tried, same_as=same)
    say("loading it")
    variant = open_session(made, job.variant.settings)
    samples = Samples(job.samples)
    say("judging its answers")
    judgement = gate.judge(variant, samples, job.reference, job.goals.gate, say)
    tried = replace(tried, judgement=judgement, nodes=variant.nodes)
    baseline = open_session(job.model, job.baseline_settings)
    sittings: list[Sitting] = []
    # What fails the gate cannot win: whether mixed precision is worth its time shows at the cheapest point.
    points = _in_order(job) if judgement.passed else job.points[:1]
    for number, point in enumerate(points, start=1):
        say(f"timing it, {point.name}, {number} of {len(points)}")
        sittings.append(_sit(baseline, variant, samples, point, job.seconds, job.goals.seed))
        so_far = [measure.timing([each]) for each in sittings]
        left = len(points) - number
        if left and not choose.can_still_win(so_far, job.to_beat, job.noise, job.goals.objective):
            return replace(tried, sittings=tuple(sittings), cut=True)
    return replace(tried, sittings=tuple(sittings))


def _in_order(job: TrialJob) -> tuple[Point, ...]:
    """The points that count first: what loses there is timed no further."""
    return job.points[::-1] if job.goals.objective is Objective.THROUGHPUT else job.points


def _made(job: TrialJob, say: Say) -> tuple[Path, tuple[PassReport, ...], tuple[NodeSensitivity, ...]]:
    """The variant's file, made by its passes one after the other; without any, the model itself."""
    if not job.variant.steps:
        return job.model, (), ()
    scratch = job.target / "scratch"
    scratch.mkdir(parents=True)
    bench = Workbench(
        baseline=job.model,
        subject=job.subject,
        samples=Samples(job.samples),
        scratch=scratch,
        rules=job.goals.gate,
        settings=job.variant.settings,
        seed=job.goals.seed,
        say=say,
        patience_s=job.goals.time_budget_s * _MIXED_SHARE,
        features=tuple(provenance.processor()[1]),
    )
    source, reports = job.model, []
    last = len(job.variant.steps)
    for number, step in enumerate(job.variant.steps, start=1):
        say(f"{step.name}, pass {number} of {last}")
        folder = job.target if number == last else job.target / f"pass-{number}"
        folder.mkdir(exist_ok=True)
        started = time.monotonic()
        report = registry.make(step).apply(source, folder / MODEL, bench)
        reports.append(replace(report, seconds=round(time.monotonic() - started, 3)))
        source = folder / MODEL
    for each in (scratch, *job.target.glob("pass-*")):
        shutil.rmtree(each, ignore_errors=True)
    return source, tuple(reports), tuple(bench.sensitivity)


def _digest(model: Path) -> str:
    """Of the file and what lies beside it under its name: its weights."""
    parts = [model, *sorted(model.parent.glob(f"{model.name}.*"))] if model.parent.is_dir() else [model]
    return provenance.source_digest(provenance.digests((each for each in parts if each.is_file()), model.parent))


def _again(job: SittingJob, say: Say) -> Sat:
    samples = Samples(job.samples)
    baseline, variant = open_session(job.model, job.baseline_settings), open_session(job.variant, job.settings)
    sittings = []
    for number, point in enumerate(job.points, start=1):
        say(f"timing it again, {point.name}, {number} of {len(job.points)}")
        sittings.append(_sit(baseline, variant, samples, point, job.seconds, job.seed))
    return Sat(tuple(sittings))


_JOBS: Mapping[str, tuple[type[Any], Callable[[Any, Say], Any]]] = {
    "PrepareJob": (PrepareJob, _prepare),
    "ReferenceJob": (ReferenceJob, _reference),
    "TrialJob": (TrialJob, _trial),
    "SittingJob": (SittingJob, _again),
}
