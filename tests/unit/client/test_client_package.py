"""The client is a stranger to the server, and cheap to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import tensorquay_client

FOLDER = Path(str(files("tensorquay_client")))
ALLOWED = {"tensorquay_client", "numpy", "orjson", "httpx", "grpc", "google", "click", "rich", "PIL"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_it_imports_nothing_of_the_server() -> None:
    for path in FOLDER.glob("*.py"):
        strangers = imported(path) - ALLOWED - set(sys.stdlib_module_names)
        assert not strangers, path.name


def test_every_public_name_is_there() -> None:
    for name in tensorquay_client.__all__:
        assert getattr(tensorquay_client, name).__name__ == name if name != "NO_RETRY" else True
    assert dir(tensorquay_client) == sorted(tensorquay_client.__all__)


def test_importing_the_command_loads_neither_numpy_nor_grpc() -> None:
    code = (
        "import sys, tensorquay_client.cli; print(*[m for m in ('numpy', 'grpc', 'httpx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(FOLDER.parent)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_the_examples_of_the_page_use_names_that_exist() -> None:
    page = (FOLDER.parents[1] / "docs" / "client.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "tensorquay_client":
                assert {alias.name for alias in node.names} <= set(tensorquay_client.__all__)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "client":
                    assert hasattr(tensorquay_client.HttpClient, node.func.attr), node.func.attr
