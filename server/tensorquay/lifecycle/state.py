"""The states of one loading of one version. The table is the documentation; nobody changes a state except through it.

Names are Triton's (`ModelReadyState`), which the repository index shows to clients.
"""

from __future__ import annotations

import enum

from tensorquay.core.errors import InvariantViolation


class State(enum.Enum):
    """Where a loading is in its life. A retry or a changed file is a new generation, which starts at UNKNOWN."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class Event(enum.Enum):
    """What happens to it."""

    LOAD = "its load begins"
    LOADED = "it is warm and may be leased"
    FAILED = "its load failed; nothing of it is left"
    RETIRE = "it takes no new leases"
    DRAINED = "its last lease ended and its session is closed"


_S, _E = State, Event

_NEXT = {
    (_S.UNKNOWN, _E.LOAD): _S.LOADING,
    (_S.LOADING, _E.LOADED): _S.READY,
    (_S.LOADING, _E.FAILED): _S.UNAVAILABLE,
    (_S.READY, _E.RETIRE): _S.UNLOADING,
    (_S.UNLOADING, _E.DRAINED): _S.UNAVAILABLE,
}


def next_state(state: State, event: Event) -> State:
    """The state after `event`.

    Raises: InvariantViolation for an event that cannot happen in `state`.
    """
    try:
        return _NEXT[state, event]
    except KeyError:
        raise InvariantViolation(f"{event.name} while {state.name}") from None
