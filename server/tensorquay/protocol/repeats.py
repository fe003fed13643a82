"""Requests like one before: what the codecs found out about its shape is used again, only the tensor bytes are new.

Clients send the same request with other numbers, again and again. A `RequestPlan` is what is left of a request when
its tensor bytes are taken out; for a request whose other bytes are equal it is the same, so nothing is parsed and
nothing checked twice. The codecs stay the only judges: a plan is made of what they accepted, and whatever does not
match a plan byte for byte goes to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tensorquay.core.datatypes import DataType
from tensorquay.core.messages import InferRequest, Layout, Parameter, RequestedOutput
from tensorquay.core.packed import PackedLayout, PackedTensors
from tensorquay.core.tensors import Tensor
from tensorquay.protocol import v2_json, v2_proto
from tensorquay.protocol.json_repeats import TextPlan, learn, prefix_of
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.shared_memory import SharedMemory

_MAX_HEAD_BYTES = 4096
_MAX_PLANS = 1024
_MAX_PER_LENGTH = 4
# Element types whose bytes may be anything; the others are looked at one by one.
_PLAIN = frozenset(DataType) - {DataType.BYTES, DataType.BOOL}


class RequestPlan:
    """A request without its tensor bytes, its id, and its time of arrival."""

    __slots__ = (
        "_layout", "_model_name", "_model_version", "_outputs", "_packed", "_parameters", "_priority", "_timeout_us",
        "options",
    )  # fmt: skip

    def __init__(self, request: InferRequest, options: WireOptions, offsets: list[int]) -> None:
        self.options = options
        self._model_name = request.model_name
        self._model_version = request.model_version
        self._outputs: list[RequestedOutput] | None = request.outputs
        self._parameters: Mapping[str, Parameter] = request.parameters
        self._priority = request.priority
        self._timeout_us = request.timeout_us
        self._packed = PackedLayout(request.inputs, offsets)
        self._layout = layout_of(request)

    def fill(self, data: bytes | memoryview, base: int, arrival_ns: int) -> InferRequest:
        """The request whose tensor bytes are in `data`, `base` bytes further on than the plan counts."""
        return self.made_of(PackedTensors.cut(self._packed, data, base), arrival_ns)

    def pack(self, parts: list[bytes], arrival_ns: int) -> InferRequest:
        """The request whose inputs have these bytes."""
        return self.made_of(PackedTensors(self._packed, parts), arrival_ns)

    def made_of(self, inputs: Sequence[Tensor], arrival_ns: int) -> InferRequest:
        """The request with these inputs."""
        return InferRequest(
            self._model_name,
            self._model_version,
            "",
            inputs,
            self._outputs,
            self._parameters,
            self._priority,
            self._timeout_us,
            arrival_ns,
            None,
            self._layout,
        )


def layout_of(request: InferRequest) -> Layout:
    """Name, type and shape of every input."""
    return tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in request.inputs)


_Text: TypeAlias = tuple[TextPlan, RequestPlan] | bool
"""What is known of requests that begin alike: False for one that came once, True if nothing can be learnt from them."""


class JsonRequests:
    """Decodes inference requests over HTTP to one model. Loop-confined; owner: a route."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._model_name = model_name
        self._model_version = model_version
        self._plans: dict[bytes, tuple[RequestPlan, int]] = {}
        self._layouts: dict[object, Layout] = {}
        self._texts: dict[bytes, _Text] = {}

    def decode(
        self, body: bytes | memoryview, header_length: int | None, *, shm: SharedMemory | None, arrival_ns: int
    ) -> tuple[InferRequest, WireOptions]:
        """As `v2_json.decode_infer`."""
        if header_length is None and type(body) is bytes:
            return self._decode_text(body, shm, arrival_ns)
        if header_length is None or header_length > _MAX_HEAD_BYTES:
            request, options = v2_json.decode_infer(
                self._model_name, self._model_version, body, header_length, shm=shm, arrival_ns=arrival_ns
            )
            request.layout = self._layout_of(request)
            return request, options
        head = bytes(body[:header_length])
        found = self._plans.get(head)
        if found is not None and found[1] == len(body) - header_length:
            plan = found[0]
            return plan.fill(body, header_length, arrival_ns), plan.options
        request, options = v2_json.decode_infer(
            self._model_name, self._model_version, body, header_length, shm=shm, arrival_ns=arrival_ns
        )
        self._keep(head, request, options, len(body) - header_length)
        return request, options

    def _decode_text(self, body: bytes, shm: SharedMemory | None, arrival_ns: int) -> tuple[InferRequest, WireOptions]:
        """A request that is nothing but JSON."""
        prefix = prefix_of(body)
        known = self._texts.get(prefix)
        if isinstance(known, tuple):
            text, plan = known
            parts = text.read(body, len(prefix))
            if parts is not None:
                return plan.pack(parts, arrival_ns), plan.options
        request, options = v2_json.decode_infer(
            self._model_name, self._model_version, body, None, shm=shm, arrival_ns=arrival_ns
        )
        request.layout = self._layout_of(request)
        if prefix and not known:
            self._keep_text(prefix, body, request, options)
        return request, options

    def _keep_text(self, prefix: bytes, body: bytes, request: InferRequest, options: WireOptions) -> None:
        """Learn from a request whose beginning comes for the second time: what never comes again is not worth it."""
        if prefix not in self._texts:
            if len(self._texts) >= _MAX_PLANS:
                self._texts.clear()
            self._texts[prefix] = False
            return
        text = None if request.id else learn(body, request.inputs)
        self._texts[prefix] = True if text is None else (text, RequestPlan(request, options, [0] * len(request.inputs)))

    def _layout_of(self, request: InferRequest) -> Layout:
        """The one object for the layout of `request`."""
        key = tuple([(tensor.name, tensor.datatype.wire, tensor.array.shape) for tensor in request.inputs])
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _MAX_PLANS:
                self._layouts.clear()
            layout = self._layouts[key] = layout_of(request)
        return layout

    def _keep(self, head: bytes, request: InferRequest, options: WireOptions, tail_bytes: int) -> None:
        if request.id or not _plannable(request):
            return
        sizes = [tensor.byte_size for tensor in request.inputs]
        if sum(sizes) != tail_bytes:
            return  # some input is not among the tensor bytes
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        offsets = [sum(sizes[:number]) for number in range(len(sizes))]
        self._plans[head] = RequestPlan(request, options, offsets), tail_bytes


class ProtoRequests:
    """Decodes ModelInferRequest messages. Loop-confined; owner: the gRPC handler."""

    def __init__(self) -> None:
        self._plans: dict[int, list[tuple[list[tuple[int, int, bytes]], RequestPlan]]] = {}

    def decode(
        self, data: bytes | memoryview, *, shm: SharedMemory | None, arrival_ns: int
    ) -> tuple[InferRequest, WireOptions]:
        """As `v2_proto.decode_infer`."""
        # Equal lengths and equal bytes wherever no tensor is: an equal message but for its numbers.
        for marks, plan in self._plans.get(len(data), ()):
            for at, stop, mark in marks:
                if data[at:stop] != mark:
                    break
            else:
                return plan.fill(data, 0, arrival_ns), plan.options
        request, options = v2_proto.decode_infer(data, shm=shm, arrival_ns=arrival_ns)
        self._keep(data, request, options)
        return request, options

    def _keep(self, data: bytes | memoryview, request: InferRequest, options: WireOptions) -> None:
        if request.id or not _plannable(request) or not v2_proto.is_all_raw(data):
            return
        # Raw contents come last, in the order of the inputs; the way back from the end must agree with that.
        at = len(data)
        offsets: list[int] = []
        marks: list[tuple[int, bytes]] = []
        for tensor in reversed(request.inputs):
            size = tensor.byte_size
            mark = v2_proto.raw_mark(size)
            offsets.append(at - size)
            at -= size + len(mark)
            if at < 0 or bytes(data[at : at + len(mark)]) != mark:
                return
            marks.append((at, mark))
        if at > _MAX_HEAD_BYTES:
            return
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        known = self._plans.setdefault(len(data), [])
        if len(known) >= _MAX_PER_LENGTH:
            known.clear()
        # What stands before the first tensor, and then between them.
        places = [(0, offsets[-1], bytes(data[: offsets[-1]]))] if offsets else [(0, at, bytes(data[:at]))]
        places += [(start, start + len(mark), mark) for start, mark in reversed(marks[:-1])]
        known.append((places, RequestPlan(request, options, offsets[::-1])))


def _plannable(request: InferRequest) -> bool:
    return all(tensor.datatype in _PLAIN for tensor in request.inputs)
