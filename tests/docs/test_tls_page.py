"""The commands about TLS that docs/operations.md shows do what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def commands() -> dict[str, list[str]]:
    """The shell block of section TLS: first two words → all words."""
    found = re.search(r"^## TLS\n.*?```sh\n(.*?)```", OPERATIONS, re.DOTALL | re.MULTILINE)
    assert found is not None
    lines = found[1].replace("\\\n", " ").splitlines()
    return {" ".join(words[:2]): words for words in map(shlex.split, lines)}


def run(words: list[str], folder: Path) -> str:
    if words[0] == "tensorquay":
        words = [sys.executable, "-m", *words]
    words = [str(ROOT / "model_repo") if word == "model_repo" else word for word in words]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_certificate_is_made_checked_and_taken(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: the page's commands were NOT tried")
    shown = commands()
    run(shown["openssl req"], tmp_path)
    assert "http TLS: certificate and key fit" in run(shown["tensorquay check"], tmp_path)
    settings = run([*shown["tensorquay serve"], "--print-config"], tmp_path)
    for setting in ("http_use_ssl", "grpc_use_ssl"):
        assert re.search(rf"{setting} +│? *true", settings), settings
    assert set(shown) == {"openssl req", "tensorquay check", "tensorquay serve", "curl --cacert", "tensorquay models"}
