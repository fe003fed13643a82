"""Find and parse the configuration file of one model folder.

At most one of `config.pbtxt` and `config.toml` may be there: which of two wins is a guess nobody should have to make.
What the file means is the `config` room's business; here a refusal only becomes the model's problem.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tensorquay.config.files import parse_config, select_config
from tensorquay.core.errors import ServingError
from tensorquay.repository.files import ScanLimits, UnusableFile, read_inside, stamp_file
from tensorquay.repository.snapshot import DeclaredConfig


def read_config(
    folder: Path, names: list[str], root: Path, limits: ScanLimits, known: DeclaredConfig | None
) -> DeclaredConfig | None:
    """The configuration among `names` of `folder`; None when there is none.

    Args: known: what an earlier look found; its parse is reused when the text is the same.
    Returns: with `problem` set when the file is refused, unreadable, too large, or there are two.
    """
    try:
        source = select_config(names)
    except ServingError as exc:
        return DeclaredConfig("", "", None, exc.message)
    if source is None:
        return None
    try:
        # Before the content: a write that comes in between is then seen as a change by the next look.
        stamp = stamp_file(folder / source, source, root)
        text = read_inside(folder / source, source, root, limits.max_config_bytes).decode()
    except UnusableFile as exc:
        return DeclaredConfig(source, "", None, str(exc))
    except UnicodeDecodeError:
        return DeclaredConfig(source, "", None, f"{source}: is not UTF-8 text")
    if known is not None and (known.source, known.text) == (source, text) and known.config is not None:
        return replace(known, stamp=stamp)
    try:
        return DeclaredConfig(source, text, parse_config(source, text), stamp=stamp)
    except ServingError as exc:
        return DeclaredConfig(source, text, None, exc.message, stamp)
