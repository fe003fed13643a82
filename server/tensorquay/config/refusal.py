"""How a configuration is refused: file, key, value, rule, in the words of the file the user wrote.

Owns `ConfigRefused` and the spelling of keys. Rules name a key as config.toml does; `spelled` turns that into
Triton's name when the file is one of Triton's.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from tensorquay.core.errors import InvalidArgument

PBTXT = "config.pbtxt"
TOML = "config.toml"
LOAD_REQUEST = "load request"

WHOLE_FILE = "(whole file)"
"""The key of a refusal that no single key is to blame for; texts leave it out."""

ALLOW_FALLBACK = (
    "config.toml: [execution] allow_fallback = true; "
    'config.pbtxt: parameters { key: "allow_provider_fallback" value { string_value: "true" } }'
)
"""What to write so that a model may run on the CPU when the GPU or provider it asks for cannot be had."""

_SHOWN_CHARACTERS = 120
"""Longest piece of a file that an error repeats: enough to find it, too short to fill a log."""

OTHER_TYPES = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "FLOAT32": "FP32",
    "FLOAT64": "FP64",
    "DOUBLE": "FP64",
    "HALF": "FP16",
    "BFLOAT16": "BF16",
    "STRING": "BYTES",
}
"""Names of data types that people bring from other tools → the wire's."""

_RESPELL = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^model_file$", "default_model_filename"),
        (r"^versions\.count$", "version_policy.latest.num_versions"),
        (r"^versions\.versions$", "version_policy.specific.versions"),
        (r"^versions\b.*$", "version_policy"),
        (r"^batching\.oversize$", "parameters[oversize_requests]"),
        (r"^batching\.enabled$", "dynamic_batching"),
        (r"^batching\.queue\b", "dynamic_batching.default_queue_policy"),
        (r"^batching\.priority\.(\d+)", r"dynamic_batching.priority_queue_policy[\1]"),
        (r"^batching\.preferred_batch_sizes", "dynamic_batching.preferred_batch_size"),
        (r"^batching\b", "dynamic_batching"),
        (r"^execution\.providers$", "optimization.execution_accelerators"),
        (r"^execution\.graph_optimization$", "optimization.graph.level"),
        (r"^execution\.intra_op_threads$", "parameters[intra_op_thread_count]"),
        (r"^execution\.inter_op_threads$", "parameters[inter_op_thread_count]"),
        (r"^execution\.arena_shrinkage$", "parameters[memory.enable_memory_arena_shrinkage]"),
        (r"^execution\.session_options\.(.*)$", r"parameters[\1]"),
        (r"^instances\b", "instance_group"),
        (r"^warmup\b", "model_warmup"),
        (r"\.inputs\.(.+)\.(datatype|dims|data|file)$", r".inputs[\1].\2"),
        (r"^(parameters|metric_tags)\.(.*)$", r"\1[\2]"),
        (r"\.datatype$", ".data_type"),
        (r"\.reshape$", ".reshape.shape"),
        (r"\.labels$", ".label_filename"),
        (r"(model_warmup\[.*)\.file$", r"\1.input_data_file"),
        (r"_us$", "_microseconds"),
    )
)


class ConfigRefused(InvalidArgument):
    """A model's configuration cannot be served as written; the model does not load with it.

    Args:
        file: what the user wrote ("config.pbtxt", "config.toml", "load request"); never a path.
        key: the key in that file's own spelling, or `WHOLE_FILE`.
        value: what it says there; cut in the text and in the facts when long. None when the key itself is at fault.
        rule: what is allowed, or why not.
        hint: what to do instead, a sentence.
        line: where, when the parser knows.
    """

    def __init__(
        self, *, file: str, key: str, value: object, rule: str, hint: str = "", line: int | None = None
    ) -> None:
        key, rule, hint = printable(key), printable(rule), printable(hint)
        self.file, self.key, self.rule, self.line = file, key, rule, line
        self._value, self._hint = value, hint
        shown = brief(value)
        where = file if line is None else f"{file} line {line}"
        what = f"'{key}'" if value is None else f"'{key}' = {shown}"
        if key == WHOLE_FILE:
            told = rule if value is None else f"{rule}, got {shown}"
        else:
            told = f"{what} is refused: {rule}"
        facts: dict[str, object] = {"file": file, "key": key, "value": shown, "rule": rule}
        if line is not None:
            facts["line"] = line
        if hint:
            facts["hint"] = hint
        super().__init__(f"{where}: {told}{'; ' + hint if hint else ''}", facts=facts)

    def at(self, line: int | None) -> ConfigRefused:
        """The same refusal with the line where it applies; itself when that is known already or not at all."""
        if self.line is not None or line is None:
            return self
        return ConfigRefused(
            file=self.file, key=self.key, value=self._value, rule=self.rule, hint=self._hint, line=line
        )


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped: it goes to logs and to JSON."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def brief(value: object) -> str:
    """`value` for an error text, cut when long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"  # its decimal digits may be more than Python will print
    text = repr(list(value)[:64]) if isinstance(value, tuple | list) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the known word closest to `word`, or all of them when few, or nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:64], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known here: {', '.join(names)}" if 0 < len(names) <= 24 else ""


def spelled(key: str, file: str) -> str:
    """`key` of config.toml as `file` spells it."""
    if file.endswith((".toml", ".json")):
        return key
    for pattern, replacement in _RESPELL:
        key = pattern.sub(replacement, key)
    return key
