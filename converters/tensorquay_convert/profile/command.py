"""Profile a model from Python: `profile_model("digits", report="there")`. The command line does the same through this.

Finds the model, has workers measure (`measuring.py`), one after the other so that they do not disturb each other,
decides what is best (`recommend.py`), writes the report. Changes nothing in a repository; leaves only the report.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tensorquay_convert import isolation, provenance, surroundings
from tensorquay_convert.errors import BadSource, CommandFailed, LimitExceeded, NotPublished
from tensorquay_convert.isolation import Limits, Work, WorkerFailed
from tensorquay_convert.optimize.goals import Goals
from tensorquay_convert.optimize.located import Located, locate
from tensorquay_convert.optimize.plain import from_plain
from tensorquay_convert.optimize.results import Point
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.profile import jobs, page, record
from tensorquay_convert.profile.jobs import (
    Curved,
    CurveJob,
    Held,
    Job,
    MemoryJob,
    OperatorsJob,
    Prepared,
    PrepareJob,
    Timed,
)
from tensorquay_convert.profile.recommend import advise
from tensorquay_convert.profile.results import Memory, Profile
from tensorquay_convert.progress import Listener, Silence, Told
from tensorquay_convert.surroundings import usable_cpus

DEFAULT_BATCHES = (1, 2, 4, 8, 16, 32)
DEFAULT_SECONDS = 20.0
DEFAULT_TIMEOUT_S = 900.0
REPORT_FILES = (RECORD_FILE, PAGE_FILE, TRACE_FILE) = ("profile.json", "profile.html", "trace.json")
MOST_THREADS = 1024
_LOG = "profile.log"
_WORK = Work("tensorquay_convert.profile.worker", "the profile")
_CURVE_SHARE = 0.75
"""Of the seconds for measuring; the rest is for operators."""
_ALL_UP_TO = 8
"""Processors up to which every thread count is tried; above, powers of two."""
_STEPS: Mapping[str, tuple[float, float]] = {
    "prepare": (0.0, 0.05), "memory": (0.05, 0.1), "curve": (0.15, 0.6), "operators": (0.75, 0.2),
    "report": (0.95, 0.05),
}  # fmt: skip
"""Where each step begins and what it takes, as shares of the whole."""

R = TypeVar("R", Prepared, Held, Curved, Timed)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured, and where the report goes.

    Args:
        model: see `located.locate`. version: of it; None: the highest.
        data: files with inputs; without, they are drawn from `seed`.
        batches: sizes to measure. A model that does not batch is measured as it is.
        threads: intra-op thread counts; empty: `thread_counts` of the usable processors.
        sizes: of other dynamic axes, by name.
        seconds: how long batches, threads and operators are measured; loading and preparing come on top.
        report: a folder for record, page and trace. trace: another place for the trace.
        limits: of each process's memory, and of the time of all together.
        command: how it was asked for, for the record.
    """

    model: str
    repository: Path = Path("model_repo")
    version: int | None = None
    data: tuple[str, ...] = ()
    batches: tuple[int, ...] = DEFAULT_BATCHES
    threads: tuple[int, ...] = ()
    provider: str = "cpu"
    sizes: Mapping[str, int] = field(default_factory=dict)
    seconds: float = DEFAULT_SECONDS
    seed: int = 0
    report: Path | None = None
    trace: Path | None = None
    limits: Limits = field(default_factory=lambda: Limits(DEFAULT_TIMEOUT_S))
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """A finished profile. `record`: what `profile.json` holds. `report`, `trace`: files that were written."""

    profile: Profile
    record: Mapping[str, Any]
    report: Path | None
    trace: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: what `--json` prints."""
        return {
            "result": "profiled",
            "report": None if self.report is None else str(self.report),
            "trace": None if self.trace is None else str(self.trace),
            "profile": dict(self.record),
        }


def profile_model(
    model: str | Path,
    *,
    repository: str | Path = "model_repo",
    data: Sequence[str | Path] = (),
    report: str | Path | None = None,
    listener: Listener | None = None,
    **asked: Any,
) -> ProfileResult:
    """Measure where a model's time goes and which batch size and thread count are best here.

    Args:
        model: a file, a folder, or the name of a model in `repository`.
        listener: told what happens; None: nobody.
        asked: more of `Asked`.
    Raises: CommandFailed of the kind that says why not.
    """
    place = None if report is None else Path(report)
    wanted = Asked(str(model), Path(repository), data=tuple(map(str, data)), report=place, **asked)
    return profile(wanted, listener or Silence())


def profile(asked: Asked, listener: Listener) -> ProfileResult:
    """What the command line does. Raises: CommandFailed."""
    _refuse(asked)
    found = locate(asked.model, asked.repository, asked.version)
    _make_place(asked)
    with tempfile.TemporaryDirectory(prefix="tensorquay-profile-") as folder:
        return _Profiling(asked, found, Path(folder), listener).run()


def thread_counts(processors: int) -> tuple[int, ...]:
    """What is tried unless told: every count for a few processors, else powers of two and all of them."""
    if processors <= _ALL_UP_TO:
        return tuple(range(1, processors + 1))
    powers = [1 << each for each in range(processors.bit_length()) if 1 << each < processors]
    return (*powers, processors)


def _refuse(asked: Asked) -> None:
    """Raises: BadSource for numbers that mean nothing, and files that are not there."""
    for what, values, most in (("thread count", asked.threads, MOST_THREADS), ("batch size", asked.batches, 1 << 20)):
        wrong = next((each for each in values if not 1 <= each <= most), None)
        if wrong is not None:
            raise BadSource(f"the {what} {wrong} makes no sense, expected 1 to {most}")
    if not asked.batches:
        raise BadSource("no batch size is given, expected at least one")
    if not asked.seconds > 0:
        raise BadSource(f"the time to measure is {asked.seconds:g} s, expected more than 0")
    for each in asked.data:
        if not Path(each.rpartition("=")[2]).exists():
            raise BadSource(f"the data '{each}' does not exist")


def _make_place(asked: Asked) -> None:
    """Look before minutes are spent whether the report can be written. Raises: NotPublished."""
    try:
        if asked.report is not None:
            asked.report.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise NotPublished(f"the folder '{asked.report}' for the report cannot be made: {exc.strerror}") from exc
    if asked.trace is not None and (asked.trace.is_dir() or not asked.trace.absolute().parent.is_dir()):
        what = "is a folder" if asked.trace.is_dir() else "cannot be written: its folder does not exist"
        raise NotPublished(f"the trace '{asked.trace}' {what}", remedy="name a file in a folder that exists")


class _Profiling:
    """One profile. Owner: `profile`; used by its thread only."""

    def __init__(self, asked: Asked, found: Located, folder: Path, listener: Listener) -> None:
        self._asked = asked
        self._found = found
        self._folder = folder
        self._listener = listener
        self._started = time.monotonic()
        self._model = found.path.absolute()
        self._samples = folder / "samples"
        self._threads = asked.threads or self._usual_threads()
        self._settings = Settings(asked.provider, intra_op_threads=usable_cpus())

    def _usual_threads(self) -> tuple[int, ...]:
        """A GPU's work does not wait for more threads of the CPU."""
        return thread_counts(usable_cpus()) if self._asked.provider == "cpu" else (usable_cpus(),)

    def run(self) -> ProfileResult:
        """Everything. Raises: CommandFailed."""
        asked = self._asked
        self._samples.mkdir()
        goals = Goals(
            batches=asked.batches, sizes={axis: (size,) for axis, size in asked.sizes.items()},
            provider=asked.provider, seed=asked.seed,
        )  # fmt: skip
        prepared = self._do(
            "prepare", PrepareJob(self._model, self._found.name, asked.data, goals, self._samples), Prepared
        )
        points, left_out = one_shape(prepared.data.points)
        held = self._do("memory", MemoryJob(self._model, self._settings, self._samples, points), Held)
        curved = self._do("curve", self._curve_job(held), Curved)
        advice = advise(curved.curve.cells, self._settings.intra_op_threads)
        best = advice.throughput
        scratch = self._folder / "events"
        scratch.mkdir()
        timed = self._do("operators", OperatorsJob(
            self._model, replace(self._settings, intra_op_threads=best.threads), self._samples,
            next(each for each in held.points if each.batch == best.batch), prepared.subject,
            asked.seconds * (1 - _CURVE_SHARE), scratch, self._folder / TRACE_FILE,
        ), Timed)  # fmt: skip
        found = Profile(
            subject=prepared.subject, path=str(self._found.path), version=self._found.version, real=prepared.data.real,
            points=held.points, provider=asked.provider, machine=timed.machine, memory=held.memory, curve=curved.curve,
            advice=advice, operators=timed.operators, left_out=(*left_out, *held.left_out, *curved.left_out),
            notes=_notes(prepared), seconds=round(time.monotonic() - self._started, 3), trace=timed.trace,
        )  # fmt: skip
        return self._written(found)

    def _curve_job(self, held: Held) -> CurveJob:
        memory, asked = held.memory, self._asked
        limit = asked.limits.memory_bytes or surroundings.default_memory_limit()
        return CurveJob(
            self._model, self._settings, self._samples, held.points, tuple(self._threads),
            {each.point: each.run_s for each in memory.points},
            limit is None or session_bytes(memory) * len(self._threads) <= limit / 2,
            asked.seconds * _CURVE_SHARE, asked.seed,
        )  # fmt: skip

    def _do(self, step: str, job: Job, kind: type[R]) -> R:
        """The result of a job in a process of its own. Raises: CommandFailed."""
        begin, share = _STEPS[step]

        def tell(told: Told) -> None:
            self._listener(Told(step, told.text, begin + share * min(1.0, told.overall), told.note))

        limits = self._asked.limits
        left = max(0.001, limits.timeout_s - (time.monotonic() - self._started))
        environment = surroundings.worker_environment(surroundings.own_environment(), gpu=self._asked.provider != "cpu")
        try:
            ran = isolation.run_worker(
                jobs.request_of(job), environment, tell, work=_WORK, limits=Limits(left, limits.memory_bytes)
            )
        except WorkerFailed as exc:
            raise self._explained(exc) from exc
        return from_plain(kind, ran.result["result"])

    def _explained(self, error: WorkerFailed) -> CommandFailed:
        """The failure; by the whole time limit, and with where the log is when nobody foresaw it."""
        failure = error.failure
        if isinstance(failure, LimitExceeded) and "timeout_s" in failure.facts:
            whole = self._asked.limits.timeout_s
            return LimitExceeded(
                f"the profile was stopped after {whole:g} s, its time limit",
                remedy="give it more with --timeout, or less to do: --batch, --threads, --seconds",
                facts={"timeout_s": whole},
            )
        if not error.unforeseen or not error.output or self._asked.report is None:
            return failure
        log = self._asked.report / _LOG
        with contextlib.suppress(OSError):
            log.write_bytes(error.output)
            return type(failure)(failure.sentence, remedy=f"the log is in '{log}'", facts=failure.facts)
        return failure

    def _written(self, found: Profile) -> ProfileResult:
        """Raises: NotPublished."""
        asked, made = self._asked, self._folder / TRACE_FILE
        self._listener(Told("report", "writing the report", _STEPS["report"][0]))
        described = record.record(found, at=provenance.now(), command=asked.command)
        try:
            if asked.report is not None:
                record.write(self._folder / RECORD_FILE, described)
                (self._folder / PAGE_FILE).write_text(page.render(described, found), encoding="utf-8")
                for name in REPORT_FILES:
                    _put(self._folder / name, asked.report / name)
            if asked.trace is not None:
                _put(made, asked.trace)
        except OSError as exc:
            raise NotPublished(f"the report could not be written: {exc.strerror}") from exc
        report = None if asked.report is None else asked.report / PAGE_FILE
        return ProfileResult(
            found, described, report, asked.trace or (None if report is None else report.with_name(TRACE_FILE))
        )


def _put(made: Path, target: Path) -> None:
    """Copy a file to its place, whole or not at all. Raises: OSError."""
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(made, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def one_shape(points: Sequence[Point]) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """The points of the shape with the most points, and a sentence on the others: a curve is over batches only."""
    groups: dict[int, list[Point]] = {}
    for each in points:
        groups.setdefault(each.group, []).append(each)
    chosen = max(groups.values(), key=len)
    if len(groups) == 1:
        return tuple(chosen), ()
    shown = _sizes(chosen[0])
    others = "; ".join(_sizes(group[0]) for group in groups.values() if group is not chosen)
    return tuple(chosen), (f"only {shown} is measured; other shapes in the data: {others} (choose with --size)",)


def _sizes(point: Point) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in point.sizes.items()) or "the first shape"


def session_bytes(memory: Memory) -> int:
    """What one session with its largest run takes, about; 0 where nobody can tell."""
    peaks = [each.peak_bytes for each in memory.points if each.peak_bytes is not None]
    return max(0, max(peaks) - (memory.before_bytes or 0)) if peaks else 0


def _notes(prepared: Prepared) -> tuple[str, ...]:
    subject, data = prepared.subject, prepared.data
    # What the optimiser would leave out is nothing to say here.
    found = [each for each in subject.notes if not each.startswith("the model is already quantized")]
    found += data.notes
    if not data.real:
        found.append("the inputs were drawn from a seed: give your own with --data where the work depends on them")
    return tuple(found)
