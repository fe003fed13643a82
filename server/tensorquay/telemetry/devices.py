"""How full each GPU was, by the runs under way on it, whosesoever they are.

A version all of whose instances on a GPU run fills it, half of them fill half of it; the runs of several versions add
up, to full at most. So one version is told as by its own instances, and many lukewarm versions together are told as the
time in which the GPU had anything to do: what `nvidia-smi` calls utilisation. Models that could really run side by side
need less than that: this errs towards too many servers, never towards too few.
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorquay.core.clock import Clock

FULL = 720_720
"""A GPU that is full, in parts: whole parts for up to 16 instances of a version, so that no rounding adds up."""


class Device:
    """One GPU. Loop-confined: runs begin and end on the event loop.

    A run takes some of `FULL` parts; it must give back what it took.
    """

    __slots__ = ("_clock", "_filled", "_since_ns", "_taken")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_ns = clock.now_ns()
        self._taken = 0
        self._filled = 0

    def began(self, parts: int) -> None:
        """A run began that takes so many parts."""
        self._look()
        self._taken += parts

    def ended(self, parts: int) -> None:
        """A run ended that took so many parts."""
        self._look()
        self._taken -= parts

    def full_ns(self) -> int:
        """How long it was full until now; half of the time that it was half full. Never goes back."""
        self._look()
        return self._filled // FULL

    def _look(self) -> None:
        now_ns = self._clock.now_ns()
        self._filled += (now_ns - self._since_ns) * min(self._taken, FULL)
        self._since_ns = now_ns


class Devices:
    """Every GPU that a version was ever placed on. Loop-confined; owner: the composition root."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._devices: dict[int, Device] = {}

    def of(self, number: int) -> Device:
        """The GPU of that number."""
        found = self._devices.get(number)
        if found is None:
            found = self._devices[number] = Device(self._clock)
        return found

    def full_ns(self) -> Mapping[int, int]:
        """By number; see `Device.full_ns`."""
        return {number: device.full_ns() for number, device in self._devices.items()}
