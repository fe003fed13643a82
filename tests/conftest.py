"""Fixtures every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.support.serving import RunningServer, start

# Time never decides a test: a busy machine draws slowly.
settings.register_profile("tensorquay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tensorquay")

REPOSITORY = Path(__file__).parent.parent / "model_repo"


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server on the shipped models, for all tests that only ask it things."""
    running = start([REPOSITORY], "--allow-client-shm=true", "--log-verbose=1")
    yield running
    assert running.stop() == 0, running.told()


@pytest.fixture
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers of the test's own: `serve([repository], "--flag=value", …)`; they end with it."""
    running: list[RunningServer] = []

    def begin(*arguments: object, **options: object) -> RunningServer:
        started = start(*arguments, **options)  # type: ignore[arg-type]
        running.append(started)
        return started

    yield begin
    for each in running:
        each.end()
