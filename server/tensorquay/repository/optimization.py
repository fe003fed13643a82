"""`optimization.json` of a version: what an optimisation found out, where, and how it says that the model should run.

The file is whoever's wrote the repository. It is read with a bound; what is missing in it or of another type counts as
not said, and settings that a configuration could not have either are refused as a whole, in `problem`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorquay.config.advice import OPTIMIZATION_FILE
from tensorquay.config.model import ExecutionConfig, ModelConfig, ProviderConfig
from tensorquay.config.refusal import ConfigRefused, printable
from tensorquay.config.rules import MAX_THREADS, check, names_a_file
from tensorquay.repository.files import MissingFile, UnusableFile, read_inside

SCHEMA = "tensorquay.optimization/1"

_MAX_BYTES = 32 << 20
_MAX_TEXT = 400
_MAX_ITEMS = 256
_MAX_VERSION_DIGITS = 19


@dataclass(frozen=True, slots=True)
class OptimizedOn:
    """The machine on which it was measured; empty where the file does not tell."""

    cpu: str = ""
    features: tuple[str, ...] = ()
    processors: int = 0
    onnxruntime: str = ""
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Optimization:
    """What an `optimization.json` says, as far as a server needs it.

    Args:
        winner: name of the variant that the model is; empty: none was faster and it is what it was.
        execution: how it should run; None when that cannot be used, and then `problem` says why.
        source_sha256: of the model that was optimised, lower case; empty when not told.
        source_version: its version in the same repository; 0 when not told.
        score: how many times better by its goal; None when not told.
    """

    winner: str = ""
    sentence: str = ""
    execution: ExecutionConfig | None = None
    problem: str = ""
    machine: OptimizedOn = OptimizedOn()
    source_sha256: str = ""
    source_version: int = 0
    score: float | None = None

    @property
    def provider(self) -> str:
        """The execution provider it was optimised for."""
        providers = self.execution.providers if self.execution is not None else ()
        return providers[0].name if providers else "cpu"


def read_optimization(folder: Path) -> Optimization | None:
    """What `optimization.json` in `folder` says; None when there is none.

    Raises: UnusableFile when it is there and cannot be read, or is no such file.
    """
    try:
        real = folder.resolve()
        data = read_inside(real / OPTIMIZATION_FILE, OPTIMIZATION_FILE, real, _MAX_BYTES)
    except MissingFile:
        return None
    except (OSError, RuntimeError) as exc:
        raise UnusableFile(f"'{OPTIMIZATION_FILE}' cannot be read") from exc
    try:
        written = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise UnusableFile(f"'{OPTIMIZATION_FILE}' is not JSON") from exc
    if not isinstance(written, dict) or written.get("schema") != SCHEMA:
        found = _text(written, "schema") if isinstance(written, dict) else ""
        raise UnusableFile(f"'{OPTIMIZATION_FILE}' has the schema '{found}', expected '{SCHEMA}'")
    return _optimization(written)


def _optimization(written: Mapping[str, object]) -> Optimization:
    machine, subject, baseline = (_table(written, name) for name in ("machine", "subject", "baseline"))
    winner = _text(written, "winner")
    try:
        execution, problem = _execution(_table(written, "settings")), ""
    except ConfigRefused as exc:
        execution, problem = None, exc.message
    return Optimization(
        winner=winner,
        sentence=_text(written, "sentence"),
        execution=execution,
        problem=problem,
        machine=OptimizedOn(
            cpu=_text(machine, "cpu"),
            features=tuple(printable(each[:64]) for each in _texts(machine, "features")),
            processors=_count(machine, "processors"),
            onnxruntime=_text(machine, "onnxruntime"),
            gpu=_text(machine, "gpu"),
        ),
        source_sha256=(_text(baseline, "sha256") or _text(subject, "sha256")).lower(),
        source_version=_version(baseline.get("version", written.get("baseline"))),
        score=_score(written, winner),
    )


def _execution(settings: Mapping[str, object]) -> ExecutionConfig:
    """How the model should run, kept to what its own configuration could say.

    Raises: ConfigRefused.
    """
    provider = _text(settings, "provider") or "cpu"
    parallel = settings.get("parallel") is True
    execution = ExecutionConfig(
        providers=(ProviderConfig(provider, _options(settings, "provider_options")),),
        graph_optimization=_text(settings, "graph_optimization") or "all",
        intra_op_threads=_count(settings, "intra_op_threads"),
        # Without parallel branches that pool has no work, whatever size it was given.
        inter_op_threads=_count(settings, "inter_op_threads") if parallel else 0,
        parallel=parallel,
        spinning=settings.get("spinning") is True,
        session_options=_options(settings, "session_options"),
    )
    for name, options in (
        ("provider_options", execution.providers[0].options),
        ("session_options", execution.session_options),
    ):
        for option, value in options.items():
            if names_a_file(option) or _sounds_like_a_file(option):
                rule = "options that name files or folders are not taken from this file"
                raise ConfigRefused(file=OPTIMIZATION_FILE, key=f"settings.{name}.{option}", value=value, rule=rule)
    check(ModelConfig(execution=execution, source=OPTIMIZATION_FILE))
    return execution


def _sounds_like_a_file(option: str) -> bool:
    """Stricter than for a person's own configuration: nobody may have read this file."""
    word = option.lower().replace("profile", "")
    return any(part in word for part in ("path", "file", "folder", "directory", "table_name", "library"))


def _options(settings: Mapping[str, object], name: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for option, value in list(_table(settings, name).items())[:_MAX_ITEMS]:
        key = printable(str(option)[:_MAX_TEXT])
        if isinstance(value, bool):
            options[key] = "1" if value else "0"
        elif isinstance(value, str | int) and len(str(value)[: _MAX_TEXT + 1]) <= _MAX_TEXT:
            options[key] = str(value)
        else:
            raise ConfigRefused(file=OPTIMIZATION_FILE, key=f"settings.{name}.{key}", value=value, rule="no text")
    return options


def _score(written: Mapping[str, object], winner: str) -> float | None:
    """Of the variant that won."""
    trials = written.get("trials")
    for trial in trials if isinstance(trials, list) else ():
        if isinstance(trial, dict) and winner and _text(_table(trial, "variant"), "name") == winner:
            score = trial.get("score")
            if isinstance(score, int) and not isinstance(score, bool) and score.bit_length() <= 64:
                return float(score)
            if isinstance(score, float) and math.isfinite(score):
                return score
    return None


def _table(written: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = written.get(name)
    return value if isinstance(value, dict) else {}


def _text(written: Mapping[str, object], name: str) -> str:
    value = written.get(name)
    return printable(value[:_MAX_TEXT]) if isinstance(value, str) else ""


def _texts(written: Mapping[str, object], name: str) -> Sequence[str]:
    value = written.get(name)
    return [each for each in value[:_MAX_ITEMS] if isinstance(each, str)] if isinstance(value, list) else []


def _count(written: Mapping[str, object], name: str) -> int:
    """A whole number from 0; one that cannot be a number of threads is 0."""
    value = written.get(name)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_THREADS
    return value if good and isinstance(value, int) else 0


def _version(value: object) -> int:
    """A version's number, written as one or as text; 0 when it is none."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64 else value
    good = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= _MAX_VERSION_DIGITS
    return int(text) if good and isinstance(text, str) else 0
