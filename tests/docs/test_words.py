"""The checks of commands that nobody can run do find what is wrong with them."""

from __future__ import annotations

import pytest
from tests.docs import words
from tests.docs.markdown import MARKS, commands_in, read_blocks
from tests.docs.words import Wrong


@pytest.mark.parametrize(
    "command",
    [
        "kubectl aply -k k8s/overlays/cpu",
        "kubectl apply -k k8s/overlays/gone",
        "kubectl apply -f k8s/extras/gone.yaml",
        "kubectl -n tensorquay exec deployment/tensorquay -- tensorquay modles",
        "kubectl -n tensorquay exec deployment/tensorquay -- tensorquay models --urll=x",
        "docker biuld --file docker/Dockerfile .",
        "docker build --file=docker/Dockerfile.gone .",
        "tensorquay serve model_repo --http-prot=8000",
        "tensorquay optimize digits --threads=many",
        "tensorquay import",
        "tensorquay gone",
        "make gone",
        "python -m tests.bench.gone",
        ".venv/bin/python -m tests.bench --gone",
        "sudo reboot",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    (each,) = words.commands(command)
    with pytest.raises(Wrong):
        words.check(each)


@pytest.mark.parametrize(
    "command",
    [
        "kubectl -n tensorquay exec deployment/tensorquay -- tensorquay models show digits --json",
        "docker build --file docker/Dockerfile.gpu --tag tensorquay:0.1.0-gpu .",
        "tensorquay serve model_repo --http-port=9000 --rate-limit=off",
        "TENSORQUAY_HTTP_PORT=9000 .venv/bin/tensorquay models --help",
        "make bench ARGS='--only=digits'",
        "python -m tests.bench --only=resnet50",
    ],
)
def test_a_right_command_passes(command: str) -> None:
    (each,) = words.commands(command)
    words.check(each)


def test_simple_commands_are_told_apart() -> None:
    found = list(words.commands("kubectl get pods \\\n  | cat && make lint; ls 'a;b'  # all\n"))
    assert found == [["kubectl", "get", "pods"], ["cat"], ["make", "lint"], ["ls", "a;b"]]


def test_blocks_are_found_as_a_reader_sees_them() -> None:
    page = (
        "a\n\n1. x\n\n   ```sh\n   ls\n     -l\n   ```\n\n```json\n{}\n```\nb\n```console\n$ ls \\\n  -a\nfile\n```\n"
    )
    first, second, third = read_blocks("p.md", page)
    assert (first.line, first.language, first.text, first.shows) == (5, "sh", "ls\n  -l\n", False)
    assert (second.language, second.shows) == ("json", True)
    assert not third.shows
    assert commands_in(third) == "ls \\\n  -a\n"
    with pytest.raises(AssertionError, match=r"p\.md:1: this fence is never closed"):
        list(read_blocks("p.md", "```sh\nls\n"))


def test_only_a_mark_excuses() -> None:
    (marked,) = read_blocks("p.md", f"```sh\n{MARKS[0]}\nls\n```\n")
    (other,) = read_blocks("p.md", "```sh\n# needs patience\nls\n```\n")
    assert marked.mark == MARKS[0]
    assert not other.mark
