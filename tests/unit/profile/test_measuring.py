"""The measuring itself: what is planned, and that real sessions give what the results promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from tests.support import graphs
from tests.unit.profile.made import subject

from tensorquay_convert.errors import BadSource
from tensorquay_convert.isolation import Limits
from tensorquay_convert.optimize.plain import from_plain
from tensorquay_convert.optimize.results import Point
from tensorquay_convert.optimize.samples import Group, Index, write_index
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.profile import command, jobs, measuring
from tensorquay_convert.profile.command import Asked, one_shape, session_bytes, thread_counts
from tensorquay_convert.profile.jobs import CurveJob, MemoryJob, OperatorsJob, request_of
from tensorquay_convert.profile.measuring import perform
from tensorquay_convert.profile.resident import resident
from tensorquay_convert.profile.results import Memory, MemoryPoint

POINTS = (Point("batch 1", 1, 0), Point("batch 4", 4, 0))


def silent(_text: str) -> None:
    return None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two Relu around an If, whose branches are an Exp and a Neg."""
    branches = [
        helper.make_graph([helper.make_node(operator, ["a"], [name], name=f"inside {name}")], name, [],
                          [graphs.value(name, "FP32", None)])
        for operator, name in (("Exp", "then"), ("Neg", "else"))
    ]  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("ReduceMin", ["x"], ["least"], name="least", keepdims=0),
        helper.make_node("Cast", ["least"], ["is"], name="cast", to=9),
        helper.make_node("If", ["is"], ["b"], name="choose", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Sigmoid", ["b"], ["y"], name="last"),
    ]
    made = graphs.model(nodes, [graphs.value("x", "FP32", ("batch", 64))], [graphs.value("y", "FP32", ("batch", 64))])
    return graphs.write(made, tmp_path / "model.onnx")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    np.save(folder / "x.npy", np.ones((4, 64), np.float32))
    group = Group("made", 4, {"x": "x.npy"}, (), (0, 1, 2, 3), {})
    write_index(folder, Index((group,), POINTS, batched=True, real=False, seed=0))
    return folder


def test_memory_and_the_time_of_a_run(model: Path, samples: Path) -> None:
    told = perform(request_of(MemoryJob(model, Settings(intra_op_threads=1), samples, POINTS)), silent)
    held = from_plain(jobs.Held, told["result"])
    assert held.points == POINTS
    assert held.left_out == ()
    assert [each.point for each in held.memory.points] == ["batch 1", "batch 4"]
    assert all(each.run_s > 0 for each in held.memory.points)
    assert held.memory.load_s > 0
    assert held.memory.before_bytes is None or held.memory.before_bytes > 1 << 20


def test_a_batch_at_which_the_model_fails_is_said_and_left_out(tmp_path: Path, samples: Path) -> None:
    fixed = graphs.model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="fixed")],
        [graphs.value("x", "FP32", ("batch", 64))],
        [graphs.value("y", "FP32", (1, 64))],
        [helper.make_tensor("shape", 7, [2], [1, 64])],
    )
    path = graphs.write(fixed, tmp_path / "fixed.onnx")
    told = perform(request_of(MemoryJob(path, Settings(intra_op_threads=1), samples, POINTS)), silent)
    held = from_plain(jobs.Held, told["result"])
    assert held.points == POINTS[:1]
    assert held.left_out[0].startswith("batch 4 is left out: ONNX Runtime does not run the model: Reshape node 'fixed'")
    with pytest.raises(BadSource, match="runs at none of the batch sizes: batch 4 is left out"):
        perform(request_of(MemoryJob(path, Settings(intra_op_threads=1), samples, POINTS[1:])), silent)


@pytest.mark.parametrize("keep", [True, False])
def test_a_curve_has_every_cell_in_every_round(model: Path, samples: Path, keep: bool) -> None:
    job = CurveJob(model, Settings(), samples, POINTS, (1, 2), {"batch 1": 1e-4, "batch 4": 1e-4}, keep, 0.05, 3)
    curved = from_plain(jobs.Curved, perform(request_of(job), silent)["result"])
    cells = curved.curve.cells
    assert [(each.batch, each.threads) for each in cells] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert len({len(each.rounds) for each in cells}) == 1
    for each in cells:
        assert len(each.rounds) >= measuring.MIN_ROUNDS
        assert each.low <= each.items_s <= each.high
        assert each.p50_s <= each.p99_s
        assert each.runs >= len(each.rounds)
    assert ("loaded again" in curved.curve.order) is not keep


def test_time_by_operator_of_a_graph_with_a_subgraph(model: Path, samples: Path, tmp_path: Path) -> None:
    scratch, trace = tmp_path / "scratch", tmp_path / "trace.json"
    scratch.mkdir()
    known = subject({"Relu": 1, "ReduceMin": 1, "Cast": 1, "If": 1, "Exp": 1, "Neg": 1, "Sigmoid": 1, "Dropout": 2})
    job = OperatorsJob(model, Settings(intra_op_threads=1), samples, POINTS[1], known, 0.05, scratch, trace)
    timed = from_plain(jobs.Timed, perform(request_of(job), silent)["result"])
    found = timed.operators
    by_name = {each.node: each for each in found.nodes}
    assert {each.operator for each in found.operators} == {"Relu", "ReduceMin", "Cast", "If", "Exp", "Sigmoid"}
    assert {each.calls for each in found.nodes} == {found.runs}
    assert by_name["inside then"].operator == "Exp"
    assert sum(each.share for each in found.operators) == pytest.approx(1)
    assert dict(found.gone) == {"Neg": 1, "Dropout": 2}
    assert [each.provider for each in found.placements] == ["cpu"]
    assert 0 <= found.outside < 1
    assert found.overhead_low <= found.overhead <= found.overhead_high
    assert any("If, Loop and Scan" in each for each in found.notes)
    spans = [each for each in json.loads(trace.read_text())["traceEvents"] if each["ph"] == "X"]
    assert len(spans) == timed.trace["events"]
    assert sum(each["cat"] == "run" for each in spans) == timed.trace["runs"] > 0
    assert timed.machine.processors >= 1


def test_the_slowest_places_go_when_there_is_no_time_for_all() -> None:
    took = {("batch 1", 2): 0.01, ("batch 32", 2): 0.4, ("batch 1", 1): 0.02, ("batch 32", 1): 30.0}
    kept, rounds, slow = measuring.plan_rounds(took, 10.0)
    assert kept == [("batch 1", 2), ("batch 32", 2), ("batch 1", 1)]
    assert rounds == 11
    assert slow == [("batch 32", 1)]


def test_the_only_place_stays_however_slow_it_is() -> None:
    only = ("batch 1", 1)
    assert measuring.plan_rounds({only: 600.0}, 1.0) == ([only], measuring.MIN_ROUNDS, [])


def test_what_would_take_too_long_is_not_even_tried_and_said(model: Path, samples: Path) -> None:
    took = {"batch 1": 1e-4, "batch 4": 1e4}
    job = CurveJob(model, Settings(), samples, POINTS, (1, 2), took, keep=True, seconds=1e-7, seed=0)
    curved = from_plain(jobs.Curved, perform(request_of(job), silent)["result"])
    assert len(curved.curve.cells) == 1
    assert curved.left_out[0].startswith(
        "not in the curve, because there is too little time (--seconds): batch 4 with "
    )
    assert "batch 1 with 1 thread" in curved.left_out[0] or "batch 1 with 2 threads" in curved.left_out[0]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["batch 1", "batch 8", "batch 32"]), st.integers(1, 64)),
        st.floats(1e-6, 1e3),
        min_size=1,
    ),
    st.floats(0.1, 1e3),
)
def test_a_plan_keeps_what_it_can_afford(took: dict[tuple[str, int], float], seconds: float) -> None:
    kept, rounds, slow = measuring.plan_rounds(took, seconds)
    assert sorted([*kept, *slow]) == sorted(took)
    assert kept
    assert measuring.MIN_ROUNDS <= rounds <= measuring.MAX_ROUNDS
    whole = sum(2 * took[each] for each in kept)
    assert len(kept) == 1 or measuring.MIN_ROUNDS * whole <= 2 * seconds * (1 + 1e-9)
    assert max(took[each] for each in kept) <= min((took[each] for each in slow), default=float("inf"))


def test_how_often_something_is_run_is_bounded() -> None:
    assert measuring.runs_within(0.1, 10.0) == 1
    assert measuring.runs_within(0.1, 0.01) == 9
    assert measuring.runs_within(1e9, 1e-9) == measuring.runs_within(1.0, 0.0) <= 10_000
    assert measuring.plan_turns(10.0, 5.0, 10, loops=False) == (3, 1)
    turns, runs = measuring.plan_turns(1e6, 1e-6, 1000, loops=False)
    assert turns * runs * 1000 <= 100_000
    turns, runs = measuring.plan_turns(1e6, 1e-6, 10, loops=True)
    assert turns * runs <= 50


@pytest.mark.parametrize(
    ("processors", "counts"),
    [(1, (1,)), (2, (1, 2)), (8, tuple(range(1, 9))), (12, (1, 2, 4, 8, 12)), (64, (1, 2, 4, 8, 16, 32, 64))],
)
def test_thread_counts(processors: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(processors) == counts


def test_memory_as_the_kernel_tells_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nVmSwap:\nOdd\n")
    assert resident(status).now_bytes == 1 << 20
    assert resident(status).peak_bytes == 2 << 20
    assert resident(tmp_path / "none").now_bytes is None


def test_only_one_shape_makes_a_curve() -> None:
    long = [Point(f"batch {each}, seq 9", each, 1, {"seq": 9}) for each in (1, 2, 3)]
    short = [Point(f"batch {each}, seq 4", each, 0, {"seq": 4}) for each in (1, 2)]
    chosen, said = one_shape([*short, *long])
    assert chosen == tuple(long)
    assert said == ("only seq 9 is measured; other shapes in the data: seq 4 (choose with --size)",)
    assert one_shape(short) == (tuple(short), ())


def test_what_a_session_takes_is_its_peak_above_the_empty_process() -> None:
    points = tuple(MemoryPoint(f"batch {each}", each, None, each << 20, 0.1) for each in (10, 30))
    assert session_bytes(Memory(2, 5 << 20, 9 << 20, 9 << 20, 0.1, points)) == 25 << 20
    assert session_bytes(Memory(2, None, None, None, 0.1, ())) == 0


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"threads": (0,)}, "the thread count 0 makes no sense, expected 1 to 1024"),
        ({"batches": (1, 0)}, "the batch size 0 makes no sense"),
        ({"batches": ()}, "no batch size is given"),
        ({"seconds": 0.0}, "the time to measure is 0 s, expected more than 0"),
        ({"data": ("x=nowhere.npz",)}, "the data 'x=nowhere.npz' does not exist"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(model: Path, wrong: dict[str, object], sentence: str) -> None:
    asked = Asked(str(model), limits=Limits(5.0), **wrong)  # type: ignore[arg-type]
    with pytest.raises(BadSource, match=sentence):
        command.profile(asked, lambda told: None)
