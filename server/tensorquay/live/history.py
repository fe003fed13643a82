"""The last 300 points, for whoever begins to look: encoded points, bounded in number and in bytes.

When the bytes run out, every second point of the older half goes: the recent past stays whole, the rest gets coarser.
"""

from __future__ import annotations

from collections import deque

MOST_POINTS = 300
MOST_BYTES = 1 << 20


class History:
    """Loop-confined; owner: the feed."""

    def __init__(self, *, most_points: int = MOST_POINTS, most_bytes: int = MOST_BYTES) -> None:
        self._points: deque[bytes] = deque()
        self._most_points = most_points
        self._most_bytes = most_bytes
        self._bytes = 0

    def add(self, point: bytes) -> None:
        """The newest point, as JSON."""
        self._points.append(point)
        self._bytes += len(point)
        while len(self._points) > self._most_points:
            self._bytes -= len(self._points.popleft())
        while self._bytes > self._most_bytes and len(self._points) > 1:
            self._thin()

    def encoded(self) -> bytes:
        """`{"points": [ … ]}`, oldest first."""
        return b'{"points":[%b]}' % b",".join(self._points)

    def _thin(self) -> None:
        points = list(self._points)
        half = max(len(points) // 2, 1)
        self._points = deque([*points[1:half:2], *points[half:]])
        self._bytes = sum(map(len, self._points))
