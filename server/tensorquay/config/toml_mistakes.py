"""What is wrong with a config.toml, in words that help: where, what was expected, what it says, what to write.

Pure. The findings are tomllib's and pydantic's; what is known about a key is its `Key`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tensorquay.config.refusal import WHOLE_FILE, ConfigRefused, did_you_mean
from tensorquay.config.toml_key import Declared, declared, is_named, table_in
from tensorquay.config.toml_lines import line_of, syntax_problem
from tensorquay.config.toml_schema import ConfigTable

_EXPECTED = {
    "string_type": "text between quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "missing": "it is required",
}

_MOST_OTHERS = 3


def syntax_refused(error: Exception, file: str) -> ConfigRefused:
    """What tomllib says, with its line where it names one."""
    rule, hint, line = syntax_problem(error)
    return ConfigRefused(file=file, key=WHOLE_FILE, value=None, rule=rule, hint=hint, line=line)


def schema_refused(error: ValidationError, file: str, text: str) -> ConfigRefused:
    """pydantic's findings: the first in full, the others by name."""
    findings = error.errors(include_url=False)
    # A misspelt key is also a missing one; the misspelling is what helps.
    findings.sort(key=lambda each: each["type"] != "extra_forbidden")
    path, kind = tuple(findings[0]["loc"]), str(findings[0]["type"])
    value: object = findings[0]["input"]
    hint = ""
    if path and path[-1] == "[key]":  # a table's key is at fault, not the value under it
        path, value, rule = path[:-1], None, "the name of this table is a priority level, 1 …"
    elif kind == "extra_forbidden":
        value, rule, hint = None, "unknown key", _nearest(path)
    elif kind == "missing":
        value, rule, hint = None, "it is required", _for_example(path)
    elif kind == "literal_error":
        rule = f"it must be {findings[0].get('ctx', {}).get('expected', '')}"
    else:
        rule = f"it must be {_EXPECTED.get(kind, str(findings[0]['msg'])[:200])}"
        hint = _for_example(path)
    key = dotted(path)
    others = [name for name in dict.fromkeys(dotted(each["loc"]) for each in findings[1:]) if name != key]
    if others:
        more = ", ".join(f"'{name[:60]}'" for name in others[:_MOST_OTHERS])
        hint += f"{'; ' if hint else ''}wrong as well: {more}{' …' if len(others) > _MOST_OTHERS else ''}"
    return ConfigRefused(file=file, key=key, value=value, rule=rule, hint=hint, line=line_of(text, key))


def dotted(path: Iterable[int | str]) -> str:
    """A key's place as errors name it: "input[0].dims"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text[:240]


def _for_example(path: Sequence[int | str]) -> str:
    """What its line could be, and what it decides."""
    named = [part for part in path if not isinstance(part, int)]
    for each in declared(ConfigTable):
        parts = each.path.split(".")
        fits = len(parts) == len(named) and all(a in (b, "NAME") for a, b in zip(parts, named, strict=True))
        if fits and each.key.example:
            means = each.key.text.partition(". ")[0].rstrip(".").replace("`", "")
            if not means[:2].isupper():
                means = means[0].lower() + means[1:]
            return f"for example: {each.name} = {each.key.example} ({means})"
    return ""


def _nearest(path: Sequence[int | str]) -> str:
    """What to write for an unknown key: the nearest one here, or what it is called and where it stands."""
    word = str(path[-1])
    elsewhere = [each for each in declared(ConfigTable) if _is(each, word)]
    if len(elsewhere) != 1:
        return did_you_mean(word, _keys_at(path[:-1]))
    (only,) = elsewhere
    if table_in(only.field.annotation) is not None:
        return f"it is the table [{only.path}]"
    where = f"of [{only.table}]" if only.table else "at the top of the file, before the first [table]"
    return f"it is '{only.name}' {where}"


def _is(each: Declared, word: str) -> bool:
    """Whether a key has this name, here or in config.pbtxt."""
    theirs = re.sub(r"^parameters\[(.+)\]$", r"\1", each.key.pbtxt).rpartition(".")[2]
    return word in {each.name, theirs}


def _keys_at(path: Sequence[int | str]) -> list[str]:
    """The keys that the table at `path` may have."""
    here: type[BaseModel] | None = ConfigTable
    named_by_user = False
    for part in path:
        if isinstance(part, int) or named_by_user:
            named_by_user = False  # a list's position or a mapping's key: `here` is the table inside already
            continue
        field = None if here is None else here.model_fields.get(part)
        annotation: Any = None if field is None else field.annotation
        named_by_user = is_named(annotation)
        here = table_in(annotation)
    return [] if here is None else list(here.model_fields)
