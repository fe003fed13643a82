"""From an opened source to a finished folder: export, make it fit, prove it, describe it. Runs in the worker.

The folder then holds `model.onnx` (and its weights), what belongs beside it, `verification.json`, `provenance.json`
and `report.html`; when the proof fails, the same, for the user to read, and NotEqual is raised.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tensorquay_convert import provenance
from tensorquay_convert.api import OpenSource, SourceFacts
from tensorquay_convert.errors import BadSource, CommandFailed, NotEqual, Unsupported
from tensorquay_convert.job import SourceKind
from tensorquay_convert.progress import Step, Teller
from tensorquay_convert.proof.verification import Verification
from tensorquay_convert.proof.verify import ProofOptions, verify
from tensorquay_convert.report.page import render
from tensorquay_convert.request import Request
from tensorquay_convert.sources import onnx_rules
from tensorquay_convert.tensors import BATCH

_RESERVED = {
    provenance.MODEL_FILE,
    onnx_rules.DATA_FILE,
    provenance.PROVENANCE_FILE,
    provenance.VERIFICATION_FILE,
    provenance.REPORT_FILE,
}
_MAX_LABELS = 100_000


def convert(source: OpenSource, request: Request, teller: Teller) -> Mapping[str, Any]:
    """Fill `request.stage`, and say what is in it: the event "done".

    Raises: CommandFailed of the kind that says why not.
    """
    started = time.monotonic()
    facts, job, stage = source.facts, request.job, request.stage
    teller.note(f"{request.given} is {facts.shown}")
    for note in (*request.notes, *facts.notes):
        teller.note(note)
    model = stage / provenance.MODEL_FILE
    described = provenance.describe_source(request.given, job.source, facts, request.notes)

    teller.step(Step.EXPORT, "exporting to ONNX")
    exported = source.export(model, teller.say)
    teller.step(Step.CHECK, "checking the ONNX model")
    is_onnx = facts.kind is SourceKind.ONNX
    finished = onnx_rules.finish(
        model,
        facts.interface,
        teller.say,
        opset=job.opset if is_onnx else None,
        outputs=job.outputs if is_onnx else (),
        blame=BadSource if is_onnx else Unsupported,
    )
    for note in (*exported.notes, *finished.notes):
        teller.note(note)

    teller.step(Step.PROVE, "running source and ONNX model on the same inputs")
    verification = verify(source, model, ProofOptions.from_job(job), teller.say)

    teller.step(Step.REPORT, "writing provenance and report")
    _copy_side_files(facts, stage)
    record = {
        "schema": provenance.SCHEMA,
        "model": request.name,
        "imported_at": provenance.now(),
        "tensorquay": request.version,
        "source": described,
        "conversion": provenance.describe_conversion(exported, finished.opset, finished.notes),
        "settings": job.to_json(),
        "interface": provenance.describe_interface(facts),
        "proof": provenance.summary(verification),
        "environment": provenance.describe_machine(facts.versions),
        "command": list(request.command),
        "resources": {"seconds": round(time.monotonic() - started, 3), "peak_rss_bytes": _peak_bytes()},
    }
    describe(stage, record, verification)
    if not verification.passed:
        culprit = verification.culprit
        raise NotEqual(
            f"the ONNX model does not do what its source does: {verification.problems[0]}",
            remedy=verification.advice,
            facts={"problems": len(verification.problems), "culprit": None if culprit is None else culprit.node},
        )
    return {
        "event": "done",
        "kind": facts.kind.value,
        "shown": facts.shown,
        "notes": [*request.notes, *facts.notes, *exported.notes, *finished.notes],
        "exporter": exported.exporter,
        "opset": finished.opset,
        "attempts": list(exported.attempts),
        "outputs": [spec.name for spec in facts.interface.outputs],
        "labels": _labels(facts),
        "batched": batched(facts),
        "proof": record["proof"],
    }


def describe(stage: Path, record: dict[str, Any], verification: Verification) -> None:
    """Write `verification.json`, `report.html` and, last, `provenance.json` with the digests of all other files."""
    write_json(stage / provenance.VERIFICATION_FILE, verification.to_json())
    record["files"] = provenance.digests(_files(stage), stage)
    (stage / provenance.REPORT_FILE).write_text(render(record, verification), encoding="utf-8")
    record["files"] = provenance.digests(_files(stage), stage)
    write_json(stage / provenance.PROVENANCE_FILE, record)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Readable for people too. Raises: OSError."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def batched(facts: SourceFacts) -> bool | None:
    """Whether requests may be stacked; None when a server finds out by itself.

    A server stacks requests on the first axis when it is dynamic everywhere. Where the source says that this axis is
    something else (`--dynamic 'x:0=seq'`), the configuration has to forbid it.
    """
    specs = facts.interface.inputs
    if not specs or not all(spec.shape and isinstance(spec.shape[0], str) for spec in specs):
        return None
    return None if all(spec.shape and spec.shape[0] == BATCH for spec in specs) else False


def _files(stage: Path) -> list[Path]:
    return [each for each in stage.rglob("*") if each.is_file() and each.name != provenance.PROVENANCE_FILE]


def _copy_side_files(facts: SourceFacts, stage: Path) -> None:
    """Put tokenizers and the like beside the model.

    Raises: CommandFailed for a name that is ours or would leave the folder: the converter's mistake.
    """
    for name, path in facts.side_files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or name in _RESERVED or not pure.parts:
            raise CommandFailed(f"the converter wants to keep a file as '{name}', which it must not")
        target = stage / pure
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target)
        except OSError as exc:
            raise BadSource(f"'{path.name}' cannot be copied beside the model: {exc.strerror}") from exc


def _labels(facts: SourceFacts) -> dict[str, list[str]]:
    """Class names that fit in a label file: one a line."""
    return {
        output: [label.replace("\n", " ").replace("\r", " ") for label in labels]
        for output, labels in facts.labels.items()
        if 0 < len(labels) <= _MAX_LABELS
    }


def _peak_bytes() -> int:
    """The most memory this process held at once, by its own account; kilobytes on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
