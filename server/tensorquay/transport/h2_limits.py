"""What one peer may cost: every bound of the HTTP/2 server, with what happens beyond it.

Numbers only. docs/http2.md has the table of bounds, codes and tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorquay.transport.h2_frames import DEFAULT_FRAME_BYTES, DEFAULT_WINDOW, LARGEST_FRAME_BYTES, MAX_WINDOW


@dataclass(frozen=True, slots=True)
class H2Limits:
    """Bounds of one server. Sizes in bytes, times in seconds.

    Attributes:
        connections: at once; one more is closed with ENHANCE_YOUR_CALM.
        streams: at once on a connection; one more is refused (REFUSED_STREAM), which clients may retry.
        frame_bytes: largest payload accepted. Large, because payloads are received where they belong, not buffered.
        stream_window, connection_window: what a peer may send before we say that we took it.
        header_list_bytes: what one request's headers may hold; more is answered with RESOURCE_EXHAUSTED.
        header_block_bytes, continuations: of one encoded block; more ends the connection.
        cached_blocks: header blocks remembered per connection; none longer than `cached_block_bytes`.
        resets: streams that a peer may reset, or force us to reset, in a burst, and then `resets_per_s`.
        chatter: frames that carry no call forward (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty and unknown ones),
            between two answers and per second.
        ping_interval_s, ping_strikes: pings without a call under way that come faster are strikes; more strikes than
            that end the connection ("too_many_pings"), as grpcio has it.
        keepalive_s, keepalive_timeout_s: a silent peer is pinged, and dropped when it does not answer.
        opening_s: from the connection to the peer's first SETTINGS.
        stall_s: longest time in which a peer that has answers to take takes nothing.
        arrival_s: longest pause in the middle of a message or of a header block.
        unsent_bytes: answers a connection may leave untaken; then its calls are refused until it takes some.
        control_calls: control-plane calls under way, over all connections.
        linger_s: how long a closing connection may take to hear of it.
    """

    connections: int = 16_384
    streams: int = 4096
    frame_bytes: int = LARGEST_FRAME_BYTES
    stream_window: int = 2**24
    connection_window: int = 2**26
    header_list_bytes: int = 32 * 1024
    header_block_bytes: int = 32 * 1024
    continuations: int = 16
    cached_blocks: int = 256
    cached_block_bytes: int = 1024
    resets: int = 1000
    resets_per_s: float = 200.0
    chatter: int = 4096
    ping_interval_s: float = 300.0
    ping_strikes: int = 2
    keepalive_s: float = 7200.0
    keepalive_timeout_s: float = 20.0
    opening_s: float = 20.0
    stall_s: float = 120.0
    arrival_s: float = 60.0
    unsent_bytes: int = 2**28
    control_calls: int = 1024
    linger_s: float = 2.0

    def __post_init__(self) -> None:
        if not DEFAULT_FRAME_BYTES <= self.frame_bytes <= LARGEST_FRAME_BYTES:
            raise ValueError(f"frame_bytes must be {DEFAULT_FRAME_BYTES} to {LARGEST_FRAME_BYTES}")
        if not DEFAULT_WINDOW <= self.stream_window <= self.connection_window <= MAX_WINDOW:
            raise ValueError(f"windows must be at least {DEFAULT_WINDOW}, the connection's the larger one")
