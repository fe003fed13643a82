"""What the runtime's own profiling wrote is read for what it says, and no more: own times, sums, a trace to open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.profile.made import event, run_event, subject, write_events

from tensorquay_convert.profile.events import Event, Log, Tally, Trace, by_operator, own_times, placements

HOLDERS = frozenset({"If", "Loop"})


def tally_of(path: Path, holders: frozenset[str] = HOLDERS) -> tuple[Tally, Log]:
    log, tally = Log(path), Tally(holders)
    for run in log.runs():
        tally.add(run)
    return tally, log


def test_sums_by_node_and_operator(tmp_path: Path) -> None:
    path = write_events(tmp_path / "e", [
        {"cat": "Session", "name": "model_loading_uri", "dur": 9, "ts": 0, "args": {}},
        event("a", "Conv", 10, 60), event("b", "Relu", 70, 20, index=1), event("c", "Relu", 90, 10, index=2),
        run_event(5, 100),
        event("a", "Conv", 210, 80), event("b", "Relu", 290, 20, index=1), event("c", "Relu", 310, 10, index=2),
        run_event(205, 120),
    ])  # fmt: skip
    tally, log = tally_of(path)
    nodes = tally.nodes()
    assert [(each.node, each.calls, round(each.seconds * 1e6)) for each in nodes] == [
        ("a", 2, 140), ("b", 2, 40), ("c", 2, 20)
    ]  # fmt: skip
    assert nodes[0].shapes == ("float[2,4]", "int64[]")
    assert (nodes[0].weight_bytes, nodes[0].output_bytes, nodes[0].provider) == (16, 32, "cpu")
    assert nodes[0].call_us == pytest.approx(70)
    operators = by_operator(nodes, subject({"Conv": 1, "Relu": 3, "com.microsoft.Relu": 1}))
    assert [(each.operator, each.nodes, each.calls, each.in_file) for each in operators] == [
        ("Conv", 1, 2, 1), ("Relu", 2, 4, 4)
    ]  # fmt: skip
    assert operators[1].call_us == pytest.approx(15)
    assert tally.outside == pytest.approx(20 / 220)
    assert tally.run_us == [100, 120]
    assert log.unread == 0


def test_a_node_with_a_subgraph_is_told_without_the_nodes_inside(tmp_path: Path) -> None:
    path = write_events(tmp_path / "e", [
        event("before", "Add", 0, 5),
        event("inner", "Relu", 12, 30), event("loop", "Loop", 45, 0), event("inner2", "Exp", 50, 20),
        event("if", "If", 10, 80), event("after", "Add", 90, 10, index=3),
        run_event(0, 100),
    ])  # fmt: skip
    tally, _ = tally_of(path)
    own = {each.node: round(each.seconds * 1e6) for each in tally.nodes()}
    assert own == {"before": 5, "inner": 30, "loop": 0, "inner2": 20, "if": 30, "after": 10}


def test_subgraphs_inside_subgraphs_count_once() -> None:
    def call(node: str, operator: str, start: int, us: int) -> Event:
        return Event(node, operator, "cpu", 0, 1, start, us, (), (), 0, 0)

    calls = [
        call("x", "Exp", 20, 10),
        call("inner", "If", 15, 20),
        call("y", "Exp", 40, 5),
        call("outer", "Loop", 10, 50),
    ]
    assert [own for _, own in own_times(calls, HOLDERS)] == [10, 10, 5, 25]
    assert [own for _, own in own_times(calls, frozenset())] == [10, 20, 5, 50]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["Conv", "Relu", "Add"]), st.integers(1, 10_000)),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_shares_are_of_one_whole(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, str, int]], runs: int
) -> None:
    events, now = [], 0
    for _ in range(runs):
        begun = now
        for node, operator, us in calls:
            events.append(event(node, operator, now, us))
            now += us
        events.append(run_event(begun, now - begun))
    tally, _ = tally_of(write_events(tmp_path_factory.mktemp("law") / "e", events))
    nodes = tally.nodes()
    operators = by_operator(nodes, subject({"Conv": 1}))
    assert sum(each.share for each in nodes) == pytest.approx(1)
    assert sum(each.share for each in operators) == pytest.approx(1)
    assert sum(each.time_share for each in placements(nodes)) == pytest.approx(1)
    assert sum(each.seconds for each in operators) == pytest.approx(now / 1e6)
    assert sum(each.calls for each in operators) == len(calls) * runs
    assert tally.outside == pytest.approx(0)


def test_lines_that_cannot_be_read_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    path = write_events(tmp_path / "e", [
        '{"cat" : "Node","name" :"a "quoted" name_kernel_time","args" : {}}', "[1, 2]", "\x00\x01",
        event('a "name" of\tits own\n', "Conv", 0, 5), event("b", "Conv", 5, 5, index=1),
        {**event("c", "Conv", 5, 5), "args": "none"}, {**event("d", "Conv", 5, 5), "name": "d_fence_before"},
        run_event(0, 10), event("cut", "Conv", 20, 5), '{"cat" : "Node","na',
    ])  # fmt: skip
    tally, log = tally_of(path)
    assert {each.node for each in tally.nodes()} == {'a "name" of\tits own\n', "b"}
    assert log.unread == 4


def test_numbers_that_are_none_are_nothing(tmp_path: Path) -> None:
    wrong = event("a", "Conv", 0, 5)
    wrong["args"] |= {
        "node_index": None,
        "parameter_size": "many",
        "input_type_shape": 3,
        "provider": None,
        "op_name": "",
    }
    tally, _ = tally_of(write_events(tmp_path / "e", [wrong, run_event(0, 0)]))
    only = tally.nodes()[0]
    assert (only.operator, only.provider, only.shapes, only.weight_bytes) == ("?", "?", (), 0)
    assert tally.outside == 0


def test_placement_by_provider(tmp_path: Path) -> None:
    path = write_events(tmp_path / "e", [
        event("a", "Conv", 0, 30, provider="CUDAExecutionProvider"),
        event("b", "Conv", 30, 30, index=1, provider="CUDAExecutionProvider"),
        event("c", "NonZero", 60, 20, index=2), run_event(0, 80),
    ])  # fmt: skip
    tally, _ = tally_of(path)
    found = placements(tally.nodes())
    assert [(each.provider, each.nodes) for each in found] == [("cuda", 2), ("cpu", 1)]
    assert [each.time_share for each in found] == pytest.approx([0.75, 0.25])
    assert [each.node_share for each in found] == pytest.approx([2 / 3, 1 / 3])


def test_the_trace_opens_in_viewers_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorquay_convert.profile.events.MOST_TRACED", 10)
    events = []
    for number in range(9):
        start = 1000 + 100 * number
        events += [event("a", "Conv", start + 1, 50), event("b", "Relu", start + 60, 10), run_event(start, 90)]
    trace = Trace("made, batch 2")
    for run in Log(write_events(tmp_path / "e", events)).runs():
        trace.add(run)
    trace.write(tmp_path / "trace.json", {"model": "made"})
    read = json.loads((tmp_path / "trace.json").read_text())
    spans = [each for each in read["traceEvents"] if each["ph"] == "X"]
    assert trace.runs == 3
    assert [each["name"] for each in spans[:3]] == ["run 1", "Conv a", "Relu b"]
    assert spans[0]["ts"] == 0
    assert all(isinstance(each[key], int) for each in spans for key in ("ts", "dur", "pid", "tid"))
    run, first = spans[0], spans[1]
    assert run["tid"] == first["tid"]
    assert run["ts"] <= first["ts"] < first["ts"] + first["dur"] <= run["ts"] + run["dur"]
    named = {each["name"]: each["args"]["name"] for each in read["traceEvents"] if each["ph"] == "M"}
    assert named == {"process_name": "made, batch 2", "thread_name": "thread 1"}
