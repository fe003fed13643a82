"""Can this terminal show what commands print?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tensorquay.commands.doctor.findings import Finding, note, ok, warning


def examine(environment: Mapping[str, str], *, encoding: str, files: str, is_terminal: bool) -> Iterator[Finding]:
    """Findings about texts.

    Args:
        encoding: of standard output.
        files: of file names.
    """
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or "not set"
    if not _is_utf8(files):
        yield warning(
            "terminal.files",
            f"file names are read as {files}, by the locale ({locale[:40]}): models with other letters in their names "
            "are shown wrongly",
            "export LC_ALL=C.UTF-8, or PYTHONUTF8=1",
        )
    if not _is_utf8(encoding):
        yield note(
            "terminal.encoding",
            f"standard output takes {encoding}, by the locale ({locale[:40]}): other letters are shown by number",
            "export LC_ALL=C.UTF-8, or PYTHONUTF8=1",
        )
    else:
        yield ok("terminal.encoding", f"standard output takes {encoding}, locale {locale[:40]}")
    if is_terminal and environment.get("TERM", "dumb") == "dumb":
        yield note(
            "terminal.kind",
            "this terminal says of itself that it is 'dumb': no colours, and 'top' cannot redraw",
            "export TERM=xterm",
        )


def _is_utf8(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "") == "utf8"
