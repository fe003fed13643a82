"""What `tensorquay check` says about the repositories, in short. It runs in a process of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, listed, note, ok, problem, warning
from tensorquay.config.rules import GPU_PROVIDERS
from tensorquay.config.server import ControlMode, ServerConfig

_MOST = 20

_GPU_GROUP = re.compile(r"\bkind KIND_GPU\b|\bgpus ")
_GPU_PROVIDER = re.compile(rf"\b({'|'.join(GPU_PROVIDERS)})\b")

Check = Callable[[Sequence[str]], Ended]
"""Runs `tensorquay check --json` with these arguments."""


def examine(config: ServerConfig, check: Check, gpus: Callable[[], int | None] = lambda: None) -> Iterator[Finding]:
    """Findings about model repositories.

    Args: gpus: how many the runtime can use here; None: that is not known.
    """
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
        unread = "correct its name, mount it, or let this user read it"
        yield problem("repository.readable", f"{reason}{how}", unread if "cannot be read" in reason else again)
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
    asking = [model["name"] for model in said["models"] if model["versions"] and _needs_a_gpu(model.get("config", {}))]
    if asking and gpus() == 0:
        yield problem(
            "repository.gpu",
            f"a GPU is asked for and there is none that the runtime can use: {listed(asking)}",
            "see what models run on, above; or ask for the CPU (kind KIND_CPU, providers without cuda and tensorrt), "
            "or allow falling back to it (config.toml: [execution] allow_fallback = true)",
        )
    else:
        asking = []
    yield _summary(said, folders, config, set(asking))


def _needs_a_gpu(shown: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a model with this configuration is refused on a machine without one."""

    def of(name: str) -> str:
        return shown.get(name, {}).get("value", "")

    asks = _GPU_GROUP.search(of("instance_groups")) or _GPU_PROVIDER.search(of("execution.providers"))
    return asks is not None and of("execution.allow_fallback") != "true"


def _document(ended: Ended) -> dict[str, Any]:
    said = json.loads(ended.output)
    if not isinstance(said, dict):
        raise ValueError("no document")
    return said


def _summary(said: dict[str, Any], folders: Sequence[str], config: ServerConfig, refused: set[str]) -> Finding:
    serve = [model["name"] for model in said["models"] if model["versions"] and model["name"] not in refused]
    if not said["models"]:
        waits = config.model_control_mode is not ControlMode.NONE or not config.exit_on_error
        tell = warning if waits else problem
        remedy = "a model is NAME/1/model.onnx in it"
        if not waits:
            remedy += "; --model-control-mode=poll waits for models, --exit-on-error=false serves none"
        return tell("repository.models", f"there is no model in {listed(list(folders))}", remedy)
    count = len(said["models"])
    names = f": {listed(serve)}" if serve else ""
    return ok("repository.models", f"{len(serve)} of {count} model{'s' if count > 1 else ''} can be served{names}")
