"""No command in a document that nobody tries: what is not run is marked for the reader, and read word by word."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.docs import words
from tests.docs.markdown import MARKS, ROOT, SHELL, Block, anchors, blocks_of, commands_in, pages, prose
from tests.docs.pages import CONTAINER_PAGES, FRAMEWORKS, LONG, PREPARED, PRINTS, RUNNABLE, Runner, runner

from tensorquay.config.server import InvalidServerConfig
from tensorquay.config.server_sources import load
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_pbtxt
from tensorquay.core.errors import ServingError

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks_of(page)]

# What begins with "tensorquay serve: " is said by that command.
_COMMAND = re.compile(
    rf"(?!tensorquay(?: [a-z]+)*: )(?:\$ +)?(?:\.venv/bin/)?(?:{'|'.join(sorted(words.PROGRAMS))}) \S"
)


def _toml(block: Block, folder: Path) -> None:
    """A model's config.toml, or else settings of the server."""
    try:
        parse_toml(block.text)
    except ServingError as as_model:
        file = folder / "server.toml"
        file.write_text(block.text)
        try:
            load(file=file, environment={}, command_line={})
        except InvalidServerConfig as as_server:
            raise AssertionError(f"as a config.toml: {as_model}; as settings of the server: {as_server}") from None


READERS: dict[str, Callable[[Block, Path], object]] = {
    "json": lambda block, _: json.loads(block.text),
    "yaml": lambda block, _: list(yaml.safe_load_all(block.text)),
    "toml": _toml,
    "pbtxt": lambda block, _: parse_pbtxt(block.text),
}
"""Language of a block that is data → what reads it, ours where we have a reader."""

PLAIN = frozenset({"", "text"})
"""Output, layouts of folders: nothing that could be run."""

OTHERS = frozenset({"promql", "dockerfile", "diff"})
"""Languages that nothing here can try."""


def test_every_block_says_in_which_language_it_is() -> None:
    known = RUNNABLE | READERS.keys() | PLAIN | OTHERS
    unknown = [f"{block}: '{block.language}'" for block in BLOCKS if block.language not in known]
    assert not unknown, f"languages that no test knows: {unknown}; known are {sorted(known)}"


def test_commands_stand_in_blocks_of_shell() -> None:
    """A block without a language, or lines set off by blanks only, would be run by nobody."""
    wrong = [
        f"{block}: {line}"
        for block in BLOCKS
        if block.language in PLAIN
        for line in block.text.splitlines()
        if _COMMAND.match(line)
    ]
    for page in PAGES:
        set_off = re.findall(r"^ {4,}(.*)$", prose(page), re.MULTILINE)
        wrong += [f"{page}: {line}" for line in set_off if _COMMAND.match(line)]
    assert not wrong, f"put these into ```sh blocks, so that they are tried: {wrong}"


@pytest.mark.parametrize("page", CONTAINER_PAGES)
def test_what_needs_containers_is_run_by_their_tests(page: str) -> None:
    """That the module's tests run all its blocks is its own test; here, that these are the page's."""
    spec = importlib.util.spec_from_file_location("container_pages", ROOT / CONTAINER_PAGES[page])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs = [block for block in blocks_of(page) if runner(block) is Runner.CONTAINER]
    assert [block.text for block in theirs if block.language in RUNNABLE] == module.BLOCKS


def test_no_exception_outlives_its_reason() -> None:
    for table in (FRAMEWORKS, LONG, PRINTS):
        for page, parts in table.items():
            texts = [block.text for block in blocks_of(page) if block.language in RUNNABLE]
            for part in parts:
                assert any(part in text for text in texts), f"tests/docs/pages.py: {page} has no block with '{part}'"
    runs = {(block.page, runner(block)) for block in BLOCKS if block.language in RUNNABLE}
    assert PREPARED.keys() <= runs, f"tests/docs/pages.py prepares what nobody runs: {PREPARED.keys() - runs}"
    for mark in MARKS:
        assert mark.startswith("# needs ")


def test_make_runs_what_needs_frameworks_or_takes_long() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (folders,) = re.findall(r"^IMPORTED := (.*)$", makefile, re.MULTILINE)
    assert "tests/docs" in folders.split()
    (full,) = re.findall(r"^test-full:.*\n\t.*-m '([^']*)' \$\(ARGS\)$", makefile, re.MULTILINE)
    assert "not frameworks" in full
    assert "long" not in full


def test_an_excuse_is_one_of_a_few() -> None:
    strange = [
        f"{block}: {line}"
        for block in BLOCKS
        if block.language in SHELL
        for number, line in enumerate(block.text.splitlines())
        if re.match(r"# needs\b", line) and (number or line not in MARKS)
    ]
    assert not strange, f"only {MARKS} excuse a block, as its first line, got {strange}"


@pytest.mark.parametrize("block", [each for each in BLOCKS if runner(each) is Runner.NOBODY], ids=str)
def test_what_cannot_be_run_is_right_word_by_word(block: Block) -> None:
    assert block.language in SHELL, "only commands can be excused"
    seen = 0
    for each in words.commands(commands_in(block)):
        words.check(each)
        seen += 1
    assert seen


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language in READERS], ids=str)
def test_data_that_is_shown_can_be_read(block: Block, tmp_path: Path) -> None:
    READERS[block.language](block, tmp_path)


def test_commands_and_options_in_sentences_exist() -> None:
    """`tensorquay …` and `make …` between backquotes, also with "…" and other placeholders in them."""
    wrong = []
    for page in PAGES:
        for said in re.findall(r"`((?:tensorquay|make) [^`]*)`", prose(page)):
            try:
                _check_said(said.replace("\\|", "|").split())
            except words.Wrong as exc:
                wrong.append(f"{page}: `{said}`: {exc}")
    assert not wrong, "\n".join(wrong)


def _check_said(said: list[str]) -> None:
    if said[0] == "make":
        for target in said[1:2]:
            words.check_target(target)
        return
    path = []
    for word in said[1:]:
        # Placeholders are in capitals or brackets, values and arguments come after the commands.
        if not re.fullmatch(r"[a-z]+(?:\|[a-z]+)*", word):
            break
        path.append(word)
        if word != "models":
            break
    for one in path[-1].split("|") if path else [""]:
        known = words.options_of([*path[:-1], one] if one else [])
        for option in (word.strip("[]").partition("=")[0] for word in said if word.strip("[]").startswith("-")):
            if option.strip("-…") and option not in known:
                raise words.Wrong(f"no option {option}")


STRANGERS = {
    "docs/container.md": {"--build-arg", "--cpus", "--env", "--init", "--read-only", "--time", "--tmpfs", "--user"},
    "docs/migrate-from-tf-serving.md": {"--port"},
    "docs/migrate-from-triton.md": {"--ipc", "--shm-size"},
    "docs/performance.md": {"--enable-optimizations"},
}
"""Page → options of other programs that its sentences speak of. Those with underscores are never ours."""


def test_options_in_sentences_exist() -> None:
    """An option between backquotes is one of a command of ours, or of tests/bench, or its page names a stranger's."""
    bench = {
        option
        for file in (ROOT / "tests" / "bench").glob("*.py")
        for option in re.findall(r'"(--[a-z-]+)"', file.read_text())
    }
    known = words.every_option() | bench
    unknown = [
        f"{page}: {option}"
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`", prose(page))
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*[\w](?![*\w-])", code)
        if "_" not in option and option not in known | STRANGERS.get(page, set())
    ]
    assert not unknown, f"no command has these options: {unknown}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (folder / file).resolve() if file else ROOT / page
        assert path.exists(), f"{page}: there is no {target}"
        if anchor and path.suffix == ".md":
            known = anchors(path.relative_to(ROOT).as_posix())
            assert anchor in known, f"{page}: {target}: no heading of {path.name} is #{anchor}"
