"""One loaded model: arrays in, arrays out.

Decides at load how a run goes: numeric tensors go straight through the binding; a model with BF16 or BYTES takes the
longer way through `exchange`. Owns the native session; holds no state between runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorquay.backends.api import GraphSignature, Placement
from tensorquay.backends.onnxruntime.errors import translate_run
from tensorquay.backends.onnxruntime.exchange import Exchange, bytes_array
from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument, InvariantViolation, ServingError

_SPECIAL = frozenset({DataType.BF16, DataType.BYTES})
_USABLE = 0x0101
"""numpy's C_CONTIGUOUS and ALIGNED flags."""


@dataclass(frozen=True, slots=True)
class Native:
    """The native session and what runs need beside it. `secrets` are cut out of error texts."""

    session: Any
    run_options: Any | None
    exchange: Exchange
    secrets: tuple[str, ...]


class OnnxSession:
    """See `backends.api.Session`."""

    def __init__(self, native: Native, graph: GraphSignature, placement: Placement) -> None:
        self._native: Native | None = native
        self._graph = graph
        self._placement = placement
        self._inputs = {spec.name: spec.datatype for spec in graph.inputs}
        self._outputs = {spec.name: spec.datatype for spec in graph.outputs}
        self._dtypes = {spec.name: spec.datatype.numpy for spec in graph.inputs}
        self._required = tuple(spec.name for spec in graph.inputs if not spec.optional)
        # The binding under the public method, where there is one: the wrapper's checks for devices not used here cost
        # 1.2 us of a 6 us call. Same arguments and errors but for missing inputs: see `_usable`.
        inner = getattr(native.session, "_sess", None)
        self._call: Callable[..., list[Array]] | None = getattr(inner, "run", native.session.run)
        self._plain = not any(spec.datatype in _SPECIAL for spec in (*graph.inputs, *graph.outputs))

    @property
    def graph(self) -> GraphSignature:
        """See `Session.graph`."""
        return self._graph

    @property
    def placement(self) -> Placement:
        """See `Session.placement`."""
        return self._placement

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `Session.run`."""
        native, call = self._native, self._call
        if native is None or call is None:
            raise InvariantViolation("run after close")
        if not outputs:
            return []  # the binding takes an empty list for "all"
        try:
            feed = self._usable(inputs)
            if self._plain:
                return call(outputs, feed, native.run_options)
            return self._run_special(native, feed, outputs)
        except (ServingError, InvariantViolation):
            raise
        except Exception as exc:
            raise translate_run(exc, native.secrets) from exc

    def close(self) -> None:
        """See `Session.close`."""
        self._native = self._call = None

    def _usable(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """`inputs` as the runtime can take them: right type, C-contiguous, aligned. Copies only what is not.

        Raises: InvalidArgument for a missing input, or a name or type the model does not have. The runtime itself
        would read a foreign byte order as numbers.
        """
        repaired: dict[str, Array] = {}
        for name, array in inputs.items():
            expected = self._dtypes.get(name)
            if expected is None:
                raise InvalidArgument(f"the model has no input '{name}', it has {', '.join(self._dtypes) or 'none'}")
            if array.dtype is not expected and array.dtype != expected:
                raise InvalidArgument(
                    f"input '{name}': expected {self._inputs[name].wire} held as {expected.str}, got {array.dtype.str}"
                )
            if array.flags.num & _USABLE != _USABLE:
                repaired[name] = np.require(array, requirements=["C", "A"])
        if len(inputs) < len(self._dtypes):
            # The native side would begin to run and fail at the first node that misses it.
            absent = [name for name in self._required if name not in inputs]
            if absent:
                raise InvalidArgument(f"missing required input {', '.join(map(repr, absent))}")
        return {**inputs, **repaired} if repaired else inputs

    def _run_special(self, native: Native, arrays: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        exchange = native.exchange
        feed: dict[str, Any] = dict(arrays)
        text: list[str] = []
        exact = False
        for name, array in arrays.items():
            datatype = self._inputs[name]
            if datatype is DataType.BF16:
                feed[name] = exchange.bf16_value(array)
            elif datatype is DataType.BYTES:
                feed[name] = exchange.text_or_value(name, array)
                if isinstance(feed[name], np.ndarray):
                    text.append(name)
                else:
                    exact = True
        wanted = {self._outputs[name] for name in outputs if name in self._outputs}
        if DataType.BF16 not in wanted and not exact and (text or DataType.BYTES not in wanted):
            try:
                results = native.session.run(outputs, feed, native.run_options)
                return [self._from_numpy(name, array) for name, array in zip(outputs, results, strict=True)]
            except UnicodeDecodeError:
                # An output that is not UTF-8, made from inputs that are. Rare enough to run again the exact way.
                pass
        return self._run_values(native, feed, arrays, outputs)

    def _run_values(
        self, native: Native, feed: dict[str, Any], arrays: Mapping[str, Array], outputs: Sequence[str]
    ) -> list[Array]:
        """Everything as `OrtValue`s: the only way in which BF16 and arbitrary bytes come out."""
        exchange = native.exchange
        for name, value in feed.items():
            if isinstance(value, np.ndarray):
                is_text = self._inputs[name] is DataType.BYTES
                feed[name] = exchange.string_value(arrays[name]) if is_text else exchange.plain_value(value)
        values = native.session.run_with_ort_values(outputs, feed, native.run_options)
        return [
            exchange.to_array(name, self._outputs[name], value) for name, value in zip(outputs, values, strict=True)
        ]

    def _from_numpy(self, name: str, array: Array) -> Array:
        return bytes_array(array) if self._outputs[name] is DataType.BYTES else array
