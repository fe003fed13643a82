"""Settings as the part of a model's config.toml that makes a server run the model as it was measured. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tensorquay_convert.optimize.variants import Settings

_DEFAULT = Settings()
_AFTER = {"cuda": ("cpu",), "tensorrt": ("cuda", "cpu")}
"""What runs the nodes that a provider cannot, as `session.PROVIDERS` has it."""


def config_toml(settings: Settings) -> str:
    """`[execution]` with what differs from a server's defaults; empty when nothing does."""
    keys, after = [], _AFTER.get(settings.provider, ())
    if settings.provider != _DEFAULT.provider and not settings.provider_options:
        keys.append(f"providers = [{', '.join(map(quoted, (settings.provider, *after)))}]")
    if settings.graph_optimization != _DEFAULT.graph_optimization:
        keys.append(f"graph_optimization = {quoted(settings.graph_optimization)}")
    if settings.intra_op_threads:
        keys.append(f"intra_op_threads = {settings.intra_op_threads}")
    if settings.parallel:
        keys += ["parallel = true", f"inter_op_threads = {settings.inter_op_threads}"]
    if settings.spinning:
        keys.append("spinning = true")
    parts = []
    if settings.provider_options:
        options = _pairs(settings.provider_options)
        parts.append(f"[[execution.provider]]\nname = {quoted(settings.provider)}\noptions = {{ {options} }}\n")
        parts += [f"[[execution.provider]]\nname = {quoted(each)}\n" for each in after]
    if settings.session_options:
        keys.append(f"session_options = {{ {_pairs(settings.session_options)} }}")
    if keys or parts:
        parts.insert(0, "\n".join(["[execution]", *keys]) + "\n")
    return "\n".join(parts)


def quoted(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL and halves of surrogate pairs."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007F")


def _pairs(options: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(key)} = {quoted(value)}" for key, value in options.items())
