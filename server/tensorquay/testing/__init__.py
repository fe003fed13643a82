"""What a test of a server, a backend or a front end needs, shipped: a fake backend, a clock, a conformance check."""

from tensorquay.testing.check_backend import BackendNonconformity, check_backend
from tensorquay.testing.fake_backend import FakeBackend, FakeSession
from tensorquay.testing.manual_clock import ManualClock

__all__ = ["BackendNonconformity", "FakeBackend", "FakeSession", "ManualClock", "check_backend"]
