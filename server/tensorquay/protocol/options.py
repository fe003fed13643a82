"""What a request says beside its tensors: reserved parameters, requested outputs, and how the answer shall travel.

The rules are the same for JSON and protobuf; each codec brings the parameters as a plain mapping.
Source: V2 parameters, schedule_policy, sequence, classification and binary_tensor_data extensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import Parameter, RequestedOutput
from tensorquay.protocol.fields import check_count
from tensorquay.protocol.shared_memory import ShmTarget, target_of

MAX_CLASSES = 1_000_000
"""Highest `classification` accepted: Triton's order of magnitude; more would be a way to ask for memory."""

_MAX_INT64 = 2**63 - 1
_MAX_UINT64 = 2**64 - 1
_EMPTY_FINAL = "triton_enable_empty_final_response"
_HANDLED = frozenset({"priority", "timeout", "binary_data_output", _EMPTY_FINAL})


@dataclass(frozen=True, slots=True)
class OutputWire:
    """How one output travels: as bytes or as JSON, or into shared memory."""

    binary: bool
    shm: ShmTarget | None = None


@dataclass(frozen=True, slots=True)
class WireOptions:
    """How the answer to one request travels.

    `outputs` holds what was said about single outputs; `default_binary` is for all others. JSON only: gRPC answers
    are always bytes. `empty_final_response` is for streams of decoupled models.
    """

    default_binary: bool = False
    outputs: Mapping[str, OutputWire] = field(default_factory=dict)
    empty_final_response: bool = False


@dataclass(frozen=True, slots=True)
class Reserved:
    """The request parameters that mean something to the server, and the rest, which are the model's."""

    priority: int = 0
    timeout_us: int = 0
    binary_data_output: bool = False
    empty_final_response: bool = False
    custom: Mapping[str, Parameter] = field(default_factory=dict)


JSON_DEFAULTS = WireOptions()
BINARY_DEFAULTS = WireOptions(default_binary=True)
NO_PARAMETERS = Reserved()
_BINARY_OUTPUT = Reserved(binary_data_output=True)


def split_parameters(parameters: Mapping[str, Parameter]) -> Reserved:
    """Sort request parameters into the server's and the model's.

    `sequence_id`, `sequence_start` and `sequence_end` are checked and stay among the model's.
    Raises: InvalidArgument for a reserved name with a wrong value, `headers`, and unknown names that start with
    "triton_".
    """
    if not parameters:
        return NO_PARAMETERS
    if len(parameters) == 1 and parameters.get("binary_data_output") is True:
        return _BINARY_OUTPUT  # what most clients that speak the binary extension send, and nothing else
    for name in parameters:
        if name == "headers" or (name.startswith("triton_") and name != _EMPTY_FINAL):
            raise InvalidArgument(
                f"parameter '{name:.128}' is reserved and cannot be set by a client; "
                "custom parameters must not be called 'headers' nor start with 'triton_'"
            )
    sequence = parameters.get("sequence_id", 0)
    if type(sequence) is not str:
        _integer("sequence_id", sequence, _MAX_UINT64, "a string or an integer")
    for name in ("sequence_start", "sequence_end"):
        _boolean(name, parameters.get(name, False))
    return Reserved(
        priority=_integer("priority", parameters.get("priority", 0), _MAX_UINT64, "an integer"),
        timeout_us=_integer("timeout", parameters.get("timeout", 0), _MAX_INT64, "an integer of microseconds"),
        binary_data_output=_boolean("binary_data_output", parameters.get("binary_data_output", False)),
        empty_final_response=_boolean(_EMPTY_FINAL, parameters.get(_EMPTY_FINAL, False)),
        custom={name: value for name, value in parameters.items() if name not in _HANDLED},
    )


def requested_outputs(
    asked: Sequence[tuple[str, Mapping[str, Parameter]]], *, default_binary: bool, shm_allowed: bool
) -> tuple[list[RequestedOutput], dict[str, OutputWire]]:
    """What the client asks of single outputs, and how each shall travel.

    Args: asked: name and parameters of each output, in order.
    Raises: InvalidArgument for too many, for a name asked twice, and for parameters of a wrong kind; Unimplemented
    for shared memory unless `shm_allowed`.
    """
    check_count("requested outputs", len(asked))
    outputs: list[RequestedOutput] = []
    wires: dict[str, OutputWire] = {}
    for name, parameters in asked:
        if name in wires:
            raise InvalidArgument(f"output '{name:.128}' is requested more than once", facts={"output": name[:128]})
        if not parameters:
            outputs.append(RequestedOutput(name))
            wires[name] = OutputWire(default_binary)
            continue
        what = f"output '{name:.128}'"
        classes = parameters.get("classification", 0)
        if type(classes) is not int or not 0 <= classes <= MAX_CLASSES:
            raise InvalidArgument(
                f"{what}: parameter 'classification' must be an integer from 0 to {MAX_CLASSES}, got {classes!r:.64}"
            )
        target = target_of(what, parameters, allowed=shm_allowed)
        if classes and target is not None:
            raise InvalidArgument(f"{what}: shared memory cannot be combined with 'classification'")
        binary = parameters.get("binary_data", default_binary)
        if type(binary) is not bool:
            raise InvalidArgument(f"{what}: parameter 'binary_data' must be true or false, got {binary!r:.64}")
        outputs.append(RequestedOutput(name, classes))
        wires[name] = OutputWire(binary, target)
    return outputs, wires


def _integer(name: str, value: Parameter, highest: int, expected: str) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise InvalidArgument(f"parameter '{name}' must be {expected} from 0 to {highest}, got {value!r:.64}")
    return value


def _boolean(name: str, value: Parameter) -> bool:
    if type(value) is not bool:
        raise InvalidArgument(f"parameter '{name}' must be true or false, got {value!r:.64}")
    return value
