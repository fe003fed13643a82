"""Fail the n-th step of a load, for every n until it succeeds: nothing may stay behind, and the old must serve."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorquay.batching.batcher import Batcher
from tensorquay.core.errors import ModelFailed


class Countdown:
    """Raises at the n-th of all the steps it is asked about."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.fired = False

    def step(self, *_: Any) -> Exception | None:
        self.left -= 1
        if self.left == 0:
            self.fired = True
            return ModelFailed("the n-th step failed")
        return None

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            failure = self.step()
            if failure is not None:
                raise failure
            return call(*args, **kwargs)

        return wrapped


CONFIG = """
max_batch_size: 4
instance_group [ { kind: KIND_CPU count: 2 } ]
model_warmup [ {
  name: "w" batch_size: 2
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [2] zero_data: true } }
} ]
"""


@pytest.mark.parametrize("had_one", [False, True])
async def test_a_load_that_fails_at_its_nth_step_leaves_nothing_behind(world, had_one, monkeypatch):
    world.repo.config("m", CONFIG)
    current = Countdown(0)
    manager = world.manager(
        # `current` is another one at every step.
        make_batcher=lambda *a, **k: current.wrap(Batcher)(*a, **k),  # noqa: PLW0108
    )
    monkeypatch.setattr(world.fleet, "_tidy", lambda: current.wrap(lambda: None)())  # noqa: PLW0108
    if had_one:
        world.repo.drop("m", 1)
    await manager.start()
    live = 1 if had_one else 0
    assert world.backend.live_sessions == live
    world.backend.fail_inspect = lambda path: current.step()
    world.backend.fail_load = lambda request: current.step()
    world.backend.fail_run = lambda inputs: current.step()
    failures = 0
    for steps in itertools.count(1):
        current = Countdown(steps)
        before = manager.lookup("m") if had_one else None
        world.repo.drop("m", 2)
        await world.looked(manager)
        if manager.is_ready("m", 2):
            break
        failures += 1
        assert current.fired
        assert world.backend.live_sessions == live
        if had_one:
            assert manager.lookup("m") is before
        assert manager.index()[-1].state == "UNAVAILABLE"
        assert "the n-th step failed" in manager.index()[-1].reason
    # inspect (twice: the fake looks again while loading), load, the configured warm-up; runs of zeros may fail.
    assert failures >= 4
    assert world.backend.live_sessions == 1


async def test_of_several_sessions_a_failing_one_takes_the_others_along(world):
    from tensorquay.lifecycle.fleet import Fleet

    world.repo.drop("m", 1)
    world.repo.config("m", "instance_group [ { kind: KIND_GPU count: 2 } ]")
    manager = world.manager()
    world.backend.devices = (0, 1)
    assert isinstance(world.fleet, Fleet)
    loads = itertools.count(1)
    world.backend.fail_load = lambda request: ModelFailed("out of GPU memory") if next(loads) == 4 else None
    await manager.start()
    assert world.backend.most_live == 3
    assert world.backend.live_sessions == 0
    world.backend.fail_load = lambda request: None
    world.repo.drop("m", 1)
    await world.looked(manager)
    served = manager.lookup("m")
    assert len(served.loaded.sessions) == len(served.loaded.distinct_sessions()) == 4
    assert [load.device_id for load in world.backend.loads[-4:]] == [0, 0, 1, 1]


async def test_a_session_that_does_not_close_is_reported_and_no_more(world, caplog):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    session = manager.lookup("m").loaded.sessions[0]
    real = session.close

    def close() -> None:
        real()
        raise RuntimeError("cannot let go")

    session.close = close
    world.repo.drop("m", 2)
    await world.looked(manager)
    assert manager.lookup("m").id.version == 2
    assert "a session did not close cleanly" in caplog.text


async def test_an_unexpected_exception_is_told_by_an_error_id_only(world, caplog):
    world.repo.drop("m", 1)
    world.backend.fail_load = lambda request: RuntimeError(f"stack and path {request.model_path}")
    manager = world.manager()
    report = await manager.start()
    (problem,) = report.failed[0].problems
    assert problem.startswith("internal error while loading the model (error id ")
    assert str(world.repo.root) not in problem
    error_id = problem.split("error id ")[1].split(",")[0]
    assert error_id in caplog.text


async def test_a_model_that_only_looks_batched_is_served_one_by_one(world):
    world.backend.compute = lambda inputs: {"y": np.zeros((7, 2), np.float32)}
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    served = manager.lookup("m")
    assert served.signature.max_batch_size == 0
    assert "output 'y' does not keep the batch" in served.signature.unbatched_because


async def test_who_says_that_it_batches_is_believed_and_told(world):
    world.backend.compute = lambda inputs: {"y": np.zeros((7, 2), np.float32)}
    world.repo.drop("m", 1)
    world.repo.config("m", "max_batch_size: 4")
    manager = world.manager()
    await manager.start()
    served = manager.lookup("m")
    assert served.signature.max_batch_size == 4
    assert any("set max_batch_size to 0" in note for note in served.loaded.notes)
