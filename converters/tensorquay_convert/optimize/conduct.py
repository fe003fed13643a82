"""Lead an optimisation: which job is next, within the time budget, and what it all comes to.

Sits in the user's process and touches no graph: jobs run in processes of their own (`jobs.py`), and one that crashes,
hangs or fills memory costs one variant. Decides nothing about numbers: `plan.py` says what to try, `choose.py` what
won. A full disk ends it all, because every further variant would fail alike.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tensorquay_convert.errors import CommandFailed, NotPublished
from tensorquay_convert.optimize import choose, jobs, measure, plan
from tensorquay_convert.optimize.goals import Goals
from tensorquay_convert.optimize.jobs import (
    Job,
    Prepared,
    PrepareJob,
    Reference,
    ReferenceJob,
    Result,
    Sat,
    SittingJob,
    TrialJob,
    Tried,
)
from tensorquay_convert.optimize.plain import to_plain
from tensorquay_convert.optimize.results import NodeSensitivity, Outcome, Point, Sitting, Timing, Trial, Verdict
from tensorquay_convert.optimize.variants import Family, Settings, Variant
from tensorquay_convert.progress import Listener, Told

R = TypeVar("R")

RunJob = Callable[[Job, float, Listener], Result]
"""Does a job in a process of its own, within so many seconds. Raises: CommandFailed."""

_FINALISTS = 3
_FINAL_SITTINGS = 2
_FINAL_SHARE = 0.25
"""Of the time budget, kept for the finalists."""
_TRIED_ABOUT = 16
"""Variants that a time budget is divided among."""
_SITTING_S = (0.3, 1.5)
"""Shortest and longest time at one point: below, noise rules; above, nothing is learned."""
_LEAST_JOB_S = 120.0
"""What a job may take at least, however little of the budget is left: a killed one has told nothing."""

_NOT_REAL = "accuracy was not judged on real data"
_SHARES = {"prepare": (0.0, 0.05), "baseline": (0.05, 0.05), "try": (0.1, 0.7), "confirm": (0.8, 0.15)}
"""Where each step begins on the bar, and how much of it it takes; the rest is for report and publishing."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """What is to be optimised. `data` and `labels`: as the user gave them. `folder`: an empty one, for all files."""

    model: Path
    name: str
    data: tuple[str, ...]
    labels: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Conducted:
    """The outcome, and the winner's file; None when nothing won. It may be the model itself (settings alone won)."""

    outcome: Outcome
    winner: Path | None


@dataclass(slots=True)
class _Run:
    """What one variant left: its trial, its sittings by point, its file."""

    trial: Trial
    sittings: list[Sitting] = field(default_factory=list)
    folder: Path | None = None
    file: Path | None = None


class Conductor:
    """One optimisation. Owner: the thread that calls `run`.

    Args: clock: in seconds; only differences count.
    """

    def __init__(
        self, run_job: RunJob, goals: Goals, listener: Listener, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_job = run_job
        self._goals = goals
        self._listener = listener
        self._clock = clock
        self._started = clock()
        self._done = 0
        self._planned = _TRIED_ABOUT
        self._took: list[float] = []
        self._known: dict[str, str] = {}
        self._sensitivity: tuple[NodeSensitivity, ...] = ()

    def run(self, order: Ordered) -> Conducted:
        """Everything, from reading the model to choosing.

        Raises: CommandFailed when the model or the data cannot be used, or there is no room.
        """
        prepared = self._of(Prepared, PrepareJob(
            order.model, order.name, order.data, order.labels, self._goals, order.folder / "samples"
        ), "prepare", "")  # fmt: skip
        settings = Settings(provider=self._goals.provider, intra_op_threads=self._goals.threads)
        reference = self._reference(order, prepared, settings)
        noise = self._noise(order, reference, settings)
        self._known[jobs.key_of(reference.digest, settings)] = "the model as it is"
        runs = self._rounds(order, prepared, reference, noise, settings)
        self._finals(order, self._finalists(runs, noise), reference, settings)
        for run in runs:
            if run.trial.score is not None:
                self._scored(run, reference.points, noise, prepared.subject.bytes)
        there = {each.trial.variant.name for each in runs if each.file is not None}
        trials, winner = choose.choose([each.trial for each in runs], noise, self._goals, among=there)
        won = next((each for each in runs if each.trial.variant.name == winner), None)
        outcome = Outcome(
            subject=prepared.subject,
            data=replace(prepared.data, points=reference.points),
            goals=to_plain(self._goals),
            machine=reference.machine,
            winner=winner,
            sentence=_sentence(trials, winner),
            settings=won.trial.variant.settings if won is not None else settings,
            noise=noise,
            trials=(_as_it_is(prepared, reference, noise, settings), *trials),
            sensitivity=self._sensitivity,
            warnings=_warnings(prepared, reference),
            seconds=round(self._clock() - self._started, 3),
        )
        return Conducted(outcome, won.file if won is not None else None)

    # -- the model as it is

    def _reference(self, order: Ordered, prepared: Prepared, settings: Settings) -> Reference:
        return self._of(Reference, ReferenceJob(
            order.model, settings, order.folder / "samples", order.folder / "reference", prepared.data.points,
            self._seconds(prepared.data.points), self._goals.time_budget_s, self._goals.seed, self._goals.gate,
        ), "baseline", "the model as it is")  # fmt: skip

    def _noise(self, order: Ordered, reference: Reference, settings: Settings) -> tuple[Timing, ...]:
        """The model against itself, in two processes: what "no difference" looks like here."""
        again = self._of(Sat, SittingJob(
            order.model, settings, order.model, settings, order.folder / "samples", reference.points,
            self._seconds(reference.points), self._goals.seed,
        ), "baseline", "the model as it is")  # fmt: skip
        return _timings((*reference.sittings, *again.sittings), reference.points)

    # -- variants

    def _rounds(
        self, order: Ordered, prepared: Prepared, reference: Reference, noise: tuple[Timing, ...], settings: Settings
    ) -> list[_Run]:
        runs: list[_Run] = []
        for number in (1, 2, 3):
            if number == 1:
                found = plan.first_round(prepared.subject, self._goals, reference.machine.features)
            elif number == 2:
                trials = [each.trial for each in runs]
                found = plan.second_round(prepared.subject, self._goals, trials, reference.machine.processors)
            else:
                found = plan.last_round(prepared.subject, self._goals)
            self._planned = len(runs) + len(found)
            for variant in found:
                if not self._time_for_one():
                    reason = f"the time budget of {self._goals.time_budget_s:.0f} s was spent"
                    runs.append(_Run(Trial(variant, Verdict.NOT_TRIED, reason)))
                else:
                    runs.append(self._try(order, prepared, reference, noise, settings, variant, runs))
                    self._keep_the_best(runs, noise)
                self._done += 1
        return runs

    def _time_for_one(self) -> bool:
        """Whether another variant and the finals still fit, going by the middle one of those before."""
        usual = sorted(self._took)[len(self._took) // 2] if self._took else 0.0
        left = self._goals.time_budget_s - (self._clock() - self._started)
        return left > usual + self._goals.time_budget_s * _FINAL_SHARE

    def _try(
        self,
        order: Ordered,
        prepared: Prepared,
        reference: Reference,
        noise: tuple[Timing, ...],
        settings: Settings,
        variant: Variant,
        before: Sequence[_Run],
    ) -> _Run:
        folder = order.folder / f"v{len(before):02}"
        started = self._clock()
        to_beat = max((each.trial.score_low or 0.0 for each in before if _passed(each.trial)), default=0.0)
        job = TrialJob(
            variant, order.model, settings, prepared.subject, order.folder / "samples", order.folder / "reference",
            folder, reference.points, self._goals, self._seconds(reference.points), to_beat, noise, self._known,
        )  # fmt: skip
        try:
            tried = self._of(Tried, job, "try", variant.name)
        except NotPublished:
            raise
        except CommandFailed as exc:
            shutil.rmtree(folder, ignore_errors=True)
            run = _Run(Trial(variant, Verdict.FAILED, jobs.failure_sentence(exc)))
        else:
            run = self._judged(prepared, reference, noise, variant, tried)
            run.folder = folder
            run.file = folder / jobs.MODEL if variant.steps else order.model
        run.trial = replace(run.trial, seconds=round(self._clock() - started, 3))
        self._took.append(self._clock() - started)
        self._note(run.trial)
        return run

    def _judged(
        self, prepared: Prepared, reference: Reference, noise: tuple[Timing, ...], variant: Variant, tried: Tried
    ) -> _Run:
        self._sensitivity = tried.sensitivity or self._sensitivity
        if tried.same_as:
            what = f"its file and settings are those of '{tried.same_as}'"
            return _Run(Trial(variant, Verdict.UNCHANGED, what, tried.passes, tried.bytes))
        if tried.judgement is None:
            what = "; ".join(each.summary for each in tried.passes)
            return _Run(Trial(variant, Verdict.UNCHANGED, what, tried.passes, tried.bytes))
        self._known.setdefault(jobs.key_of(tried.digest, variant.settings), variant.name)
        trial = Trial(variant, Verdict.NOT_FASTER, "", tried.passes, tried.bytes, tried.judgement, nodes=tried.nodes)
        return self._scored(_Run(trial, list(tried.sittings)), reference.points, noise, prepared.subject.bytes)

    def _scored(self, run: _Run, points: tuple[Point, ...], noise: tuple[Timing, ...], bytes_before: int) -> _Run:
        timings = _timings(run.sittings, points)
        score, low, high = choose.score(timings, self._goals.objective, bytes_before, run.trial.bytes or bytes_before)
        trial = replace(run.trial, timings=timings, score=score, score_low=low, score_high=high)
        verdict, reason = choose.verdict(trial, noise, self._goals.objective)
        run.trial = replace(trial, verdict=verdict, reason=reason)
        return run

    # -- finals

    def _finalists(self, runs: Sequence[_Run], noise: tuple[Timing, ...]) -> list[_Run]:
        """Who may still win: the one that would win now, which may change less than a faster one, and the fastest."""
        _, winner = choose.choose([each.trial for each in runs], noise, self._goals)
        promising = [
            each for each in runs if each.file is not None and _passed(each.trial) and (each.trial.score or 0.0) > 1.0
        ]
        promising.sort(key=lambda each: (each.trial.variant.name != winner, -(each.trial.score or 0.0)))
        return promising[:_FINALISTS]

    def _keep_the_best(self, runs: Sequence[_Run], noise: tuple[Timing, ...]) -> None:
        """Remove the files of variants that cannot be finalists any more."""
        finalists = self._finalists(runs, noise)
        for run in runs:
            if run.folder is not None and run not in finalists:
                shutil.rmtree(run.folder, ignore_errors=True)
                run.folder = run.file = None

    def _finals(self, order: Ordered, finalists: Sequence[_Run], reference: Reference, settings: Settings) -> None:
        """Time the best few again, each in fresh processes: what won by luck once does not win three times."""
        for number in range(_FINAL_SITTINGS):
            for place, run in enumerate(finalists):
                assert run.file is not None
                self._done = self._planned * (number * len(finalists) + place) // (_FINAL_SITTINGS * len(finalists))
                job = SittingJob(
                    order.model, settings, run.file, run.trial.variant.settings, order.folder / "samples",
                    reference.points, self._seconds(reference.points), self._goals.seed + number + 1,
                )  # fmt: skip
                try:
                    run.sittings += self._of(Sat, job, "confirm", run.trial.variant.name).sittings
                except NotPublished:
                    raise
                except CommandFailed as exc:
                    reason = f"it failed when it ran again: {jobs.failure_sentence(exc)}"
                    run.trial = replace(run.trial, verdict=Verdict.FAILED, reason=reason, score=None, judgement=None)

    # -- jobs

    def _seconds(self, points: Sequence[Point]) -> float:
        """How long one point is timed in one process."""
        share = self._goals.time_budget_s * (1 - _FINAL_SHARE) / 2 / _TRIED_ABOUT / max(1, len(points))
        return min(_SITTING_S[1], max(_SITTING_S[0], share))

    def _of(self, kind: type[R], job: Job, step: str, what: str) -> R:
        """The result of a job."""

        def tell(told: Told) -> None:
            text = f"{what}: {told.text}" if what else told.text
            self._listener(Told(step, text, self._overall(step, told.overall), told.note))

        left = self._goals.time_budget_s - (self._clock() - self._started)
        result = self._run_job(job, max(_LEAST_JOB_S, left), tell)
        assert isinstance(result, kind)
        return result

    def _overall(self, step: str, fraction: float) -> float:
        begin, share = {"prepare": (0.0, 0.05), "baseline": (0.05, 0.05), "try": (0.1, 0.7), "confirm": (0.8, 0.2)}[
            step
        ]
        within = (self._done + fraction) / self._planned if step in {"try", "confirm"} else fraction
        return min(1.0, begin + share * min(1.0, within))

    def _note(self, trial: Trial) -> None:
        score = f"{trial.score:.2f} ×, " if trial.score is not None else ""
        text = f"{trial.variant.name}: {score}{trial.verdict.value}"
        reason = f" ({trial.reason})" if trial.reason else ""
        self._listener(Told("try", f"{text}{reason}", self._overall("try", 1.0), note=True))


def _timings(sittings: Sequence[Sitting], points: Sequence[Point]) -> tuple[Timing, ...]:
    """One for each point that was timed, in the points' order."""
    by_point = {point.name: [each for each in sittings if each.point == point.name] for point in points}
    return tuple(measure.timing(found) for found in by_point.values() if found)


def _passed(trial: Trial) -> bool:
    return trial.judgement is not None and trial.judgement.passed and trial.score is not None


def _as_it_is(prepared: Prepared, reference: Reference, noise: tuple[Timing, ...], settings: Settings) -> Trial:
    """The model itself as the first row of every table."""
    variant = Variant("as it is", Family.BASELINE, (), settings)
    return Trial(
        variant, Verdict.PASSED, "the model before optimisation", bytes=prepared.subject.bytes, timings=noise,
        score=1.0, score_low=1.0, score_high=1.0, nodes=reference.nodes,
    )  # fmt: skip


def _sentence(trials: Sequence[Trial], winner: str) -> str:
    if not winner:
        tried = sum(each.verdict is not Verdict.NOT_TRIED for each in trials)
        return f"none of {tried} variants is faster here and still right: the model stays as it is"
    trial = next(each for each in trials if each.variant.name == winner)
    points = ", ".join(f"{each.ratio:.2f} × at {each.point}" for each in trial.timings)
    return f"{winner} is faster and still right: {points}"


def _warnings(prepared: Prepared, reference: Reference) -> tuple[str, ...]:
    found = []
    if not prepared.data.real and not any(each.startswith(_NOT_REAL) for each in prepared.data.notes):
        found.append(f"{_NOT_REAL}: give some with --data, and labels with --labels")
    return tuple(dict.fromkeys((*found, *prepared.subject.notes, *prepared.data.notes, *reference.notes)))
