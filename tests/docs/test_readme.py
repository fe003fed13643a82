"""What the README shows is run, and must print what it says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def block(kind: str, containing: str) -> str:
    found = [text for language, text in BLOCKS if language == kind and containing in text]
    assert len(found) == 1, f"README has {len(found)} {kind} blocks with {containing!r}"
    return found[0]


def run(command: str | list[str]) -> str:
    shell = isinstance(command, str)
    done = subprocess.run(command, shell=shell, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_prints_the_answer_shown_below_it(server):
    printed = run(block("sh", "curl").replace("localhost:8000", server.http))
    assert json.loads(printed) == json.loads(block("json", "digits"))


def test_the_picture_is_the_same_digit(server):
    command = block("sh", "tensorquay infer").strip()
    words = [sys.executable, "-m", "tensorquay", *shlex.split(command)[1:], "--url", server.http, "--json"]
    assert '"6"' in run(words) or " 6" in run(words)


@pytest.mark.parametrize(
    ("client", "prints"), [("tritonclient", "2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2"), ("tensorquay_client", "(3, 10)")]
)
def test_the_python_examples_print_what_their_comments_say(server, client, prints):
    code = block("python", client).replace("localhost:8000", server.http)
    assert prints in run([sys.executable, "-c", code])


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_three_minutes_are_enough_to_read_it():
    words = len(re.findall(r"\w+", re.sub(r"```.*?```", "", README, flags=re.DOTALL)))
    assert words < 3 * 200
