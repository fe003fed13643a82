"""Which event loop a process of the server runs on."""

from __future__ import annotations

import asyncio


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  optional: 10 % cheaper per request, not on every platform
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
