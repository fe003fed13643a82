"""A prediction's answer for people (tables) and for programs (JSON)."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import numpy as np
import orjson

from tensorquay_client.messages import InferResult
from tensorquay_client.tensors import Array

_PIPE_WIDTH = 1000
"""Nobody wraps a line that another program reads."""


def as_json(result: InferResult, classified: Collection[str]) -> str:
    """The answer as one JSON object; BYTES as text, undecodable bytes as \\xNN; NaN and infinity as null."""
    outputs = []
    for name, array in result.outputs.items():
        entry: dict[str, Any] = {"name": name}
        if name in classified:
            entry["classes"] = [
                [{"value": score.value, "index": score.index, "label": score.label} for score in row]
                for row in result.classes(name)
            ]
        else:
            entry |= {"datatype": result.datatypes[name], "shape": list(array.shape), "data": _data(array)}
        outputs.append(entry)
    document = {"model_name": result.model_name, "model_version": result.model_version, "outputs": outputs}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def print_tables(result: InferResult, classified: Collection[str]) -> None:
    """The answer as tables on standard output."""
    from rich.console import Console  # noqa: PLC0415 - programs that ask for JSON need not load it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=_PIPE_WIDTH, highlight=False)
    console.print(Text(f"{result.model_name} version {result.model_version}"))
    for name, array in result.outputs.items():
        table = Table(title=Text(name), title_justify="left", box=None, pad_edge=False)
        if name in classified:
            rows = result.classes(name)
            headings = ["class", "label", "value"] if len(rows) == 1 else ["row", "class", "label", "value"]
            lines = [
                [*([str(number)] if len(rows) > 1 else []), str(score.index), score.label, f"{score.value:.5g}"]
                for number, row in enumerate(rows)
                for score in row
            ]
        else:
            headings, lines = (
                ["type", "shape", "values"],
                [[result.datatypes[name], str(list(array.shape)), _brief(array)]],
            )
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        console.print(table)


def _data(array: Array) -> Any:
    if array.dtype.kind == "O":
        flat = np.array([_text(item) for item in array.flat], dtype=object)
        return flat.reshape(array.shape).tolist()
    return array.tolist()


def _brief(array: Array) -> str:
    if array.dtype.kind == "O":
        shown = ", ".join(repr(_text(item)) for item in array.flat[:20])
        return f"[{shown}{', …' if array.size > 20 else ''}]"
    return np.array2string(array, precision=4, suppress_small=True, threshold=40, edgeitems=4, max_line_width=100)


def _text(item: bytes) -> str:
    return item.decode(errors="backslashreplace")
