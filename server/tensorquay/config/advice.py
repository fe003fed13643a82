"""How a model should be executed by the advice of its optimisation, where its configuration does not say. Pure."""

from __future__ import annotations

from dataclasses import fields, replace

from tensorquay.config.model import ADVISABLE, ExecutionConfig, InstanceGroup, InstanceKind

OPTIMIZATION_FILE = "optimization.json"
"""The file with the advice, in a version's folder; also its name as an origin."""


def says_where(execution: ExecutionConfig, groups: tuple[InstanceGroup, ...]) -> bool:
    """Whether a configuration decides by itself between CPU and GPU."""
    return bool(execution.providers) or any(group.kind is not InstanceKind.AUTO or group.gpus for group in groups)


def follow(given: ExecutionConfig, advice: ExecutionConfig, *, placed: bool) -> tuple[ExecutionConfig, frozenset[str]]:
    """`given` with what it leaves open taken from `advice`, and the names of the fields that changed by it.

    Args: placed: the configuration says where the model runs (`says_where`): then no provider is taken over.
    """
    plain = ExecutionConfig()
    taken: dict[str, object] = {}
    for name in ADVISABLE - given.insists:
        mine, other = getattr(given, name), getattr(advice, name)
        if mine == getattr(plain, name) != other:
            taken[name] = other
    if advice.providers and not given.providers and not placed:
        taken["providers"] = advice.providers
    if not advice.session_options.keys() <= given.session_options.keys():
        taken["session_options"] = {**advice.session_options, **given.session_options}
    followed = replace(given, **taken)  # type: ignore[arg-type]
    return followed, frozenset(each.name for each in fields(plain) if each.name in taken)
