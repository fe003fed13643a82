"""Read PyTorch's own files as data: what in them could run code is found before PyTorch opens them.

`torch.export.load` (2.13) unpickles, evaluates strings as expressions (symbolic sizes, guards), looks up operators by
any dotted name ("torch.os.system" is one) and loads compiled libraries. `torch.jit.load` runs TorchScript, which can
read and write files. So an archive is only opened here when everything in it is of a kind that cannot.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tensorquay_convert.errors import BadSource, Unsupported

_LARGEST_BYTES = 256 << 20
"""Of one description inside an archive; weights are not read here."""
_CODE_BYTES = 64 << 20

_PROGRAM = re.compile(r"models/\w+\.json")
_PAYLOADS = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PLAIN_ENTRY = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|data/sample_inputs/\w+\.pt|extra/.*"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|\.format_version"
)
"""What else an exported program is made of; its sample inputs are a pickle, read as tensors only."""
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_LIBRARIES = re.compile(r"data/aotinductor/.*|.*\.(so|dll|dylib|cubin|cpp)")
_OBJECTS = re.compile(r"data/(constants/(custom_obj|opaque_obj).*|(weights|constants)/[^/]+\.pt)")
_NAME = re.compile(r"[\w.\-]*")
_ATEN = re.compile(r"torch\.ops\.(aten|prims|prim)\.\w+(\.\w+)?")
_REACH_OUT = re.compile(r"torch\.ops\.\w+\.(from_file|save|load|_pickle\w*)\b")
_HIGHER = {
    f"torch.ops.higher_order.{name}"
    for name in (
        "cond", "while_loop", "scan", "map_impl", "associative_scan", "wrap_with_set_grad_enabled",
        "wrap_with_autocast", "wrap",
    )
}  # fmt: skip
_PLAIN_FUNCTIONS = {
    f"_operator.{name}"
    for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "lt", "le", "eq", "ne", "gt",
        "ge", "and_", "or_", "not_", "xor", "getitem", "lshift", "rshift", "index",
    )
} | {
    f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt", "log", "log2", "exp", "cos", "sin", "pow")
} | {
    f"torch.{name}"
    for name in (
        "sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sum", "_sym_sqrt",
        "sym_constrain_range", "sym_constrain_range_for_size",
    )
}  # fmt: skip
_TREES = re.compile(
    r"(builtins\.(tuple|list|dict|NoneType|slice)|collections\.(namedtuple|OrderedDict|deque)"
    r"|transformers\.[\w.]+|torch\.return_types\.\w+)"
)
_EXPRESSION_NAMES = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "FloorDiv", "CleanDiv",
    "ModularIndexing", "Max", "Min", "Abs", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Where",
    "Equality", "Unequality", "LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan", "CeilToInt",
    "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "RoundDecimal", "ToFloat", "IntTrueDiv",
    "FloatTrueDiv", "PowByNatural", "FloatPow", "LShift", "RShift", "ceiling", "floor", "sqrt", "oo", "int_oo",
    "true", "false", "IsNonOverlappingAndDenseIndicator", "Identity",
}  # fmt: skip
_SYMBOL = re.compile(r"[suz]f?\d+|sym_\w+")
_EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip

_SCRIPT_FILES = re.compile(r"[.]\s*(save|from_file)\s*\(|['\"](save|from_file)['\"]|=\s*(torch|ops)\s*$", re.MULTILINE)
"""Calls of operators that touch files, and the ways around their names."""
_SCRIPT_OPERATOR = re.compile(r"\bops\s*\.\s*(\w+)\s*\.\s*(\w+)")
_SCRIPT_LIBRARIES = {"aten", "prim", "prims", "quantized"}


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Everything PyTorch unpickles inside this block is read as tensors and plain containers, whatever it asks for."""
    plain = torch.load
    torch.load = functools.partial(_load_weights_only, plain)
    try:
        yield
    finally:
        torch.load = plain


def _load_weights_only(plain: Any, *args: Any, **kwargs: Any) -> Any:
    return plain(*args, **{**kwargs, "weights_only": True})


def check_exported_program(path: Path, shown: str) -> frozenset[str]:
    """Refuse a .pt2 that holds more than graphs and tensors.

    Returns: the types its inputs and outputs are nested in.
    Raises: BadSource for what could run code or is no such archive; Unsupported for operators of other libraries.
    """
    types: set[str] = set()
    with _opened(path, shown) as archive:
        names = _entries(archive, shown)
        if not any(_PROGRAM.fullmatch(each) for each in names):
            raise BadSource(
                f"'{shown}' holds no exported program in the format of this PyTorch ({torch.__version__})",
                remedy="save it again: torch.export.save(torch.export.export(model, args), 'model.pt2')",
            )
        for each, name in names.items():
            if _LIBRARIES.fullmatch(each):
                raise _distrusted(shown, f"a compiled library ({Path(name).name})", "export it without compiling")
            if _OBJECTS.fullmatch(each):
                raise _distrusted(shown, f"a pickled object ({Path(name).name})", "")
            if _PAYLOADS.fullmatch(each):
                _check_payloads(_json(archive, name, shown), shown)
            elif _PROGRAM.fullmatch(each):
                types |= _check_program(_json(archive, name, shown), shown)
            elif not _PLAIN_ENTRY.fullmatch(each):
                raise _distrusted(shown, f"'{each[:80]}', which no exported program has", "")
    return frozenset(types)


def check_script(path: Path, shown: str) -> None:
    """Refuse a TorchScript archive whose code saves, reads files, or calls operators of other libraries.

    Raises: BadSource; Unsupported for the last.
    """
    with _opened(path, shown) as archive:
        names = _entries(archive, shown)
        if "constants.pkl" not in names:
            raise BadSource(
                f"'{shown}' is a pickle of PyTorch (torch.save), not a TorchScript archive",
                remedy="save the module with torch.jit.save, or its state_dict for a factory: model.py:f --weights",
            )
        total = 0
        for each, name in names.items():
            if not each.lower().endswith(".py"):
                continue
            code = _read(archive, name, shown)
            total += len(code)
            if total > _CODE_BYTES:
                raise BadSource(f"'{shown}' holds more than {_CODE_BYTES >> 20} MiB of TorchScript")
            _check_script_code(code.decode("utf-8", "replace"), shown)


def _check_script_code(code: str, shown: str) -> None:
    found = _SCRIPT_FILES.search(code)
    if found:
        raise _distrusted(shown, f"a call of {found[1] or found[2] or found[3]}", "take it out of the scripted code")
    for operator in _SCRIPT_OPERATOR.finditer(code):
        if operator[1] not in _SCRIPT_LIBRARIES:
            raise _foreign_operator(f"{operator[1]}::{operator[2]}")


def _entries(archive: zipfile.ZipFile, shown: str) -> dict[str, str]:
    """Whole names by names inside the archive's one folder.

    PyTorch finds entries whatever their capitals and takes the first of two, Python the last: neither may occur.
    Raises: BadSource.
    """
    entries: dict[str, str] = {}
    seen, folders = set(), set()
    for name in archive.namelist():
        folder, _, inside = name.partition("/")
        folders.add(folder)
        if inside.lower() in seen:
            raise _distrusted(shown, f"'{inside[:80]}' twice", "save it again")
        seen.add(inside.lower())
        entries[inside] = name
    if len(folders) > 1:
        raise BadSource(f"'{shown}' was not written by PyTorch: it holds {len(folders)} folders, expected one")
    return entries


@contextlib.contextmanager
def _opened(path: Path, shown: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError) as exc:
        raise BadSource(
            f"'{shown}' is not a whole PyTorch archive: {exc}", remedy="copy or save it again; it may be cut off"
        ) from exc


def _read(archive: zipfile.ZipFile, name: str, shown: str) -> bytes:
    with archive.open(name) as file:
        content = file.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise BadSource(f"'{Path(name).name}' in '{shown}' is larger than {_LARGEST_BYTES >> 20} MiB")
    return content


def _json(archive: zipfile.ZipFile, name: str, shown: str) -> Any:
    try:
        return json.loads(_read(archive, name, shown).decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise BadSource(f"'{shown}' is damaged: '{Path(name).name}' in it is no JSON") from exc


def _check_payloads(payloads: Any, shown: str) -> None:
    entries = payloads.get("config") if isinstance(payloads, Mapping) else None
    if not isinstance(entries, Mapping):
        raise BadSource(f"'{shown}' is damaged: its list of weights has no entries")
    for name, each in entries.items():
        if not isinstance(each, Mapping) or each.get("use_pickle") is not False:
            raise _distrusted(shown, f"a pickled tensor ('{name}')", "save plain tensors")
        if not _PAYLOAD.fullmatch(str(each.get("path_name"))):
            raise _distrusted(shown, f"weights that are kept in '{each.get('path_name')}'", "")
        _need_name(name, shown)


def _check_program(program: Any, shown: str) -> set[str]:
    """The container types it names."""
    if not isinstance(program, Mapping):
        raise BadSource(f"'{shown}' is damaged: its program is no object")
    types: set[str] = set()
    checked = {key: each for key, each in program.items() if key not in {"guards_code", "torch_version"}}
    _walk(checked, types, shown, 0)
    return types


_TEXTS = {"as_string", "as_strings", "metadata", "stack_trace", "description"}
"""Fields whose text is only ever shown or handed on as a value."""


def _walk(value: Any, types: set[str], shown: str, depth: int) -> None:
    """Check every string by the field it stands in; `types` takes the containers named."""
    if depth > 200:
        raise BadSource(f"'{shown}' is nested too deep")
    if isinstance(value, Mapping):
        for key, each in value.items():
            _need_name(key, shown)
            if key in _TEXTS:
                continue
            if key in {"target", "as_operator"} and isinstance(each, str):
                _check_operator(each, shown)
            elif key == "expr_str" and isinstance(each, str):
                _check_expression(each, shown)
            elif key in {"in_spec", "out_spec"} and isinstance(each, str):
                types |= _check_tree(each, shown)
            else:
                _walk(each, types, shown, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _walk(each, types, shown, depth + 1)
    elif isinstance(value, str):
        _need_name(value, shown)


def _need_name(text: Any, shown: str) -> None:
    """Names end up in Python code that torch.fx writes and runs."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise _distrusted(shown, f"a name that is none ({str(text)[:60]!r})", "")


def _check_operator(target: str, shown: str) -> None:
    if target in _PLAIN_FUNCTIONS or target in _HIGHER:
        return
    if _ATEN.fullmatch(target) and not _REACH_OUT.match(target):
        return
    if target.startswith("torch.ops.") and not _REACH_OUT.match(target) and "higher_order" not in target:
        raise _foreign_operator("::".join(target.split(".")[2:4]))
    raise _distrusted(shown, f"a call of {target[:80]}", "")


def _check_expression(text: str, shown: str) -> None:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise _distrusted(shown, f"a size that is no expression ({text[:60]!r})", "") from exc
    for node in ast.walk(tree):
        named = not isinstance(node, ast.Name) or node.id in _EXPRESSION_NAMES or _SYMBOL.fullmatch(node.id)
        called = not isinstance(node, ast.Call) or isinstance(node.func, ast.Name)
        text_inside = (
            not isinstance(node, ast.Constant) or not isinstance(node.value, str) or _NAME.fullmatch(node.value)
        )
        if not (isinstance(node, _EXPRESSION_NODES) and named and called and text_inside):
            raise _distrusted(shown, f"a size that is no expression ({text[:60]!r})", "")


def _check_tree(text: str, shown: str) -> set[str]:
    """How inputs and outputs are nested. Contexts may name modules to import: enumerations, default factories."""
    if not text:
        return set()
    if "__enum__" in text or "default_factory" in text:
        raise _distrusted(shown, "a container that names code to import", "give and take tuples, lists and dicts")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadSource(f"'{shown}' is damaged: its inputs are not described in JSON") from exc
    types = {kind for kind in _types(parsed, 0, shown) if kind is not None}
    for kind in types:
        if not _TREES.fullmatch(kind):
            raise BadSource(
                f"'{shown}' takes or gives objects of type '{kind[:80]}', which only its author's code knows",
                remedy="export a module that takes and gives tensors, tuples, lists and dicts",
            )
    return types


def _types(value: Any, depth: int, shown: str) -> Iterator[str | None]:
    if depth > 100:
        raise BadSource(f"'{shown}' is nested too deep")
    if isinstance(value, list):
        for each in value:
            yield from _types(each, depth + 1, shown)
    elif isinstance(value, Mapping):
        kind = value.get("type")
        yield kind if kind is None or isinstance(kind, str) else repr(kind)
        yield from _types(value.get("children_spec", []), depth + 1, shown)


def _distrusted(shown: str, what: str, remedy: str) -> BadSource:
    return BadSource(f"'{shown}' holds {what}, which is not trusted: it could run code", remedy=remedy)


def _foreign_operator(name: str) -> Unsupported:
    return Unsupported(
        f"the model calls the operator '{name}', which another library brings",
        remedy="use PyTorch's own operators in the exported module",
        facts={"operator": name},
    )
