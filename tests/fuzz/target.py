"""What a fuzz target is, and how a flat input says where a connection's bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Damage = Callable[[bytes], bytes]
"""Changes bytes blindly: the fuzzer's own mutator, or `mutators.damaged`."""

Mutator = Callable[[bytes, random.Random, Damage], bytes]
"""Changes an input along its structure, and pieces of it with the `Damage` it is given."""

_MOST_CUTS = 8


@dataclass(frozen=True)
class Target:
    """One thing that reads what strangers write.

    Args:
        run: reads the input; returns when it was read or refused as documented, raises for everything else.
        seeds: makes inputs to start from: small, and together through most of the code.
        mutate: knows the input's structure; None for inputs without one.
        max_bytes: longer inputs find nothing that shorter ones do not.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator | None = None
    max_bytes: int = 4096


def with_cuts(payload: bytes, cuts: Sequence[int] = ()) -> bytes:
    """An input that says: `payload`, cut at these places."""
    return bytes((len(cuts),)) + b"".join(cut.to_bytes(2, "big") for cut in cuts) + payload


def cut(data: bytes) -> tuple[list[bytes], bytes]:
    """The other side of `with_cuts`, for any bytes: the pieces, and all of them together."""
    places, payload = places_of(data)
    ends = sorted(place % (len(payload) + 1) for place in places)
    pieces = [payload[start:end] for start, end in zip([0, *ends], [*ends, len(payload)], strict=True)]
    return [piece for piece in pieces if piece], payload


def places_of(data: bytes) -> tuple[list[int], bytes]:
    """The cuts as they are written, and the payload."""
    count = min(data[0] % (_MOST_CUTS + 1), (len(data) - 1) // 2) if data else 0
    end = 1 + 2 * count
    return [int.from_bytes(data[at : at + 2], "big") for at in range(1, end, 2)], data[end:]


def keeping_cuts(mutate: Mutator) -> Mutator:
    """`mutate` for the payload of an input with cuts; now and then the cuts change instead."""

    def both(data: bytes, random_: random.Random, damage: Damage) -> bytes:
        places, payload = places_of(data)
        if random_.random() < 0.2:
            count = random_.randint(0, _MOST_CUTS)
            places = [random_.randint(0, len(payload)) for _ in range(count)]
        else:
            payload = mutate(payload, random_, damage)
        return with_cuts(payload, places)

    return both
