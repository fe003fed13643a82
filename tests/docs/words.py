"""Commands that cannot be run here, read word by word: programs, verbs, our own options, files that must be there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence

import click
from tests.docs.markdown import ROOT

from tensorquay import cli
from tensorquay.commands import tritonserver

PLACES = ("clients/", "converters/", "docker/", "docs/", "k8s/", "model_repo/", "server/", "tests/")
"""Folders of the clone: a word that begins with one of them is a file or a folder in it."""

VERBS = {
    "kubectl": {
        "annotate", "apply", "cp", "create", "delete", "describe", "exec", "get", "kustomize", "label", "logs", "patch",
        "port-forward", "rollout", "scale", "set", "top", "wait",
    },
    "docker": {"build", "compose", "cp", "exec", "images", "inspect", "kill", "logs", "ps", "pull", "push", "rm", "run",
               "stop", "tag"},
    "git": {"clone", "rev-parse"},
    "helm": {"install", "repo", "upgrade"},
    "apt-get": {"install"},
    "pip": {"install"},
}  # fmt: skip
VERBS["podman"] = VERBS["docker"] | {"play", "kube"}
"""Program → what it may be told. A typing error in a verb is the commonest one."""

PROGRAMS = frozenset({*VERBS, "cat", "cd", "cp", "curl", "export", "ls", "make", "mkdir", "mv", "promtool", "python",
                      "python3", "rm", "source", "tensorquay", "tritonserver"})  # fmt: skip
"""First words of commands in documents."""

_TAKE_A_WORD = frozenset({"-n", "--namespace", "-f", "-k", "-c", "--context"})
_SEPARATORS = frozenset({"|", "||", "&&", ";", "&", "(", ")", "\n"})
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*")


class Wrong(AssertionError):
    """A command that could not be run by anybody; the text says why."""


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command in `script`, without variables set for it and where its output goes."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "\n"]:
            if word not in _SEPARATORS:
                words.append(word)
                continue
            while words and _ASSIGNMENT.fullmatch(words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


def check(words: Sequence[str]) -> None:
    """One simple command.

    Raises: Wrong, if its program or verb is not known, one of our options is not there, or a file is not.
    """
    program, rest = words[0].rpartition("/")[2], list(words[1:])
    if program not in PROGRAMS:
        raise Wrong(f"'{words[0]}' is no program that a page may ask for (tests/docs/words.py)")
    if program == "tensorquay":
        check_ours(rest)
    elif program == "make":
        for target in rest:
            check_target(target)
    elif program in {"python", "python3"} and rest[:1] == ["-m"]:
        check_module(rest[1], rest[2:])
    elif program in VERBS:
        verb = _first_argument(rest)
        if verb not in VERBS[program]:
            raise Wrong(f"{program} has no verb '{verb}'; known are {', '.join(sorted(VERBS[program]))}")
    # Behind "--" stands what is run in a container.
    inner = rest[rest.index("--") + 1 :] if "--" in rest else []
    if inner[:1] == ["tensorquay"]:
        check_ours(inner[1:])
    for word in words:
        path = word.partition("=")[2] if word.startswith("--") else word
        if path.startswith(PLACES) and not (ROOT / path.partition(":")[0]).exists():
            raise Wrong(f"there is no {path}")
    if "-k" in rest and not (ROOT / rest[rest.index("-k") + 1] / "kustomization.yaml").exists():
        raise Wrong(f"{rest[rest.index('-k') + 1]} cannot be kustomized")


def _first_argument(words: Sequence[str]) -> str:
    skip = False
    for word in words:
        if not skip and not word.startswith("-"):
            return word
        skip = not skip and word in _TAKE_A_WORD
    return ""


def check_ours(words: Sequence[str]) -> None:
    """The words after `tensorquay`, read by the command itself, which is not run.

    Raises: Wrong with what the command says.
    """
    try:
        command, context, rest = find(words)
        if command is not None:
            command.make_context(command.name, rest, parent=context)
    except click.exceptions.Exit:
        pass  # --help and --version are answered at once.
    except click.ClickException as exc:
        raise Wrong(f"tensorquay {shlex.join(words)}: {exc.format_message()}") from exc


def find(words: Sequence[str]) -> tuple[click.Command | None, click.Context, list[str]]:
    """The (sub)command that `words` ask for, the context of the group it is in, and what is left for it."""
    context = cli.cli.make_context("tensorquay", list(words))
    command: click.Command = cli.cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        name, found, rest = command.resolve_command(context, rest)
        if found is None:
            return None, context, rest
        if not isinstance(found, click.Group):
            return found, context, rest
        context = found.make_context(name, rest, parent=context)
        command, rest = found, [*context._protected_args, *context.args]
    return None, context, rest


def options_of(path: Sequence[str]) -> set[str]:
    """Every option that the command `path` takes, with those of the groups around it."""
    command: click.Command | None = cli.cli
    context = click.Context(cli.cli, info_name="tensorquay")
    known = _own_options(cli.cli)
    for name in path:
        if not isinstance(command, click.Group) or (command := command.get_command(context, name)) is None:
            raise Wrong(f"there is no command 'tensorquay {' '.join(path)}'")
        known |= _own_options(command)
        if name == "serve":
            triton = (tritonserver.NO_EFFECT, tritonserver.REFUSED, tritonserver.REFUSED_WHEN_ON)
            known |= {f"--{each}" for table in triton for each in table}
            known |= {f"--{each}" for each in (*tritonserver.REFUSED_UNLESS, *tritonserver._SETTINGS)}
    return known


def every_option() -> set[str]:
    """The options of all commands together."""
    context = click.Context(cli.cli, info_name="tensorquay")
    known: set[str] = set()
    for name in cli.cli.list_commands(context):
        command = cli.cli.get_command(context, name)
        inner = command.list_commands(context) if isinstance(command, click.Group) else []
        for path in ([name], *([name, each] for each in inner)):
            known |= options_of(path)
    return known


def _own_options(command: click.Command) -> set[str]:
    named = {word for each in command.params for word in (*each.opts, *each.secondary_opts)}
    return named | {"--help", "-h"}


def check_module(module: str, arguments: Sequence[str]) -> None:
    """`python -m module …`: Python's own, or of the clone; then it is there, and its source names the options.

    Raises: Wrong.
    """
    if module.partition(".")[0] in sys.stdlib_module_names:
        return
    path = ROOT.joinpath(*module.split("."))
    file = next((each for each in (path.with_suffix(".py"), path / "__main__.py") if each.exists()), None)
    if file is None:
        raise Wrong(f"there is no module {module}")
    for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        if f'"{option}"' not in file.read_text():
            raise Wrong(f"python -m {module} has no option {option}")


def check_target(target: str) -> None:
    """A target of make, or a variable for it.

    Raises: Wrong.
    """
    if target.startswith("-") or "=" in target:
        return
    if not re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
        raise Wrong(f"the Makefile has no target '{target}'")
