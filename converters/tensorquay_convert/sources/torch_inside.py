"""The framework's own values of tensors inside an exported graph: its nodes are run one by one, and listened to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorquay_convert.sources.torch_tensors import to_array
from tensorquay_convert.tensors import Array


class _Listener(torch.fx.Interpreter):  # type: ignore[misc]  # torch is not installed where types are checked
    """Runs a graph and keeps the wanted nodes' values."""

    def __init__(self, graph_module: Any, wanted: Mapping[str, str]) -> None:
        super().__init__(graph_module)
        self._wanted = wanted
        self.heard: dict[str, Array] = {}

    def run_node(self, n: Any) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self._keep(n.name, value)
        elif isinstance(value, tuple | list):
            # The exporter calls the outputs of such a node "name__0", "name__1" ….
            for place, each in enumerate(value):
                if isinstance(each, torch.Tensor):
                    self._keep(f"{n.name}__{place}", each)
        elif isinstance(value, int) and not isinstance(value, bool):
            self._keep(n.name, torch.tensor(value))
        return value

    def _keep(self, name: str, value: torch.Tensor) -> None:
        if name in self._wanted and not value.dtype.is_complex:
            self.heard[self._wanted[name]] = to_array(value)


def values_inside(
    program: Any, tensors: Sequence[torch.Tensor], names: Sequence[str], given_way: Mapping[str, str]
) -> Mapping[str, Array]:
    """Values of the graph's nodes, for those of `names` that are nodes of the program.

    Args:
        program: the exported program after the exporter's decompositions: its node names are the graph's value names.
        tensors: the user inputs in order.
        given_way: exporter's names by the names values have in the file now.
    """
    signature = program.graph_signature
    state = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
    given = iter(tensors)
    inputs = []
    for each in signature.input_specs:
        if each.kind.name == "USER_INPUT":
            inputs.append(next(given))
        else:
            inputs.append(state[each.target])
    listener = _Listener(program.graph_module, {given_way.get(name, name): name for name in names})
    with torch.inference_mode():
        listener.run(*inputs)
    return listener.heard
