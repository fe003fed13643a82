"""Find and parse the configuration file of one model folder.

At most one of `config.pbtxt` and `config.toml` may be there: which of two wins is a guess nobody should have to make.
What the file means is the `config` room's business; here a refusal only becomes the model's problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tensorquay.config.files import parse_config, select_config
from tensorquay.config.refusal import PBTXT, TOML
from tensorquay.core.errors import ServingError
from tensorquay.repository.files import ScanLimits, UnusableFile, read_inside, stamp_file
from tensorquay.repository.snapshot import DeclaredConfig, VersionFiles


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
        # Editors of Windows begin UTF-8 with a mark, and it says nothing.
        text = read_inside(folder / source, source, root, limits.max_config_bytes).decode("utf-8-sig")
    except UnusableFile as exc:
        return DeclaredConfig(source, "", None, str(exc))
    except UnicodeDecodeError as exc:
        line, byte = exc.object.count(b"\n", 0, exc.start) + 1, exc.object[exc.start]
        told = f"{source} line {line}: it is not UTF-8 text, got byte 0x{byte:02x}; save the file as UTF-8"
        return DeclaredConfig(source, "", None, told)
    if known is not None and (known.source, known.text) == (source, text) and known.config is not None:
        return replace(known, stamp=stamp)
    try:
        return DeclaredConfig(source, text, parse_config(source, text), stamp=stamp)
    except ServingError as exc:
        return DeclaredConfig(source, text, None, exc.message, stamp)


def not_read(names: Iterable[str], versions: Mapping[int, VersionFiles]) -> Iterator[str]:
    """Sentences about what was probably meant to be the configuration, where there is none.

    Args: names: what is in the model's folder.
    """
    for name in names:
        if name.lower().startswith("config."):
            yield f"'{name[:64]}' is not read: a model's configuration is called {TOML} or {PBTXT}"
    for number, files in versions.items():
        for name in sorted({stamp.path for stamp in files.fingerprint} & {TOML, PBTXT}):
            yield f"'{number}/{name}' is not read: the configuration of all versions is {name} in the model's folder"
