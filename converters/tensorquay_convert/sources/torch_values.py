"""Find out what integers of an input may be, by watching the model use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tensorquay_convert.tensors import Array, Meaning, Values

_LOOKED_UP = {"aten::embedding": (0, 1), "aten::_embedding_bag": (0, 1), "aten::_embedding_bag_forward_only": (0, 1)}
"""Operators that look rows up: where the table is, where the indices are."""
_SAME_VALUES = {
    "aten::_to_copy", "aten::clone", "aten::view", "aten::_unsafe_view", "aten::unsqueeze", "aten::squeeze",
    "aten::expand", "aten::transpose", "aten::permute", "aten::slice", "aten::select", "aten::alias", "aten::detach",
    "aten::t", "aten::reshape", "aten::contiguous",
}  # fmt: skip


class RowsLookedUp(TorchDispatchMode):  # type: ignore[misc]  # torch is not installed where types are checked
    """Records, for watched tensors, the smallest table they index. `rows`: by the tensor's place."""

    def __init__(self, watched: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # The tensors are kept alive with their places: ids of dead objects are given again.
        self._known: dict[int, tuple[int, torch.Tensor]] = {id(each): (at, each) for at, each in enumerate(watched)}
        self.rows: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        if name in _LOOKED_UP:
            table, indices = (args[place] for place in _LOOKED_UP[name])
            if id(indices) in self._known:
                place = self._known[id(indices)][0]
                self.rows[place] = min(self.rows.get(place, table.shape[0]), table.shape[0])
        elif name in _SAME_VALUES and args and id(args[0]) in self._known and isinstance(result, torch.Tensor):
            self._known[id(result)] = (self._known[id(args[0])][0], result)
        return result


def guess(name: str, dtype: str, example: Array | None, rows: int | None) -> Values:
    """What an input stands for, by what the model looks up with it, its name, and its example.

    Args: rows: of the smallest table it indexes, None when it indexes none.
    """
    plain = name.lower()
    integers = dtype.startswith(("int", "uint"))
    if integers and "mask" in plain:
        return Values(Meaning.MASK, 0, 1)
    if integers and ("token_type" in plain or "segment" in plain):
        return Values(Meaning.SEGMENT_IDS, 0, 1 if rows is None else min(rows - 1, 1))
    if integers and "position" in plain:
        return Values(Meaning.POSITIONS, 0, None if rows is None else rows - 1)
    if integers and rows is not None:
        return Values(Meaning.TOKEN_IDS, 0, rows - 1)
    if dtype == "bool":
        return Values(Meaning.MASK if "mask" in plain else Meaning.FLAG)
    if integers:
        # Nothing tells: what the example has is known to be valid, and a model may index with it in other ways.
        if example is None or not example.size:
            return Values(Meaning.NUMBERS, 0, 1)
        return Values(Meaning.NUMBERS, int(example.min()), max(int(example.max()), int(example.min()) + 1))
    if example is not None and example.ndim == 4 and float(example.min()) >= 0 and float(example.max()) <= 1:
        return Values(Meaning.IMAGE, 0, 1)
    return Values()
