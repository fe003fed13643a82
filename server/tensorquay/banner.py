"""What the server says when it is up: what it serves, where, on what, and a line to try."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tensorquay import __version__
from tensorquay.core.datatypes import DataType
from tensorquay.core.ids import VersionKey
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.lifecycle.lease import Catalogue, ServedVersion

_SAMPLES: Mapping[DataType, object] = {DataType.BYTES: "hello", DataType.BOOL: True}


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the server listens; None for a door that is closed."""

    http: str | None
    grpc: str | None
    metrics: str | None
    console: str | None = None
    frontends: int = 0
    """Processes that listen there; 0: this one does."""


def banner(catalogue: Catalogue, doors: Doors, *, threads_because: str, failed: Sequence[str]) -> str:
    """Several lines for a person at a terminal.

    Args: failed: a sentence per model that was to be served and is not.
    """
    lines = [f"Tensorquay {__version__} serves {len(catalogue)} model{'' if len(catalogue) == 1 else 's'}"]
    for name in sorted(catalogue):
        lines.extend(f"  {line}" for line in _model(catalogue[name].versions.values()))
    lines.extend(f"  not served: {sentence}" for sentence in failed)
    for what, where in (
        ("HTTP", doors.http),
        ("gRPC", doors.grpc),
        ("metrics", doors.metrics),
        ("console", doors.console),
    ):
        if where is not None:
            lines.append(f"{what:<8} {where}")
    if doors.frontends:
        lines.append(f"doors    {doors.frontends} front-end process{'' if doors.frontends == 1 else 'es'}")
    lines.append(f"threads  {threads_because}")
    example = _example(catalogue)
    if doors.http is not None and example is not None:
        key, body = example
        lines.append(f"try      curl -s {doors.http}/v2/models/{key.name}/infer -d '{json.dumps(body)}'")
    return "\n".join(lines)


def _model(versions: Iterable[ServedVersion]) -> list[str]:
    lines = []
    for served in versions:
        signature = served.signature
        batch = f"batches of up to {signature.max_batch_size}" if signature.batches else "no batching"
        placement = served.placement
        provider = placement.providers[0] if placement.providers else "unknown provider"
        count = placement.intra_op_threads
        threads = f"{count} thread{'' if count == 1 else 's'}"
        lines.append(f"{served.id.name} version {served.id.version}: {provider}, {threads}, {batch}")
    return lines


def _example(catalogue: Catalogue) -> tuple[VersionKey, dict[str, object]] | None:
    """The smallest request JSON can say that some model takes."""
    found: list[tuple[int, VersionKey, dict[str, object]]] = []
    for model in catalogue.values():
        signature = model.highest.signature
        if all(_sayable(spec) for spec in signature.inputs) and signature.inputs:
            body = _request(signature)
            found.append((len(json.dumps(body)), model.highest.id.key, body))
    if not found:
        return None
    _, key, body = min(found)
    return key, body


def _sayable(spec: TensorSpec) -> bool:
    return spec.datatype not in {DataType.FP16, DataType.BF16}


def _request(signature: Signature) -> dict[str, object]:
    inputs = []
    for spec in signature.inputs:
        shape = [1 if size == -1 else size for size in spec.shape]
        count = 1
        for size in shape:
            count *= size
        sample = _SAMPLES.get(spec.datatype, 1)
        # Nobody pastes a photograph: beyond this the example only has to be longer than another model's.
        inputs.append(
            {"name": spec.name, "datatype": spec.datatype.wire, "shape": shape, "data": [sample] * min(count, 10_000)}
        )
    return {"inputs": inputs}
