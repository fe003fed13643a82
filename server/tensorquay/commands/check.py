"""`tensorquay check`: what a repository would serve, and everything that is wrong with it, without serving it.

Certificates and keys too, when they are named.

Goes as far as a load does before it makes a session: scan, configuration, the graph's signature, labels, warm-up files,
instances.
Whether a GPU or an execution provider is there is a question to the machine that serves, so it is not asked here.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import click

from tensorquay.backends.registry import BackendRegistry
from tensorquay.commands.folders import refuse_address, refuse_model_folder
from tensorquay.commands.output import console, table
from tensorquay.commands.tls_options import check_files, checked_files
from tensorquay.config.effective import DEFAULT_MAX_BATCH_SIZE, Defaults, effective
from tensorquay.config.model import (
    AllVersions,
    EffectiveConfig,
    LatestVersions,
    ModelConfig,
    OptimizationConfig,
    SpecificVersions,
    VersionPolicy,
)
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.lifecycle.instances import plan_instances
from tensorquay.lifecycle.labels import read_labels, unlabelled
from tensorquay.lifecycle.samples import check_files as check_sample
from tensorquay.repository.files import UnusableFile, resolve_inside
from tensorquay.repository.optimization import read_optimization
from tensorquay.repository.scan import scan, why_empty
from tensorquay.repository.snapshot import ModelFolder, RepositoryUnreadable, VersionFiles, describe_policy
from tensorquay.repository.version_policy import select


@dataclass(slots=True)
class Problem:
    """Something that keeps a model or a version from being served. `facts`: file, key, value, rule where known."""

    text: str
    version: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Finding:
    """What was found out about one model."""

    model: str
    serves: list[int] = field(default_factory=list)
    settings: list[tuple[str, str, str]] = field(default_factory=list)
    """Dotted name, value and origin of every setting in force for the highest version that would be served."""
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@click.command(
    short_help="Check a repository without serving it.", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("repositories", nargs=-1, metavar="REPOSITORY...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@checked_files
@click.option(
    "--default-max-batch-size",
    default=DEFAULT_MAX_BATCH_SIZE,
    show_default=True,
    type=click.IntRange(min=0),
    help="max_batch_size of a model that can batch and does not say, as for 'serve'.",
)
@click.pass_context
def check(
    ctx: click.Context,
    /,
    repositories: tuple[Path, ...],
    as_json: bool,
    default_max_batch_size: int,
    **tls: Path | None,
) -> None:
    """Check the models of repositories, and certificates, without serving them.

    Prints the configuration in force of every model with each value's origin (the configuration file, the graph, or a
    default), and every problem. Exit code 1 when there is one. Whether GPUs and providers are there is not checked.
    """
    if not repositories and not any(tls.values()):
        raise click.UsageError("check what? Name a repository: 'tensorquay check model_repo'", ctx)
    good, bad = check_files(tls)
    for repository in repositories:
        refuse_address(repository)
    try:
        snapshot = scan(repositories)
    except RepositoryUnreadable as exc:
        shown = repositories[exc.repository]
        raise click.ClickException(f"the model repository '{shown}' cannot be read: {exc.reason}") from exc
    for repository in repositories:
        refuse_model_folder(repository)
    defaults, backends = Defaults(max_batch_size=default_max_batch_size), BackendRegistry()
    findings = [_examine(snapshot.models[name], defaults, backends) for name in sorted(snapshot.models)]
    if as_json:
        click.echo(json.dumps(_as_json(findings, snapshot.notes, good, bad), indent=2, ensure_ascii=False))
    else:
        _print(findings, snapshot.notes, good, bad)
    ctx.exit(1 if bad or any(finding.problems for finding in findings) else 0)


def _examine(model: ModelFolder, defaults: Defaults, backends: BackendRegistry) -> Finding:
    finding = Finding(model.name, remarks=[*model.notes, *(model.config.notes if model.config is not None else ())])
    if model.declared is not None and model.declared.problem:
        finding.problems.append(Problem(model.declared.problem))
    if model.problem and all(model.problem != problem.text for problem in finding.problems):
        finding.problems.append(Problem(model.problem))
    if finding.problems:
        return finding
    wanted = select(model.policy, model.versions)
    if isinstance(model.policy, SpecificVersions):
        absent = sorted(set(model.policy.versions) - set(model.versions))
        finding.remarks += [
            f"version {version} is asked for by the version policy and is not there" for version in absent
        ]
    if not model.versions:
        finding.problems.append(Problem(why_empty(model)))
    elif not wanted:
        finding.problems.append(Problem(f"the version policy ({describe_policy(model.policy)}) selects no version"))
    for version in sorted(model.versions):
        files = model.versions[version]
        if version not in wanted:
            why = f": {files.problem}" if files.problem else ""
            finding.remarks.append(f"version {version} is not served ({describe_policy(model.policy)}){why}")
            continue
        if files.source is not None:
            finding.serves.append(version)
            finding.remarks.append(
                f"version {version} is {files.source.shown} ({files.source.name}): imported when it is served, and "
                "checked then ('tensorquay import' tells now whether it can be)"
            )
            continue
        try:
            in_force, notes = _effective(model, files, defaults, backends)
        except ServingError as exc:
            finding.problems.append(Problem(exc.message, version, exc.facts))
        else:
            finding.serves.append(version)
            finding.settings = list(_settings(in_force))
            finding.remarks += [f"version {version}: {note}" for note in notes]
            if in_force.unbatched_because:
                finding.remarks.append(f"version {version} does not batch: {in_force.unbatched_because}")
            finding.remarks += [f"version {version}{told}" for told in _optimized(files)]
    finding.remarks += _missing_data(model)
    return finding


def _optimized(files: VersionFiles) -> Iterator[str]:
    """That a version was optimised; whether it fits is a question to the machine that serves."""
    if files.model_path is None:
        return
    try:
        found = read_optimization(files.model_path.parent)
    except UnusableFile as exc:
        yield f": {exc}"
        return
    if found is not None and found.problem:
        yield f": {found.problem}; none of its settings will be applied"
    elif found is not None and found.winner:
        on = f" on {found.machine.cpu or found.machine.gpu}" if found.machine.cpu or found.machine.gpu else ""
        yield f" was optimised ({found.winner}){on}: its settings are applied where they fit the machine that serves"


def _missing_data(model: ModelFolder) -> Iterator[str]:
    """What [optimization] names and is not there: no reason not to serve."""
    wanted = model.config.optimization if model.config is not None else OptimizationConfig()
    for key in ("data", "labels"):
        name = getattr(wanted, key)
        try:
            if name and not resolve_inside(model.path / name, model.path, name).is_file():
                yield f"optimization.{key}: '{name}' is no file; the model would not be optimised in the background"
        except UnusableFile as exc:
            yield f"optimization.{key}: {exc}; the model would not be optimised in the background"


def _effective(
    model: ModelFolder, files: VersionFiles, defaults: Defaults, backends: BackendRegistry
) -> tuple[EffectiveConfig, list[str]]:
    """The configuration in force for one version, and remarks about files it names.

    Raises: ServingError saying what is wrong with it.
    """
    if files.model_path is None:
        raise ServingError(files.problem)
    declared = model.config or ModelConfig()
    graph = backends.get(declared.backend).inspect(files.model_path)
    found = effective(model.name, model.config, graph.inputs, graph.outputs, defaults=defaults)
    labels = read_labels(model.path, found.config)
    for sample in found.config.warmup:
        check_sample(sample, model.path)
    groups = found.config.instance_groups
    # As if every GPU that is named were there: the limits on instances hold on any machine.
    plan_instances(groups, sorted({0, *(gpu for group in groups for gpu in group.gpus)}))
    return found, unlabelled(found.config, labels)


def _settings(in_force: EffectiveConfig) -> Iterator[tuple[str, str, str]]:
    for name, origin in in_force.origins.items():
        yield name, _shown(_at(in_force.config, name)), origin


def _at(config: ModelConfig, name: str) -> Any:
    """The value that `EffectiveConfig.origins` calls `name` ("input[0].dims", "parameters.some.key")."""
    for mapping in ("parameters", "metric_tags"):
        if name.startswith(mapping + "."):
            return getattr(config, mapping)[name.removeprefix(mapping + ".")]
    value: Any = config
    for part in name.split("."):
        base, _, index = part.partition("[")
        value = getattr(value, {"input": "inputs", "output": "outputs"}.get(base, base))
        if index:
            value = value[int(index.rstrip("]"))]
    return value


def _shown(value: Any) -> str:
    if isinstance(value, LatestVersions | AllVersions | SpecificVersions):
        policy: VersionPolicy = value
        return describe_policy(policy)
    if isinstance(value, DataType):
        return value.wire
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if is_dataclass(value) and not isinstance(value, type):
        parts = ((each.name, getattr(value, each.name)) for each in fields(value))
        return ", ".join(f"{name} {_shown(part)}" for name, part in parts if part not in ((), "", None))
    return str(value)


def _as_json(findings: list[Finding], notes: tuple[str, ...], good: list[str], bad: list[str]) -> dict[str, Any]:
    return {
        "ok": not bad and not any(finding.problems for finding in findings),
        "models": [
            {
                "name": finding.model,
                "versions": finding.serves,
                "config": {name: {"value": value, "origin": origin} for name, value, origin in finding.settings},
                "problems": [
                    {"version": each.version, "text": each.text, **_jsonable(each.facts)} for each in finding.problems
                ],
                "remarks": finding.remarks,
            }
            for finding in findings
        ],
        "tls": {"remarks": good, "problems": bad},
        "remarks": list(notes),
    }


def _jsonable(facts: Mapping[str, object]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else str(value) for name, value in facts.items() if name != "text"}


def _print(findings: list[Finding], notes: tuple[str, ...], good: list[str], bad: list[str]) -> None:
    """Args: good, bad: sentences about TLS files."""
    out = console()
    for finding in findings:
        serves = f"would serve {_versions(finding.serves)}" if finding.serves else "would serve nothing"
        out.print(f"{finding.model}: {serves}", style="bold")
        if finding.settings:
            out.print(table("setting", "value", "origin", rows=finding.settings))
        for remark in finding.remarks:
            out.print(f"note: {_one_line(remark)}")
        out.print()
    for note in (*notes, *good):
        out.print(f"note: {_one_line(note)}")
    for sentence in bad:
        out.print(f"problem: {_one_line(sentence)}", style="red")
    problems = [(finding.model, each) for finding in findings for each in finding.problems]
    for model, problem in problems:
        where = model if problem.version is None else f"{model} version {problem.version}"
        out.print(f"problem: {where}: {_one_line(problem.text)}", style="red")
    models = f"{len(findings)} model{'' if len(findings) == 1 else 's'}"
    count = len(problems) + len(bad)
    out.print(f"{models}, {count} problem{'' if count == 1 else 's'}")


def _versions(versions: list[int]) -> str:
    return f"version{'' if len(versions) == 1 else 's'} {', '.join(map(str, versions))}"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)
