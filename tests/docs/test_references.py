"""The pages under docs/reference are what the code says, all of it, and the same wherever they are made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tests.docs.markdown import ROOT, text_of
from tests.tools import references
from tests.tools.command_reference import _option, command_reference
from tests.tools.markdown_tables import marked, sized
from tests.tools.model_reference import model_reference
from tests.tools.settings_reference import settings_reference

from tensorquay import cli
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.server import ServerConfig
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.toml_key import declared
from tensorquay.config.toml_schema import ConfigTable
from tensorquay_convert.errors import ExitCode

CONFIGURATION = "docs/configuration.md"
OPERATIONS = "docs/operations.md"


@pytest.mark.parametrize("name", [name for name, _ in references.PAGES])
def test_a_page_is_what_the_code_says(name: str) -> None:
    make = dict(references.PAGES)[name]
    assert not references.stale(name, make()), f"docs/reference/{name} is not what the code says: run make docs"


def test_every_page_of_the_folder_is_made_by_us() -> None:
    assert {path.name for path in references.FOLDER.iterdir()} == {name for name, _ in references.PAGES}


def test_a_page_depends_neither_on_the_terminal_nor_on_the_environment() -> None:
    strange = {"COLUMNS": "31", "TERM": "dumb", "NO_COLOR": "1", "LC_ALL": "C", "TENSORQUAY_HTTP_PORT": "9"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.references", "--check"],
        cwd=ROOT,
        env={**os.environ, **strange, "HOME": "/nowhere", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_command_and_option_is_there() -> None:
    page = command_reference()
    for path, command in _commands(cli.cli, click.Context(cli.cli, info_name="tensorquay")):
        (section,) = re.findall(rf"^#+ {path}\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
        for parameter in command.params:
            shown = isinstance(parameter, click.Option) and not parameter.hidden
            if shown and "--help" not in parameter.opts:
                assert f"`{parameter.opts[0]}`" in section, f"{path} {parameter.opts[0]}"


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield inner.command_path, command
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def test_an_option_without_a_help_text_is_refused() -> None:
    bare = click.Option(["--bare"])
    with pytest.raises(ValueError, match="--bare"):
        _option(bare, click.Context(cli.cli, info_name="tensorquay"))


def test_every_setting_is_there_with_what_pydantic_checks() -> None:
    page = settings_reference()
    for name, field in ServerConfig.model_fields.items():
        (section,) = re.findall(rf"^### {name}\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
        assert f"`TENSORQUAY_{name.upper()}`" in section
        assert f"`--{name.replace('_', '-')} " in section
        for bound in ("ge", "le", "gt"):
            for item in field.metadata:
                if (number := getattr(item, bound, None)) is not None:
                    assert str(number) in section, f"{name}: {bound} {number}"


def test_the_settings_that_matter_most_have_the_defaults_they_are_said_to_have() -> None:
    (rows,) = re.findall(
        r"^\| setting \| default \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", text_of(OPERATIONS), re.MULTILINE
    )
    config = ServerConfig.model_construct()
    for row in rows.splitlines():
        names, defaults = (cell.strip() for cell in row.split("|")[1:3])
        fields = re.findall(r"`(\w+)`", names)
        told = [each.strip() for each in defaults.split(",")]
        for field, default in zip(fields, told * len(fields) if len(told) == 1 else told, strict=True):
            shown = config.shown(field)
            allowed = {shown or "–", shown.removesuffix(".0")}
            if shown.isdecimal():
                allowed.add(sized(int(shown)).rpartition("(")[2].rstrip(")"))
            assert default in allowed, f"docs/operations.md: {field} is {shown} unless given, not {default}"


def test_the_exit_codes_that_are_explained_are_those_there_are() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", text_of("docs/import.md"), re.MULTILINE)
    assert [(int(code), name.upper()) for code, name in rows] == [(each.value, each.name) for each in ExitCode]


def test_the_texts_of_config_toml_are_there_and_its_links_lead_somewhere() -> None:
    page = model_reference()
    for each in declared(ConfigTable):
        assert marked(each.key.text) in page, each.path
        assert each.key.pbtxt in page or f"parameter `{each.key.pbtxt[11:-1]}`" in page, each.path
        for bound in each.key.bounds or ():
            assert str(bound) in page, each.path
    heads = re.findall(r"^## (.+)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w-]", "", head.lower().replace(" ", "-")) for head in heads}
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= anchors


def test_the_error_that_configuration_md_shows_is_the_one_that_is_given() -> None:
    (shown,) = re.findall(r"^> (.+)$", text_of(CONFIGURATION), re.MULTILINE)
    with pytest.raises(ConfigRefused) as caught:
        parse_toml("# digits\n[batching]\nmax_queue_dealy_us = 500\n")
    assert caught.value.message == shown
