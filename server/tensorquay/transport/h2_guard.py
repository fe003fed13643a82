"""Counts what a peer does that carries no call forward, and says when it is too much.

Pure: callers pass the time. Honest clients stay far below every bound here; what is beyond costs a server more than it
costs the sender (rapid reset, floods of PING, SETTINGS or empty frames).
"""

from __future__ import annotations

from tensorquay.transport.h2_frames import ConnectionFault, ErrorCode
from tensorquay.transport.h2_limits import H2Limits


class Guard:
    """One connection's counters. Loop-confined; owner: the connection."""

    __slots__ = ("_limits", "_ping_ns", "_reset_tokens", "_resets_ns", "_strikes", "chatter", "dirty")

    def __init__(self, limits: H2Limits, now_ns: int) -> None:
        self._limits = limits
        self._reset_tokens = float(limits.resets)
        self._resets_ns = now_ns
        self._strikes = 0
        self._ping_ns: int | None = None
        self.chatter = 0
        # Whether `progress` has anything to set back: it is asked for with every answer.
        self.dirty = False

    def progress(self) -> None:
        """A call was answered, or a message of an answer sent."""
        self.dirty = False
        self.chatter = 0
        self._strikes = 0
        self._ping_ns = None

    def noise(self) -> None:
        """A frame that does nothing for any call. `chatter` is also set back once a second.

        Raises: ConnectionFault.
        """
        self.dirty = True
        self.chatter += 1
        if self.chatter > self._limits.chatter:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")

    def reset(self, now_ns: int) -> None:
        """The peer reset a stream before it was answered, or made us reset one.

        Raises: ConnectionFault.
        """
        self._reset_tokens -= 1.0
        if self._reset_tokens < 0:
            # Only now is the time worth a look: tokens come back at their rate since the last look.
            earned = (now_ns - self._resets_ns) / 1e9 * self._limits.resets_per_s
            self._resets_ns = now_ns
            self._reset_tokens = min(self._reset_tokens + earned, float(self._limits.resets))
            if self._reset_tokens < 0:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")

    def ping(self, now_ns: int, *, busy: bool) -> None:
        """A PING came. `busy`: calls are under way, so the peer has a reason to ask.

        Raises: ConnectionFault.
        """
        self.noise()
        if busy:
            return
        last, self._ping_ns = self._ping_ns, now_ns
        if last is not None and now_ns - last < self._limits.ping_interval_s * 1e9:
            self._strikes += 1
            if self._strikes > self._limits.ping_strikes:
                # These words are what gRPC clients look for, and then ping less.
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
