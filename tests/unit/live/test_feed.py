"""The feed: what a reader is told and when, how many there may be, and that nothing depends on them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tensorquay.config.model import ModelConfig
from tensorquay.core.errors import ErrorKind, Unavailable
from tensorquay.core.ids import VersionId, VersionKey
from tensorquay.core.messages import IndexEntry
from tensorquay.lifecycle.views import Known, Override
from tensorquay.live.feed import MOST_READERS, LiveFeed, Reader, Subject
from tensorquay.live.records import Records, read_records
from tensorquay.repository.snapshot import ModelFolder, VersionFiles
from tensorquay.telemetry.live import ServerCounters
from tensorquay.telemetry.statistics import StatisticsTable
from tensorquay.testing.manual_clock import ManualClock


@dataclass
class Manager:
    """What the feed asks of the real one."""

    revision: int = 0
    lines: list[IndexEntry] = field(default_factory=list)
    served: list[Any] = field(default_factory=list)
    catalogue: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, Known] = field(default_factory=dict)

    def known(self, name: str) -> Known | None:
        return self.folders.get(name)

    def index(self) -> list[IndexEntry]:
        return self.lines

    def all_ready(self) -> list[Any]:
        return self.served


class Seconds:
    """A `sleep` that lasts until the test lets a second pass."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._asleep: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.asked: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        future = asyncio.get_running_loop().create_future()
        self._asleep.put_nowait(future)
        await future

    async def pass_one(self) -> None:
        """Returns when the feed has worked and sleeps again."""
        sleeper = await self._asleep.get()
        self._clock.advance(s=1)
        sleeper.set_result(None)
        self._asleep.put_nowait(await self._asleep.get())


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = StatisticsTable(self.clock)
        self.manager = Manager()
        self.seconds = Seconds(self.clock)
        self.server: Any = ServerCounters
        manager: Any = self.manager
        subject = Subject(self.table, manager, self.read_server, lambda: {"name": "triton"}, may_load=True)
        self.feed = LiveFeed(subject, clock=self.clock, sleep=self.seconds.sleep)

    def read_server(self) -> ServerCounters:
        found: ServerCounters = self.server()
        return found

    def answer(self, model: str) -> None:
        self.table.of(VersionKey(model, 1)).request_succeeded(1, 1, 1, 1, 4)


@pytest.fixture
async def world():
    made = World()
    made.feed.start()
    yield made
    await made.feed.close()


async def told(reader: Reader) -> list[tuple[str, Any]]:
    """The events of one `next`."""
    events = await reader.next()
    assert events is not None
    found = []
    for block in events.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_reader_is_told_who_what_and_the_past_and_then_every_second(world):
    world.manager.lines = [IndexEntry("a", "1", "UNAVAILABLE", "<b>broken</b>"), IndexEntry("never")]
    world.answer("m")
    await world.seconds.pass_one()
    reader = world.feed.read()
    hello, models, history = await told(reader)
    assert hello == ("hello", {"server": {"name": "triton"}, "interval_s": 1.0})
    assert models[0] == "models"
    [broken, never] = models[1]["models"]
    assert (broken["versions"][0]["state"], broken["versions"][0]["reason"]) == ("UNAVAILABLE", "<b>broken</b>")
    assert never == {"name": "never", "versions": [], "policy": None, "override": False, "resting": []}
    assert models[1]["may_load"] is True
    assert history[0] == "history"
    assert [point["server"]["requests_per_s"] for point in history[1]["points"]] == [1.0]
    world.answer("m")
    await world.seconds.pass_one()
    [(name, figures)] = await told(reader)
    assert (name, figures["seconds"], figures["versions"][0]["model"]) == ("figures", 1.0, "m")
    assert json.loads(world.feed.now()) == figures


async def test_what_rests_in_the_repository_is_told_with_the_policy_that_left_it_out(world):
    there = {version: VersionFiles(version, (), Path("model.onnx")) for version in range(1, 31)}
    there[29] = VersionFiles(29, (), problem="there is no model file")
    folder = ModelFolder("m", 0, Path("m"), versions=there)
    world.manager.folders["m"] = Known(folder, override=Override(ModelConfig(), ""))
    world.manager.lines = [IndexEntry("m", "30", "READY")]
    _, (_, told_of), _ = await told(world.feed.read())
    [model] = told_of["models"]
    assert (model["policy"], model["override"]) == ("latest { num_versions: 1 }", True)
    assert model["resting"] == [str(version) for version in range(28, 8, -1)], "the newest that can be loaded"


async def test_models_are_told_again_when_they_changed_and_only_then(world):
    reader = world.feed.read()
    await told(reader)
    await world.seconds.pass_one()
    assert [name for name, _ in await told(reader)] == ["figures"]
    world.manager.lines = [IndexEntry("new", "1", "LOADING")]
    world.manager.revision += 1
    await world.seconds.pass_one()
    assert [name for name, _ in await told(reader)] == ["models", "figures"]
    world.manager.revision += 1  # something else changed, which is not shown
    await world.seconds.pass_one()
    assert [name for name, _ in await told(reader)] == ["figures"]


async def test_a_late_reader_misses_figures_and_nothing_is_kept_for_it(world):
    late, prompt = world.feed.read(), world.feed.read()
    await told(late)
    await told(prompt)
    for _ in range(5):
        await world.seconds.pass_one()
        await told(prompt)
    [(_, figures)] = await told(late)
    assert figures == json.loads(world.feed.now())
    waiting = asyncio.ensure_future(late.next())
    await world.seconds.pass_one()
    assert b"figures" in (await waiting or b"")


async def test_there_is_a_bound_on_readers_and_a_place_is_free_again(world):
    readers = [world.feed.read() for _ in range(MOST_READERS)]
    with pytest.raises(Unavailable, match="32 readers watch the live figures already") as refused:
        world.feed.read()
    assert refused.value.kind is ErrorKind.UNAVAILABLE
    readers[3].leave()
    readers[3].leave()
    world.feed.read()
    with pytest.raises(Unavailable):
        world.feed.read()


async def test_the_end_is_said_once_and_nobody_new_is_taken(world):
    reader = world.feed.read()
    await told(reader)
    waiting = asyncio.ensure_future(told(reader))
    await world.seconds.pass_one()
    await waiting
    waiting = asyncio.ensure_future(told(reader))
    world.feed.end()
    assert await waiting == [("bye", {})]
    assert await reader.next() is None
    with pytest.raises(Unavailable, match="shutting down"):
        world.feed.read()


async def test_a_sampling_that_fails_is_told_in_the_log_and_the_next_one_counts(world, caplog):
    def broken() -> ServerCounters:
        raise RuntimeError("no such file")

    world.server = broken
    await world.seconds.pass_one()
    assert "sampling the live figures failed" in caplog.text
    world.server = ServerCounters
    world.answer("m")
    await world.seconds.pass_one()
    assert json.loads(world.feed.now())["versions"][0]["model"] == "m"


async def test_the_history_has_the_busiest_versions_only(world):
    for number in range(40):
        for _ in range(number + 1):
            world.answer(f"m{number}")
    await world.seconds.pass_one()
    history = (await told(world.feed.read()))[2][1]
    assert len(history["points"][0]["versions"]) == 24
    assert min(each["requests_per_s"] for each in history["points"][0]["versions"]) == 17.0
    assert len(json.loads(world.feed.now())["versions"]) == 40


async def test_costly_sampling_is_done_more_rarely(world):
    world.feed._sampler._cpu_ns = iter(range(0, 10**18, 10**7)).__next__  # 10 ms between any two looks
    for _ in range(12):
        await world.seconds.pass_one()
    assert world.seconds.asked == [1.0] * 13
    # Three at first, to know what it costs; then five seconds apart.
    assert world.feed._ticks == 4


async def test_who_comes_to_watch_does_not_wait_for_what_is_done_rarely(world):
    world.feed._sampler._cpu_ns = iter(range(0, 10**18, 10**7)).__next__
    for _ in range(5):
        await world.seconds.pass_one()
    assert world.feed._ticks == 3
    reader = world.feed.read()
    for _ in range(3):
        await world.seconds.pass_one()
    assert world.feed._ticks == 6
    world.feed.leave(reader)


def served(folder: Path, version: int = 1) -> Any:
    identity = VersionId("m", version, 1)
    loaded = SimpleNamespace(
        files=folder,
        advised=SimpleNamespace(record=None),
        signature=SimpleNamespace(batches=False, max_batch_size=0, unbatched_because="fixed shapes"),
        placement=SimpleNamespace(providers=("CPUExecutionProvider",)),
        node_shares={"CPUExecutionProvider": 1.0},
        file_bytes=7,
        platform="onnxruntime_onnx",
        sessions=(1, 2),
        load_ns=5 * 10**8,
    )
    batcher = SimpleNamespace(inline=True)
    return SimpleNamespace(id=identity, loaded=loaded, batcher=batcher, stats=SimpleNamespace(loaded_ms=12))


async def test_what_lies_beside_a_model_is_read_off_the_loop_and_told_afterwards(world, tmp_path):
    proof = {"passed": True, "cases": 12, "max_absolute": 1e-6, "real_inputs": False, "notes": ["not told"]}
    (tmp_path / "provenance.json").write_text(json.dumps({"proof": proof}))
    (tmp_path / "report.html").write_text("<p>")
    one = served(tmp_path)
    world.manager.served = [one]
    world.manager.lines = [IndexEntry("m", "1", "READY")]
    world.manager.catalogue = {"m": SimpleNamespace(versions={1: one}, highest=one)}
    world.manager.revision += 1
    reader = world.feed.read()
    first = (await told(reader))[1][1]["models"][0]["versions"][0]
    assert first["verified"] is None
    assert (first["batching"], first["provider"], first["instances"], first["bytes"], first["loaded_ms"]) == (
        "none: fixed shapes", "CPU", 2, 7, 12,
    )  # fmt: skip
    await world.feed._reading
    await world.seconds.pass_one()
    (name, models), _ = await told(reader)
    assert name == "models"
    version = models["models"][0]["versions"][0]
    assert version["verified"] == {"passed": True, "cases": 12, "max_absolute": 1e-6, "real_inputs": False}
    assert version["report"] == "/v2/models/m/versions/1/report"
    assert version["serving_default"] is True


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"proof": 3}',
        '{"proof": {"passed": "yes"}}',
        "[" * 100_000,
        '{"proof": {"passed": 1}}',
        "\x00\xff",
    ],
)
def test_a_record_that_is_none_is_not_told(tmp_path, content):
    (tmp_path / "provenance.json").write_text(content, encoding="latin-1")
    assert read_records(tmp_path) == Records()


def test_numbers_of_a_record_are_shown_only_when_they_can_be(tmp_path):
    proof = '{"proof": {"passed": false, "cases": %s, "max_absolute": "nan", "real_inputs": 1}}' % ("9" * 18)
    (tmp_path / "provenance.json").write_text(proof)
    (tmp_path / "report.html").symlink_to("/etc/passwd")
    found = read_records(tmp_path)
    assert found.verified == {"passed": False, "cases": None, "max_absolute": None, "real_inputs": False}
    assert not found.has_report


async def test_one_dear_sampling_is_no_reason_to_look_rarely_and_three_are(world, monkeypatch):
    costs_ns = iter([50_000_000, 0, 50_000_000, 50_000_000, 10_000_000, 0])
    cost = property(lambda _: next(costs_ns), lambda *_: None)
    monkeypatch.setattr(type(world.feed._sampler), "cost_ns", cost, raising=False)
    ticks = []
    for _ in range(10):
        await world.seconds.pass_one()
        ticks.append(world.feed._ticks)
    # What the cheapest of the last three cost is 0.2 % of the pause after them.
    assert ticks == [1, 2, 3, 4, 5, 5, 5, 5, 5, 6]
