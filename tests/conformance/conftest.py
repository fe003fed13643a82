"""One repository of small models, one server on it, and the doors into that server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.serving import RunningServer, start

from composition import EngineHouse
from doors import Door, Grpc, GrpcStream, Http, InProcess
from zoo import build_zoo


@pytest.fixture(scope="session")
def zoo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository."""
    return build_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def zoo(zoo_path: Path) -> Iterator[RunningServer]:
    """A server on it with default settings: shared memory off, control mode none."""
    running = start([zoo_path])
    yield running
    assert running.stop() == 0, running.told()


@pytest.fixture(scope="session")
def house(zoo_path: Path) -> Iterator[EngineHouse]:
    """An engine on it, in this process."""
    house = EngineHouse(zoo_path)
    yield house
    house.close()


_MAKERS: dict[str, Callable[[pytest.FixtureRequest], Door]] = {
    "inprocess": lambda request: InProcess(request.getfixturevalue("house")),
    "http_json": lambda request: Http(request.getfixturevalue("zoo").url, binary=False),
    "http_binary": lambda request: Http(request.getfixturevalue("zoo").url, binary=True),
    "grpc": lambda request: Grpc(request.getfixturevalue("zoo").grpc),
    "grpc_typed": lambda request: Grpc(request.getfixturevalue("zoo").grpc, typed=True),
    "grpc_stream": lambda request: GrpcStream(request.getfixturevalue("zoo").grpc),
}


@pytest.fixture(scope="session")
def open_doors() -> Iterator[dict[str, Door]]:
    """Doors opened so far; connections are reused from test to test."""
    opened: dict[str, Door] = {}
    yield opened
    for each in opened.values():
        each.close()


@pytest.fixture
def door(request: pytest.FixtureRequest, open_doors: dict[str, Door]) -> Door:
    """The door named by the test's parameter."""
    name = request.param
    if name not in open_doors:
        open_doors[name] = _MAKERS[name](request)
    return open_doors[name]


@pytest.fixture(scope="session")
def zoo_names(zoo_path: Path) -> set[str]:
    """Names of the models in the repository."""
    return {folder.name for folder in zoo_path.iterdir()}
