"""What the access log tells about one prediction. Made only while that log is on; the hot path knows none of it."""

from __future__ import annotations

from functools import partial

from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferRequest, InferResponse, Reply

_MAX_NAME = 256
"""Characters of a name or an id that are kept: clients choose them."""


class PredictionFacts:
    """Filled in as they become known; what never does stays None. Loop-confined; owner: the door of the request.

    Attributes:
        version: the one that answered; before that the one asked for, "" when none was.
        rows, batch_rows: of the request, and of the batch it rode in.
        queue_ns: between its acceptance and its run. run_ns: the run, with joining inputs and cutting outputs.
        trace_id: of the trace it belongs to, "" without one.
    """

    __slots__ = ("batch_rows", "model", "queue_ns", "request_id", "rows", "run_ns", "trace_id", "version")

    def __init__(self, model: str, version: str = "") -> None:
        self.model = model[:_MAX_NAME]
        self.version = version[:_MAX_NAME]
        self.request_id = ""
        self.rows: int | None = None
        self.batch_rows: int | None = None
        self.queue_ns: int | None = None
        self.run_ns: int | None = None
        self.trace_id = ""

    @classmethod
    def of(cls, request: InferRequest) -> PredictionFacts:
        """What a request says itself."""
        facts = cls("")
        facts.asks(request)
        return facts

    def asks(self, request: InferRequest) -> None:
        """The request could be read: what it says itself."""
        self.model = request.model_name[:_MAX_NAME]
        self.version = request.model_version[:_MAX_NAME]
        self.request_id = request.id[:_MAX_NAME]

    def completed_by(self, reply: Reply) -> Reply:
        """`reply`, which then also tells these facts what came of the request, before anything else."""
        return partial(self._settle, reply)

    def _settle(self, reply: Reply, outcome: InferResponse | ServingError) -> None:
        if isinstance(outcome, InferResponse):
            timings = outcome.timings
            self.version = outcome.model_version
            self.rows, self.batch_rows = timings.rows, timings.batch_rows
            self.queue_ns = timings.queue_ns
            self.run_ns = timings.compute_input_ns + timings.compute_infer_ns + timings.compute_output_ns
        reply(outcome)

    def fields(self) -> dict[str, object]:
        """Those that are known, as fields of a log line; times in milliseconds."""
        found: dict[str, object] = {"request_id": self.request_id} if self.request_id else {}
        found["model"], found["version"] = self.model, self.version
        if self.rows is not None:
            found["rows"], found["batch_rows"] = self.rows, self.batch_rows
        if self.queue_ns is not None and self.run_ns is not None:
            found["queue_ms"] = round(self.queue_ns / 1e6, 3)
            found["run_ms"] = round(self.run_ns / 1e6, 3)
        if self.trace_id:
            found["trace_id"] = self.trace_id
        return found

    def to_list(self) -> list[object]:
        """As `from_list` reads them, in another process."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_list(cls, values: list[object]) -> PredictionFacts:
        """What `to_list` wrote."""
        facts = cls("")
        for name, value in zip(cls.__slots__, values, strict=True):
            setattr(facts, name, value)
        return facts
