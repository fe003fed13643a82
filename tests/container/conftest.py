"""The images of docker/, built once for all tests that are marked `container`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.container.engine import LOCKED_DOWN, ROOT, Container, Engine, why_not


@pytest.fixture(scope="session")
def engine() -> Engine:
    """buildah and podman, or a skip that says what is missing."""
    reason = why_not()
    if reason:
        pytest.skip(f"NO CONTAINER WAS BUILT OR RUN: {reason}")
    return Engine()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """docker/Dockerfile, built."""
    return engine.build("Dockerfile", "tensorquay:test", "--build-arg=REVISION=test")


@pytest.fixture(scope="module")
def shipped(engine: Engine, image: str) -> Iterator[Container]:
    """The shipped models, served with everything taken away that a server does not need."""
    options = (*LOCKED_DOWN, "--memory=512m", "--cpus=1", "--pids-limit=64")
    with Container(engine, image, ROOT / "model_repo", options=options, healthcheck=True) as container:
        yield container.wait_until()
