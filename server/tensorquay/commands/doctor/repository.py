"""What `tensorquay check` says about the repositories, in short. It runs in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, listed, note, ok, problem, warning
from tensorquay.config.server import ServerConfig

_MOST = 20

Check = Callable[[Sequence[str]], Ended]
"""Runs `tensorquay check --json` with these arguments."""


def examine(config: ServerConfig, check: Check) -> Iterator[Finding]:
    """Findings about model repositories."""
    folders = list(map(str, config.model_repository))
    if not folders:
        yield note(
            "repository.named", "no model repository is named, so none was looked at", "tensorquay doctor model_repo"
        )
        return
    ended = check([f"--default-max-batch-size={config.default_max_batch_size}", "--", *folders])
    again = f"tensorquay check {' '.join(folders)}"
    try:
        said = _document(ended)
    except ValueError:
        reason = ended.errors.strip().splitlines()[-1][:500] if ended.errors.strip() else "it said nothing"
        reason = reason.removeprefix("tensorquay: ")
        how = f" (tensorquay check {ended.why})" if ended.why and "status 1" not in ended.why else ""
        yield problem("repository.readable", f"{reason}{how}")
        return
    problems = [
        (model["name"], each["version"], each["text"]) for model in said["models"] for each in model["problems"]
    ]
    for name, version, text in problems[:_MOST]:
        which = f"model '{name}'" if version is None else f"model '{name}' version {version}"
        yield problem("repository.model", f"{which}: {' '.join(text.split())}", f"{again} says more")
    if len(problems) > _MOST:
        yield problem("repository.model", f"{len(problems) - _MOST} more problems of models", again)
    for remark in said["remarks"][:_MOST]:
        yield note("repository.remark", " ".join(remark.split()))
    yield _summary(said, folders)


def _document(ended: Ended) -> dict[str, Any]:
    said = json.loads(ended.output)
    if not isinstance(said, dict):
        raise ValueError("no document")
    return said


def _summary(said: dict[str, Any], folders: Sequence[str]) -> Finding:
    serve = [model["name"] for model in said["models"] if model["versions"]]
    if not said["models"]:
        return warning(
            "repository.models", f"there is no model in {listed(list(folders))}", "a model is NAME/1/model.onnx in it"
        )
    count = len(said["models"])
    return ok(
        "repository.models", f"{len(serve)} of {count} model{'s' if count > 1 else ''} can be served: {listed(serve)}"
    )
