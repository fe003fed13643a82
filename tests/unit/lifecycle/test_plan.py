"""The plan as a table of situations: what exists, what is loaded, what follows."""

from __future__ import annotations

import pytest

from tensorquay.config.model import AllVersions, LatestVersions, SpecificVersions
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.plan import Load, ModelView, Row, Stamp, Unload, plan, replaces
from tensorquay.lifecycle.state import State
from tensorquay.repository.snapshot import FileStamp

A, B = (Stamp((FileStamp("model.onnx", size, 0, 0),)) for size in (1, 2))
NO_FILE = None


def ready(version: int, stamp: Stamp = A, generation: int = 1) -> Row:
    return Row(VersionId("m", version, generation), State.READY, stamp)


def loading(version: int, stamp: Stamp = A, generation: int = 1) -> Row:
    return Row(VersionId("m", version, generation), State.LOADING, stamp)


def failed(version: int, stamp: Stamp = A, generation: int = 1) -> Row:
    return Row(VersionId("m", version, generation), State.UNAVAILABLE, stamp, "bad", failed=True)


def unloaded(version: int, stamp: Stamp = A, generation: int = 1) -> Row:
    return Row(VersionId("m", version, generation), State.UNAVAILABLE, stamp, "unloaded")


def unloading(version: int, stamp: Stamp = A, generation: int = 1) -> Row:
    return Row(VersionId("m", version, generation), State.UNLOADING, stamp)


LATEST = LatestVersions(1)

CASES = [
    # what, versions, policy, rows, expected ("+version#generation" loads, "-version#generation" unloads)
    ("the first load", {1: A}, LATEST, [], "+1#1"),
    ("the highest only", {1: A, 2: A, 10: A}, LATEST, [], "+10#1"),
    ("all", {1: A, 2: A}, AllVersions(), [], "+1#1 +2#1"),
    ("specific and there", {1: A, 2: A}, SpecificVersions((2, 7)), [], "+2#1"),
    ("at rest", {1: A}, LATEST, [ready(1)], ""),
    ("the new loads beside the old", {1: A, 2: A}, LATEST, [ready(1)], "+2#1"),
    ("the old waits for the new", {1: A, 2: A}, LATEST, [ready(1), loading(2)], ""),
    ("the old leaves when the new serves", {1: A, 2: A}, LATEST, [ready(1), ready(2)], "-1#1"),
    ("the old stays when the new fails", {1: A, 2: A}, LATEST, [ready(1), failed(2)], ""),
    ("the failed is tried when it changes", {1: A, 2: B}, LATEST, [ready(1), failed(2, A)], "+2#2"),
    ("the old stays when the new has no file", {1: A, 2: NO_FILE}, LATEST, [ready(1)], ""),
    ("changed in place: beside", {1: B}, LATEST, [ready(1, A)], "+1#2"),
    ("changed in place: swapped", {1: B}, LATEST, [ready(1, A), ready(1, B, 2)], "-1#1"),
    ("changed in place: failed", {1: B}, LATEST, [ready(1, A), failed(1, B, 2)], ""),
    ("changed back while failed", {1: A}, LATEST, [ready(1, A), failed(1, B, 2)], ""),
    ("changed again while loading", {1: B}, LATEST, [ready(1, A), loading(1, A, 2)], ""),
    ("still being overwritten", {1: NO_FILE}, LATEST, [ready(1)], ""),
    ("unloaded and wanted again", {1: A}, LATEST, [unloaded(1)], "+1#2"),
    ("draining and wanted again", {1: A}, LATEST, [unloading(1)], "+1#2"),
    ("removed", {}, LATEST, [ready(1)], "-1#1"),
    ("removed beside another", {2: A}, AllVersions(), [ready(1), ready(2)], "-1#1"),
    ("removed, the replacement comes first", {1: A}, LATEST, [ready(2)], "+1#1"),
    ("removed, the replacement is coming", {1: A}, LATEST, [ready(2), loading(1)], ""),
    ("removed, the replacement serves", {1: A}, LATEST, [ready(2), ready(1)], "-2#1"),
    ("removed, the replacement failed", {1: A}, LATEST, [ready(2), failed(1)], "-2#1"),
    ("rolled back by policy", {1: A, 2: A}, SpecificVersions((1,)), [ready(2)], "+1#1"),
    ("rolled back, done", {1: A, 2: A}, SpecificVersions((1,)), [ready(1), ready(2)], "-2#1"),
    ("two wanted, one failed: the best old stays", dict.fromkeys((1, 2, 3, 4), A), LatestVersions(2),
     [ready(1), ready(2), failed(3), ready(4)], "-1#1"),
    ("an older one stands in", {1: A, 2: A, 3: A}, LATEST, [failed(3)], "+2#1"),
    ("the next when that fails", {1: A, 2: A, 3: A}, LATEST, [failed(2), failed(3)], "+1#1"),
    ("one stand-in is enough", {1: A, 2: A, 3: A}, LATEST, [loading(1), failed(3)], ""),
    ("none while the wanted one may still come", {1: A, 2: A}, LATEST, [loading(2)], ""),
    ("a stand-in leaves when it is not needed", {1: A, 2: B}, LATEST, [ready(1), ready(2, B, 2)], "-1#1"),
    ("named versions have no stand-ins", {1: A, 2: A}, SpecificVersions((2,)), [failed(2)], ""),
    ("all failed", {1: A, 2: A}, LATEST, [failed(1), failed(2)], ""),
]  # fmt: skip


def shown(actions) -> str:
    return " ".join(f"{'+' if isinstance(a, Load) else '-'}{a.id.version}#{a.id.generation}" for a in actions)


@pytest.mark.parametrize(
    ("versions", "policy", "rows", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_what_follows(versions, policy, rows, expected):
    assert shown(plan({"m": ModelView("m", versions, policy)}, rows, 99)) == expected


def test_a_frozen_model_is_left_as_it_is():
    view = ModelView("m", {2: A}, LATEST, frozen=True)
    assert plan({"m": view}, [ready(1), ready(2, B), ready(3, A, 1), ready(3, A, 2)], 99) == ()


def test_a_load_request_gets_no_stand_in():
    assert plan({"m": ModelView("m", {1: A, 2: A}, LATEST, stand_in=False)}, [failed(2)], 99) == ()


def test_what_is_not_wanted_any_more_leaves_and_is_not_loaded():
    assert plan({}, [ready(1), loading(2), failed(3)], 99) == (Unload(VersionId("m", 1, 1)),)


def test_loads_beyond_the_bound_wait_in_order_of_name():
    models = {name: ModelView(name, {1: A}) for name in "cab"}
    assert [action.id.name for action in plan(models, [loading(1)], 3)] == ["a", "b"]
    assert plan(models, [loading(1), loading(2)], 2) == ()


@pytest.mark.parametrize(
    ("what", "versions", "policy", "rows", "version", "expected"),
    [
        ("the first load", {1: A}, LATEST, [loading(1)], 1, False),
        ("a newer version", {1: A, 2: A}, LATEST, [ready(1), loading(2)], 2, True),
        ("the same version, changed", {1: B}, LATEST, [ready(1), loading(1, B, 2)], 1, True),
        ("one more beside it", {1: A, 2: A}, AllVersions(), [ready(1), loading(2)], 2, False),
        ("beside one that leaves anyway", {1: A, 2: B}, LATEST, [ready(1), ready(2), loading(2, B, 2)], 2, True),
        ("a removed one is bridged", {2: A}, LATEST, [ready(1), loading(2)], 2, True),
    ],
)
def test_what_replaces_something_that_serves(what, versions, policy, rows, version, expected):
    coming = next(row.id for row in rows if row.state is State.LOADING and row.id.version == version)
    assert replaces(ModelView("m", versions, policy), rows, coming) is expected, what
