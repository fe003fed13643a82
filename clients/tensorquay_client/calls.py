"""One request and how its answer is read, as values: what the codecs make and the transports carry.

A codec turns arguments into a `Call`; a transport turns a `Call` into a `Reply`; `Call.parse` turns that into a result
or a typed error. Nothing here, nor in a codec, does any I/O: sync and async clients share all of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from tensorquay_client.messages import InferRequest, InferResult, ModelMetadata, RepositoryEntry, ServerMetadata
from tensorquay_client.tensors import Chunk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `status`: HTTP status, or gRPC code (0 OK). Header names are lower case.

    `text` is gRPC's status message; HTTP has it in the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    text: str = ""


class Repeat(enum.Enum):
    """Whether a request that may have reached the server can be sent again."""

    ALWAYS = "it only asks"
    IF_REFUSED = "it costs work: only when the server says that it did none, and the caller allows it"
    NEVER = "it changes the server"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        verb: HTTP verb; "" for gRPC.
        path: HTTP path with a leading "/", percent-encoded; or the gRPC method's full path.
        body: pieces to be sent one after the other.
        what: for error texts, "infer 'digits'".
    """

    what: str
    verb: str
    path: str
    parse: Callable[[Reply], T]
    body: tuple[Chunk, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: Repeat = Repeat.ALWAYS

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        return sum(map(len, self.body))


class Codec(Protocol):
    """The V2 protocol over one carrier, without the carrier. Both codecs answer with the same values."""

    def live(self) -> Call[bool]:
        """Is the server alive?"""

    def ready(self) -> Call[bool]:
        """Is the server ready for predictions?"""

    def model_ready(self, model: str, version: str) -> Call[bool]:
        """Is this model (version) ready? False also when there is none."""

    def server_metadata(self) -> Call[ServerMetadata]:
        """Name, version, extensions."""

    def model_metadata(self, model: str, version: str) -> Call[ModelMetadata]:
        """Versions, inputs and outputs."""

    def model_config(self, model: str, version: str) -> Call[dict[str, Any]]:
        """The model's configuration with Triton's field names."""

    def statistics(self, model: str, version: str) -> Call[list[dict[str, Any]]]:
        """Counts and times per model version; all models if `model` is empty."""

    def repository_index(self, *, ready: bool) -> Call[list[RepositoryEntry]]:
        """Every model version the server knows, or the ready ones."""

    def load_model(self, model: str, config: str | None, files: Mapping[str, bytes] | None) -> Call[None]:
        """Load or reload."""

    def unload_model(self, model: str, *, dependents: bool) -> Call[None]:
        """Unload."""

    def infer(self, request: InferRequest, headers: Mapping[str, str]) -> Call[InferResult]:
        """Predict."""
