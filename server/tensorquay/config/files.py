"""Which of a model folder's files is its configuration, and what it says. Pure: reading is the repository's."""

from __future__ import annotations

from collections.abc import Collection

from tensorquay.config import refusal, toml_lines, triton_lines
from tensorquay.config.model import ModelConfig
from tensorquay.config.refusal import PBTXT, TOML, WHOLE_FILE, ConfigRefused
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_pbtxt


def select_config(present: Collection[str]) -> str | None:
    """The configuration among the names of a model's folder; None when it has none.

    Raises: ConfigRefused when there are two, because neither may win silently.
    """
    found = [name for name in (PBTXT, TOML) if name in present]
    if len(found) > 1:
        raise ConfigRefused(
            file=PBTXT,
            key=WHOLE_FILE,
            value=None,
            rule=f"the model's folder also has {TOML}, and one model has one configuration",
            hint="keep one of the two",
        )
    return found[0] if found else None


def parse_config(name: str, text: str) -> ModelConfig:
    """The configuration in the file that `select_config` chose.

    Args: name: the file's name, which decides the format. text: its content.
    Raises: ConfigRefused.
    """
    return parse_toml(text) if name == TOML else parse_pbtxt(text)


def line_of(file: str, text: str, key: str) -> int | None:
    """The line of `text` where `key` of a configuration is written; None where that is not known.

    Args: file: what the text was read from; that of a load request has no lines.
    """
    match file:
        case refusal.TOML:
            return toml_lines.line_of(text, key)
        case refusal.PBTXT:
            return triton_lines.line_of(text, key)
    return None
