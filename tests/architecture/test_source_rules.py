"""Rules of the house that no linter knows, checked on the syntax of every file that is shipped."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(each for root in ("server", "clients", "converters") for each in ROOT.glob(f"{root}/**/*.py"))
TESTS = sorted(ROOT.glob("tests/**/*.py"))

LONGEST = 500
"""Lines of a file; a longer one says in its docstring why it is one ("Over 500 lines: …")."""

TRUSTED_PICKLES = "converters/tensorquay_convert/sources/sklearn.py"
"""Reads them when its user said --trust-pickle, in a process of its own; never the server."""

PASSES_ENVIRONMENT = "converters/tensorquay_convert/surroundings.py"
"""Hands the environment on to a worker; takes no setting from it."""

MUTATORS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault",
    "update",
}  # fmt: skip


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), _name(path))


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call, with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def _for_each(paths: list[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """A rule about one file as a test of all of `paths`, which names every one that breaks it."""

    def make(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = []
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    wrong.append(f"{_name(path)}: {error}".partition("\nassert")[0])
            assert not wrong, "\n".join(wrong)

        # Not `functools.wraps`: pytest would look for the rule's argument.
        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return make


every_source = _for_each(SOURCES)
every_test = _for_each(TESTS)


def test_there_are_sources() -> None:
    assert len(SOURCES) > 100


@every_source
def test_a_module_says_what_it_is(path: Path) -> None:
    said = ast.get_docstring(_tree(path))
    assert said, "the first thing in a file is what it decides or owns"
    assert len(said.splitlines()[0]) > 10


@every_source
def test_a_long_file_says_why(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    if lines > LONGEST:
        assert f"Over {LONGEST} lines:" in (ast.get_docstring(_tree(path)) or ""), f"{lines} lines and no reason given"


@every_source
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = "" if node.type is None else ast.unparse(node.type)
        if caught in {"", "Exception", "BaseException"}:
            does = [each for each in node.body if not isinstance(each, ast.Pass | ast.Continue)]
            says = [each for each in does if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
            assert says, f"line {node.lineno}: `except {caught}` does nothing"
    for call, called in _calls(_tree(path)):
        if called.endswith("suppress"):
            wide = {ast.unparse(argument) for argument in call.args} & {"Exception", "BaseException"}
            assert not wide, f"line {call.lineno}: suppresses {wide}"


@every_source
def test_intervals_are_not_taken_from_the_wall_clock(path: Path) -> None:
    for call, called in _calls(_tree(path)):
        assert called not in {"time.time", "datetime.now", "datetime.utcnow"} or call.args, (
            f"line {call.lineno}: {called}() jumps when the clock is set; use the injected Clock"
        )


@every_source
def test_nothing_waits_by_sleeping_in_a_thread(path: Path) -> None:
    assert not [call.lineno for call, called in _calls(_tree(path)) if called == "time.sleep"]


@every_source
def test_nothing_is_evaluated_or_unpickled(path: Path) -> None:
    tree = _tree(path)
    for call, called in _calls(tree):
        assert called not in {"eval", "exec", "compile", "os.system", "__import__", "yaml.load"}, f"line {call.lineno}"
        assert not any(keyword.arg == "shell" for keyword in call.keywords), f"line {call.lineno}"
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if _name(path) == TRUSTED_PICKLES:
        imported.discard("joblib")
    assert not imported & {"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}


@every_source
def test_no_module_holds_state(path: Path) -> None:
    """What changes has an owner, and that is an object, never a module."""
    tree = _tree(path)
    held = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        held |= {target.id for target in targets if isinstance(target, ast.Name)}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        local = _locals(function)
        for node in ast.walk(function):
            assert not isinstance(node, ast.Global), f"line {node.lineno}: global {', '.join(node.names)}"
            changed = _changed_name(node)
            assert changed not in held - local, f"line {getattr(node, 'lineno', 0)}: changes the module's '{changed}'"


def _changed_name(node: ast.AST) -> str | None:
    """The plain name whose object this node changes in place, if it does."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        target: ast.expr = node.func.value
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        target = node.value
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}


@every_source
def test_only_the_command_line_prints(path: Path) -> None:
    if "/commands/" in _name(path) or path.name in {"cli.py", "cli_output.py", "__main__.py"}:
        return
    assert not [call.lineno for call, called in _calls(_tree(path)) if called == "print"]


@every_source
def test_only_configuration_reads_the_environment(path: Path) -> None:
    """A setting is found in one place; a model's are never taken from the environment at all."""
    if "/commands/" in _name(path) or path.name in {"cli.py", "__main__.py"} or "/config/" in _name(path):
        return
    if _name(path) == PASSES_ENVIRONMENT:
        return
    found = [
        node.lineno for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute) and node.attr == "environ"
    ]
    assert not found
    assert not [call.lineno for call, called in _calls(_tree(path)) if called in {"os.getenv", "getenv"}]


@every_source
def test_what_is_open_names_its_issue(path: Path) -> None:
    loose = re.findall(r"#\s*(?:TODO(?!\(#\d+\))|FIXME|XXX|HACK)\b.*", path.read_text())
    assert not loose


@every_source
def test_no_generated_stubs_and_no_shared_registries(path: Path) -> None:
    text = path.read_text()
    assert not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    for shared in ("descriptor_pool.Default()", "prometheus_client.REGISTRY", 'extra="ignore"'):
        assert shared not in text


@every_test
def test_no_test_sleeps(path: Path) -> None:
    """A test waits for what happens (tests/support/waiting.py); a moment that only lets others run is no sleep."""
    for call, called in _calls(_tree(path)):
        if called in {"time.sleep", "asyncio.sleep", "sleep"} and call.args:
            wait = call.args[0]
            brief = isinstance(wait, ast.Constant) and isinstance(wait.value, int | float) and wait.value <= 0.001
            assert brief, f"line {call.lineno}: {ast.unparse(call)}"


def test_source_roots_hold_packages_only() -> None:
    """`server`, `clients`, `converters` are folders and never import names: nothing in them may make them one."""
    for root in ("server", "clients", "converters"):
        assert not (ROOT / root / "__init__.py").exists()
    assert {each.name for each in (ROOT / "server").iterdir() if each.suffix == ".py"} == {"__main__.py"}
