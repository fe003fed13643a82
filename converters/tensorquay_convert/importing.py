"""Import a model from Python: `import_model("model.pt2", name="digits", repository="model_repo")`.

Finds out what the source is, has a worker convert and prove it, publishes the result; the command line does the same
through this. A source given as a path runs in a process of its own. An object (an `nn.Module`, a JAX function) cannot
be sent there: it is converted in this process, which must have the framework, and without limits.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tensorquay_convert import isolation, publish, surroundings
from tensorquay_convert.detect import detect, resolved
from tensorquay_convert.errors import BadSource, CommandFailed, NotEqual, NotPublished
from tensorquay_convert.isolation import Limits, Ran, WorkerFailed
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.progress import IMPORT_SHARES, Listener, Silence, Step, Teller, Told, read_told
from tensorquay_convert.publish import Extras, Repository, Stage
from tensorquay_convert.request import Request

_REPORT = "report.html"
_PROVENANCE = "provenance.json"
_KEPT = (_REPORT, _PROVENANCE, "verification.json")
_LOG = "import.log"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the result goes.

    Args:
        name: of the model.
        repository: an existing model repository. version: None: the highest + 1.
        output: instead of a repository: a folder that does not exist yet; it becomes the version's folder.
        dry_run: convert and prove, and keep nothing.
        report: a folder for report, provenance and log, also when the import fails. None: only on failure, and into
            the current folder, as `<name>-import-report.html` and `<name>-import.log`.
    """

    name: str
    repository: Path = Path("model_repo")
    version: int | None = None
    output: Path | None = None
    dry_run: bool = False
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """How the worker is run; none of it changes the result.

    Args:
        python: another interpreter that has the framework.
        limits: of time and memory.
        untrusted: the source is a stranger's: no factory, no pickle, and a worker that inherits no secrets.
        command: how the import was asked for, for the provenance.
    """

    python: str = ""
    limits: Limits = field(default_factory=Limits)
    untrusted: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportResult:
    """A model that was converted and proven. `path` and `version` are None after a dry run (`version`: `output`)."""

    name: str
    version: int | None
    path: Path | None
    kind: SourceKind
    shown: str
    exporter: str
    opset: int
    attempts: tuple[str, ...]
    notes: tuple[str, ...]
    proof: Mapping[str, Any]
    seconds: float
    peak_rss_bytes: int
    report: Path | None = None
    extras: Extras = field(default_factory=Extras, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: what `--json` prints."""
        plain = asdict(self)
        del plain["extras"]
        return {
            "result": "imported",
            **plain,
            "path": None if self.path is None else str(self.path),
            "report": None if self.report is None else str(self.report),
            "kind": self.kind.value,
            "proof": dict(self.proof),
        }


def import_model(
    source: str | Path | Any,
    *,
    name: str,
    repository: str | Path = "model_repo",
    version: int | None = None,
    output: str | Path | None = None,
    dry_run: bool = False,
    listener: Listener | None = None,
    running: Running | None = None,
    report: str | Path | None = None,
    **job: Any,
) -> ImportResult:
    """Convert a model, prove it, and publish it as `<repository>/<name>/<version>/`.

    Args:
        source: a path, `file.py:factory`, `package.module:factory`, or an object of a framework.
        listener: told what happens; None: nobody.
        job: the settings of `ImportJob`; for an object also `example_inputs`, which its converter documents.
    Raises: CommandFailed of the kind that says why not; then nothing was published.
    """
    to = Destination(
        name,
        Path(repository),
        version,
        None if output is None else Path(output),
        dry_run,
        None if report is None else Path(report),
    )
    told = listener or Silence()
    if isinstance(source, str | Path):
        return import_source(ImportJob(source=str(source), **job), to, running or Running(), told)
    examples = job.pop("example_inputs", None)
    shown = f"{type(source).__module__}.{type(source).__qualname__}"
    return _import_object(source, examples, ImportJob(source=shown, **job), to, told)


def import_source(job: ImportJob, to: Destination, running: Running, listener: Listener) -> ImportResult:
    """What the command line does: one import of a path or factory, in a worker.

    Raises: CommandFailed.
    """
    place = _place(to)
    found = detect(job)
    if running.untrusted and (job.trust_pickle or found.kind in _RUNS_CODE):
        raise BadSource(
            f"'{job.source}' would run code of its own, which is refused for a source that is not trusted",
            remedy="import it by hand with tensorquay import",
        )
    listener(Told(Step.OPEN.value, f"{job.source} looks like {found.shown}"))
    with place as stage:
        request = _request(resolved(job, found), job.source, found.notes, to, stage, running.command)
        environment = surroundings.worker_environment(
            surroundings.own_environment(), other_python=bool(running.python), untrusted=running.untrusted
        )
        try:
            ran = isolation.run_worker(
                request.to_json(), environment, listener, python=running.python, limits=running.limits
            )
        except WorkerFailed as exc:
            raise _explained(exc, to, stage) from exc
        return _published(ran, to, stage, listener)


_RUNS_CODE = (None, SourceKind.TORCH_FACTORY, SourceKind.JAX_FACTORY, SourceKind.PICKLE)


def _import_object(source: Any, examples: Any, job: ImportJob, to: Destination, listener: Listener) -> ImportResult:
    # They bring numpy and onnx, which an import by worker does not need here.
    from tensorquay_convert.convert import convert  # noqa: PLC0415
    from tensorquay_convert.objects import open_object  # noqa: PLC0415

    started = time.monotonic()
    done: list[Mapping[str, Any]] = []

    def send(event: Mapping[str, Any]) -> None:
        told = read_told(event) if event["event"] == "told" else None
        if told is not None:
            listener(told)
        else:
            done.append(event)

    with _place(to) as stage:
        request = _request(job, job.source, (), to, stage, ())
        teller = Teller(send, IMPORT_SHARES)
        opened = open_object(source, examples, job)
        try:
            result = convert(opened, request, teller)
        except NotEqual as exc:
            raise _with_report(exc, to, stage) from exc
        finally:
            opened.close()
        ran = Ran(result, time.monotonic() - started, 0, b"")
        return _published(ran, to, stage, listener)


def _place(to: Destination) -> Stage:
    """Where the result is made. Raises: NotPublished for a destination that could never take it."""
    if to.dry_run:
        return Stage(Path(tempfile.gettempdir()))
    if to.output is not None:
        if os.path.lexists(to.output):
            raise NotPublished(f"'{to.output}' exists, and is not overwritten")
        if not to.output.parent.is_dir():
            raise NotPublished(f"the folder '{to.output.parent}' does not exist")
        return Stage(to.output.parent)
    repository = Repository(to.repository, to.name, to.version)
    repository.check()
    return repository.stage()


def _request(
    job: ImportJob, given: str, notes: Sequence[str], to: Destination, stage: Stage, command: tuple[str, ...]
) -> Request:
    return Request(job, to.name, given, tuple(notes), stage.version.absolute(), command, surroundings.own_version())


def _published(ran: Ran, to: Destination, stage: Stage, listener: Listener) -> ImportResult:
    done = ran.result
    peak_rss_bytes = _add_resources(stage.version / _PROVENANCE, ran)
    extras = Extras(tuple(done["outputs"]), done["labels"], done["batched"])
    report = _keep_report(to, stage) if to.report is not None else None
    path: Path | None = None
    if not to.dry_run:
        listener(Told(Step.PUBLISH.value, f"publishing {to.name}", 0.95))
        if to.output is not None:
            path = publish.publish_folder(stage, to.output)
        else:
            path = Repository(to.repository, to.name, to.version).commit(stage, extras)
    return ImportResult(
        name=to.name,
        version=int(path.name) if path is not None and to.output is None else None,
        path=path,
        kind=SourceKind(done["kind"]),
        shown=done["shown"],
        exporter=done["exporter"],
        opset=done["opset"],
        attempts=tuple(done["attempts"]),
        notes=tuple(done["notes"]),
        proof=done["proof"],
        seconds=round(ran.seconds, 3),
        peak_rss_bytes=peak_rss_bytes,
        report=report or (None if path is None else path / _REPORT),
        extras=extras,
    )


def _add_resources(path: Path, ran: Ran) -> int:
    """Write down what the import took, which is known best by who watched it, and return the most memory it held.

    Raises: NotPublished.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["resources"]["seconds"] = round(ran.seconds, 3)
        record["resources"]["peak_rss_bytes"] = max(ran.peak_rss_bytes, record["resources"]["peak_rss_bytes"])
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as exc:
        raise NotPublished(f"the provenance could not be written: {exc.strerror}") from exc
    return int(record["resources"]["peak_rss_bytes"])


def _explained(error: WorkerFailed, to: Destination, stage: Stage) -> CommandFailed:
    """The worker's failure, with where the report or the log of it lies."""
    failure = error.failure
    if isinstance(failure, NotEqual):
        failure = _with_report(failure, to, stage)
    if not error.unforeseen or not error.output:
        return failure
    log = _write_log(to, error.output)
    if log is None:
        return failure
    return _again(failure, f"the log is in '{log}'", {"log": str(log)})


def _with_report(failure: NotEqual, to: Destination, stage: Stage) -> CommandFailed:
    kept = _keep_report(to, stage)
    return failure if kept is None else _again(failure, f"the report is in '{kept}'", {"report": str(kept)})


def _again(failure: CommandFailed, more: str, facts: Mapping[str, str]) -> CommandFailed:
    remedy = f"{failure.remedy}; {more}" if failure.remedy else more
    return type(failure)(failure.sentence, remedy=remedy, facts={**failure.facts, **facts})


def _keep_report(to: Destination, stage: Stage) -> Path | None:
    """Copy the report out of the stage, which goes; None when that is impossible: the failure itself matters more."""
    try:
        if to.report is None:
            target = Path(f"{_file_name(to.name)}-import-report.html")
            shutil.copyfile(stage.version / _REPORT, target)
            return target
        to.report.mkdir(parents=True, exist_ok=True)
        for name in _KEPT:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(stage.version / name, to.report / name)
        return to.report / _REPORT
    except OSError:
        return None


def _write_log(to: Destination, output: bytes) -> Path | None:
    """Keep the end of what the worker printed: where reports go, else among temporary files."""
    wanted = Path(f"{_file_name(to.name)}-import.log") if to.report is None else to.report / _LOG
    for path in (wanted, Path(tempfile.gettempdir()) / f"tensorquay-{os.getpid()}-{_LOG}"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(output)
        except OSError:
            continue
        return path
    return None


def _file_name(name: str) -> str:
    """A model's name as part of a file's: without a repository nobody has looked at it yet."""
    return "".join("_" if char in "/\\" or not char.isprintable() else char for char in name)[:100]
