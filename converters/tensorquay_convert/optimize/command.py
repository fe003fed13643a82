"""Optimise a model from Python: `optimize_model("digits", data=["digits.npz"], labels="labels.npy")`.

Finds the model, leads the optimisation (`conduct.py`), writes the reports, publishes what won as the next version. The
command line does the same through this. The source is never touched, and nothing is published unless it won.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorquay_convert import isolation, provenance, publish, surroundings
from tensorquay_convert.convert import write_json
from tensorquay_convert.errors import BadSource, CommandFailed, NotPublished
from tensorquay_convert.isolation import Limits, Work, WorkerFailed
from tensorquay_convert.optimize import jobs
from tensorquay_convert.optimize.conduct import Conducted, Conductor, Ordered
from tensorquay_convert.optimize.goals import Goals
from tensorquay_convert.optimize.located import Located, locate
from tensorquay_convert.optimize.plain import from_plain
from tensorquay_convert.optimize.report import page, record
from tensorquay_convert.optimize.results import Outcome
from tensorquay_convert.progress import Listener, Silence, Told
from tensorquay_convert.publish import Extras, Repository, Stage
from tensorquay_convert.sources import onnx_graph

OPTIMIZATION_FILE = "optimization.json"
_LOG = "optimize.log"
_WORK = Work("tensorquay_convert.optimize.worker", "the optimisation")
_OURS = {
    provenance.MODEL_FILE,
    provenance.PROVENANCE_FILE,
    provenance.VERIFICATION_FILE,
    provenance.REPORT_FILE,
    OPTIMIZATION_FILE,
}
_RESULTS: Mapping[str, type[jobs.Result]] = {
    "PrepareJob": jobs.Prepared,
    "ReferenceJob": jobs.Reference,
    "TrialJob": jobs.Tried,
    "SittingJob": jobs.Sat,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be optimised, towards what, and where the result goes.

    Args:
        model: see `located.locate`. version: of it; None: the highest.
        data, labels: files with samples and their labels.
        name: under which it is published; empty: the model's own, where it is in a repository.
        output: instead of a repository: a folder that does not exist yet.
        report: a folder for report and record, also when nothing won.
        memory_bytes: that each process may take; None: what `surroundings.default_memory_limit` says.
        command: how it was asked for, for the record.
    """

    model: str
    repository: Path = Path("model_repo")
    version: int | None = None
    data: tuple[str, ...] = ()
    labels: str = ""
    goals: Goals = field(default_factory=Goals)
    name: str = ""
    output: Path | None = None
    dry_run: bool = False
    report: Path | None = None
    memory_bytes: int | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What came of it. `path` and `version` are None when nothing was published (`version`: also with `output`)."""

    model: str
    source: Path
    outcome: Outcome
    record: Mapping[str, Any]
    path: Path | None
    version: int | None
    report: Path | None

    @property
    def optimized(self) -> bool:
        """Whether a variant won."""
        return bool(self.outcome.winner)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: what `--json` prints."""
        return {
            "result": "optimized" if self.optimized else "kept",
            "model": self.model,
            "winner": self.outcome.winner,
            "sentence": self.outcome.sentence,
            "version": self.version,
            "path": None if self.path is None else str(self.path),
            "report": None if self.report is None else str(self.report),
            "optimization": dict(self.record),
        }


def optimize_model(
    model: str | Path,
    *,
    repository: str | Path = "model_repo",
    data: Sequence[str | Path] = (),
    labels: str | Path = "",
    goals: Goals | None = None,
    listener: Listener | None = None,
    **asked: Any,
) -> OptimizeResult:
    """Try what may make a model faster here, and publish what is measurably faster and still right.

    Args:
        model: a file, a folder, or the name of a model in `repository`.
        data, labels: see docs/optimize.md; without, accuracy is judged on drawn inputs only.
        listener: told what happens; None: nobody.
        asked: more of `Asked`.
    Raises: CommandFailed of the kind that says why not; then nothing was published.
    """
    wanted = Asked(
        str(model), Path(repository), data=tuple(map(str, data)), labels=str(labels), goals=goals or Goals(), **asked
    )
    return optimize(wanted, listener or Silence())


def optimize(asked: Asked, listener: Listener) -> OptimizeResult:
    """What the command line does. Raises: CommandFailed."""
    found = locate(asked.model, asked.repository, asked.version)
    for each in (*(file for file in asked.data), *filter(None, (asked.labels,))):
        if not Path(each.rpartition("=")[2]).exists():
            raise BadSource(f"'{each}' does not exist")
    listener(Told("prepare", f"optimising {_shown(found)}"))
    with _place(asked, found) as stage:
        folder = stage.path / "work"
        folder.mkdir()
        conductor = Conductor(lambda *job: _in_a_worker(asked, found, *job), asked.goals, listener)
        order = Ordered(found.path.absolute(), found.name, asked.data, asked.labels, folder)
        conducted = conductor.run(order)
        return _finished(asked, found, stage, conducted, listener)


def _shown(found: Located) -> str:
    return str(found.path) if found.version is None else f"{found.name} version {found.version}"


def _place(asked: Asked, found: Located) -> Stage:
    """Where the work is done. Raises: NotPublished for a destination that could never take the result."""
    if asked.dry_run:
        return Stage(Path(tempfile.gettempdir()))
    if asked.output is not None:
        if os.path.lexists(asked.output):
            raise NotPublished(f"'{asked.output}' exists, and is not overwritten")
        if not asked.output.parent.is_dir():
            raise NotPublished(f"the folder '{asked.output.parent}' does not exist")
        return Stage(asked.output.parent)
    repository = _repository(asked, found)
    repository.check()
    return repository.stage()


def _repository(asked: Asked, found: Located) -> Repository:
    if asked.name:
        return Repository(asked.repository, asked.name)
    if found.folder is None:
        raise NotPublished(
            f"'{asked.model}' lies in no repository, so there is no next version of it",
            remedy="say where the result goes: --name NAME (with --repository), --output FOLDER, or --dry-run",
        )
    return Repository(found.folder.parent, found.folder.name)


def _in_a_worker(asked: Asked, found: Located, job: jobs.Job, timeout_s: float, listener: Listener) -> jobs.Result:
    environment = surroundings.worker_environment(
        surroundings.own_environment(), gpu=asked.goals.provider not in {"", "cpu"}
    )
    request = jobs.request_of(job)
    try:
        ran = isolation.run_worker(
            request, environment, listener, work=_WORK, limits=Limits(timeout_s, asked.memory_bytes)
        )
    except WorkerFailed as exc:
        raise _explained(exc, asked, found) from exc
    result: jobs.Result = from_plain(_RESULTS[request["job"]], ran.result["result"])
    return result


def _explained(error: WorkerFailed, asked: Asked, found: Located) -> CommandFailed:
    """The worker's failure; with where the end of what it printed lies, when nobody foresaw it."""
    failure = error.failure
    if not error.unforeseen or not error.output or asked.report is None:
        return failure
    log = asked.report / _LOG
    with contextlib.suppress(OSError):
        asked.report.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(error.output)
        return type(failure)(failure.sentence, remedy=f"the log is in '{log}'", facts={"model": found.name})
    return failure


def _finished(asked: Asked, found: Located, stage: Stage, conducted: Conducted, listener: Listener) -> OptimizeResult:
    """Write what there is to read, and publish what won."""
    outcome = conducted.outcome
    listener(Told("report", "writing the report", 0.96))
    described = record.record(
        outcome,
        model=asked.name or found.name,
        baseline={"version": found.version, "sha256": provenance.file_digest(found.path), "file": found.path.name},
        version=surroundings.own_version(),
        at=provenance.now(),
        command=asked.command,
    )
    html = page.render(described, outcome)
    report = _keep_report(asked, described, html)
    path: Path | None = None
    if conducted.winner is not None and not asked.dry_run:
        listener(Told("publish", f"publishing {asked.name or found.name}", 0.98))
        _fill(stage.version, found, conducted.winner, described, html)
        if asked.output is not None:
            path = publish.publish_folder(stage, asked.output)
        else:
            path = _repository(asked, found).commit(stage, Extras())
    return OptimizeResult(
        model=asked.name or found.name,
        source=found.path,
        outcome=outcome,
        record=described,
        path=path,
        version=int(path.name) if path is not None and asked.output is None else None,
        report=report or (None if path is None else path / provenance.REPORT_FILE),
    )


def _keep_report(asked: Asked, described: Mapping[str, Any], html: str) -> Path | None:
    """Raises: NotPublished when the folder that was asked for cannot be written."""
    if asked.report is None:
        return None
    try:
        asked.report.mkdir(parents=True, exist_ok=True)
        write_json(asked.report / OPTIMIZATION_FILE, described)
        (asked.report / provenance.REPORT_FILE).write_text(html, encoding="utf-8")
    except OSError as exc:
        raise NotPublished(f"the report could not be written to '{asked.report}': {exc.strerror}") from exc
    return asked.report / provenance.REPORT_FILE


def _fill(folder: Path, found: Located, winner: Path, described: Mapping[str, Any], html: str) -> None:
    """The winner's files, what lay beside the source, the record, the report; provenance last.

    Raises: NotPublished.
    """
    try:
        own = {winner.name, *(each.name for each in _weights(winner))}
        for each in (winner, *_weights(winner)):
            target = folder / (provenance.MODEL_FILE if each == winner else each.relative_to(winner.parent))
            target.parent.mkdir(parents=True, exist_ok=True)
            # The source itself is copied, and keeps its place: settings alone may win.
            (shutil.copyfile if winner == found.path.absolute() else shutil.move)(each, target)
        if found.version is not None:
            _copy_neighbours(found.path, folder, own)
        write_json(folder / OPTIMIZATION_FILE, described)
        (folder / provenance.REPORT_FILE).write_text(html, encoding="utf-8")
        before = _provenance_of(found)
        files = [each for each in folder.rglob("*") if each.is_file() and each.name != provenance.PROVENANCE_FILE]
        write_json(
            folder / provenance.PROVENANCE_FILE,
            {
                **before,
                "schema": provenance.SCHEMA,
                "model": described["model"],
                "optimization": {
                    "winner": described["winner"],
                    "sentence": described["sentence"],
                    "at": described["at"],
                    "baseline": described["baseline"],
                    "tensorquay": described["tensorquay"],
                },
                "files": provenance.digests(files, folder),
            },
        )
    except OSError as exc:
        raise NotPublished(f"the optimised model could not be written: {exc.strerror}") from exc


def _weights(model: Path) -> tuple[Path, ...]:
    """The files with its external data."""
    # Only here, and cheap: which files those are is written in the model.
    import onnx  # noqa: PLC0415

    return onnx_graph.external_files(onnx.load(str(model), load_external_data=False), model.parent.resolve())


def _copy_neighbours(source: Path, folder: Path, own: set[str]) -> None:
    """Tokenizers, warm-up data and the like: everything in the version's folder that is not the model or about it."""
    weights = {each.resolve() for each in _weights(source)}
    for each in sorted(source.parent.rglob("*")):
        relative = each.relative_to(source.parent)
        if each.is_symlink() or not each.is_file() or each == source or each.resolve() in weights:
            continue
        if relative.name in _OURS | own or relative.parts[0].startswith("."):
            continue
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each, target)


def _provenance_of(found: Located) -> dict[str, Any]:
    """What the source's own provenance says; empty where there is none that can be read."""
    if found.version is None:
        return {}
    try:
        plain = json.loads((found.path.parent / provenance.PROVENANCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}
