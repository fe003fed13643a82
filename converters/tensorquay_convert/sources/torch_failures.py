"""What an exporter's exception says: which operator, which node, which line of the model, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)(?:\n\s+(\S.*))?')
_OPERATOR = re.compile(r"op='([\w.:]+)'|[Ee]xporting the operator '([\w.:]+)'|[Cc]ould not export.*? (aten::\w+)")
_NODE = re.compile(r"translating node %(\w+)")
_NO_FUNCTION = "No ONNX function found for"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one attempt failed. `operator`, `node` and `line` are empty where unknown.

    `missing`: ONNX has nothing for the operator, so that no other input would help.
    """

    sentence: str
    operator: str = ""
    node: str = ""
    line: str = ""
    missing: bool = False


def explain(exc: BaseException) -> Failure:
    """Read an exception of torch.export, torch.onnx.export or torch.jit."""
    chain = list(_chain(exc))
    texts = [_COLOUR.sub("", str(each)) for each in chain]
    whole = "\n".join(texts)
    operator = _first(_OPERATOR, whole)
    node, line = _first(_NODE, whole), user_line(_stack_of_node(chain)) or user_line(whole)
    missing = _NO_FUNCTION in whole or type(chain[0]).__name__ == "UnsupportedOperatorError"
    if missing and operator:
        return Failure(
            f"no ONNX is known for the operator '{operator}'{_where(node, line)}", operator, node, line, True
        )
    return Failure(f"{type(chain[-1]).__name__}: {_first_line(texts[-1])}{_where(node, line)}", operator, node, line)


def user_line(stack: str) -> str:
    """The innermost line of a stack that belongs to neither PyTorch nor us: "model.py:12: y = svd(x)", or ""."""
    for path, number, _, code in reversed(_FRAME.findall(stack)):
        if not path.startswith((_TORCH, _OURS, "<")) and "/contextlib.py" not in path:
            return f"{Path(path).name}:{number}" + (f": {code.strip()}" if code else "")
    return ""


def own_words(exc: BaseException) -> str:
    """A model's own exception: its type, its message's first line, and where in the model it was raised."""
    place = ""
    trace = exc.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((_TORCH, _OURS, "<")):
            place = f" ({Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name})"
        trace = trace.tb_next
    return f"{type(exc).__name__}: {_first_line(str(exc))}{place}"


def _where(node: str, line: str) -> str:
    parts = ([f"node '{node}'"] if node else []) + ([line] if line else [])
    return f" ({', '.join(parts)})" if parts else ""


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, outermost first, at most ten."""
    current: BaseException | None = exc
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__


def _stack_of_node(chain: list[BaseException]) -> str:
    """The stack trace the exporter keeps at the node it was working on: it is in the frame, not in the message."""
    for each in chain:
        trace = each.__traceback__
        while trace is not None:
            node = trace.tb_frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node) and node.meta.get("stack_trace"):
                return str(node.meta["stack_trace"])
            trace = trace.tb_next
    return ""


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), "") if found else ""


def _first_line(text: str) -> str:
    lines = [line.strip(" -") for line in _COLOUR.sub("", text).splitlines() if line.strip(" -")]
    useful = next((line for line in lines if "You marked" in line), lines[0] if lines else "no message")
    return useful[:300]
