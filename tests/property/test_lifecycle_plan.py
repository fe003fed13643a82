"""Laws of the lifecycle plan, for any repository, table and order of events."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.config.model import AllVersions, LatestVersions, SpecificVersions, VersionPolicy
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.plan import Load, ModelView, Row, Stamp, Unload, plan
from tensorquay.lifecycle.state import Event, State, next_state
from tensorquay.repository.snapshot import FileStamp
from tensorquay.repository.version_policy import select

NAMES = ("a", "b")


def stamp(content: int) -> Stamp:
    return Stamp((FileStamp("model.onnx", content, 0, 0),))


stamps = st.integers(0, 1).map(stamp)
policies: st.SearchStrategy[VersionPolicy] = st.one_of(
    st.integers(1, 2).map(LatestVersions),
    st.just(AllVersions()),
    st.lists(st.integers(1, 3), min_size=1, max_size=2).map(lambda versions: SpecificVersions(tuple(versions))),
)


@st.composite
def views(draw: st.DrawFn, name: str) -> ModelView:
    versions = draw(st.dictionaries(st.integers(1, 3), st.none() | stamps | stamps, max_size=3))
    frozen = draw(st.integers(0, 4)) == 4
    return ModelView(name, versions, draw(policies), frozen=frozen, stand_in=draw(st.booleans()))


repositories = st.fixed_dictionaries({"a": views("a")}, optional={"b": views("b")})

READY, LOADING, UNLOADING, GONE = State.READY, State.LOADING, State.UNLOADING, State.UNAVAILABLE
# What one version's rows can look like, oldest generation first.
HISTORIES = ((), (READY,), (GONE,), (LOADING,), (READY, GONE), (READY, READY), (READY, LOADING), (UNLOADING, LOADING))


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Any table the manager could have: at most one row of a version is LOADING, and that is the newest."""
    rows: list[Row] = []
    for name in NAMES:
        for version in (1, 2, 3):
            for generation, state in enumerate(draw(st.sampled_from(HISTORIES)), 1):
                failed = state is GONE and (generation > 1 or draw(st.booleans()))
                rows.append(Row(VersionId(name, version, generation), state, draw(stamps), "", failed))
    return rows


def carry_out(rows: list[Row], actions: tuple[Load | Unload, ...]) -> list[Row]:
    table = {row.id: row for row in rows}
    for action in actions:
        match action:
            case Load(version, wanted):
                assert version not in table
                table[version] = Row(version, next_state(State.UNKNOWN, Event.LOAD), wanted)
            case Unload(version):
                table[version] = replace(table[version], state=next_state(table[version].state, Event.RETIRE))
    return list(table.values())


def serving(rows: list[Row], name: str) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row.id):
        if row.id.name == name and row.state is State.READY:
            found[row.id.version] = row
    return found


@given(repositories, tables(), st.integers(0, 4))
def test_the_same_question_has_the_same_answer_and_carrying_it_out_leaves_nothing_more_to_do(models, rows, bound):
    actions = plan(models, rows, bound)
    assert actions == plan(models, list(reversed(rows)), bound)
    after = carry_out(rows, actions)
    rest = plan(models, after, bound)
    assert not [action for action in rest if isinstance(action, Unload)]
    assert not rest


@given(repositories, tables(), st.integers(0, 4))
def test_loads_are_bounded_and_generations_only_grow(models, rows, bound):
    loads = [action for action in plan(models, rows, bound) if isinstance(action, Load)]
    loading = sum(row.state is State.LOADING for row in rows)
    assert len(loads) <= max(bound - loading, 0)
    for load in loads:
        mine = [row for row in rows if row.id.key == load.id.key]
        assert all(row.id.generation < load.id.generation for row in mine)
        assert all(row.state is not State.LOADING for row in mine)
        assert load.stamp == models[load.id.name].versions[load.id.version]
        assert not any(row.failed and row.stamp == load.stamp for row in mine), "a failure was repeated"


@given(repositories, tables())
def test_a_model_that_still_exists_never_loses_its_last_serving_version(models, rows):
    after = carry_out(rows, plan(models, rows, 99))
    for name, view in models.items():
        before = [version for version in serving(rows, name) if version in view.versions]
        wanted = select(view.policy, view.versions)
        if before and wanted:
            assert serving(after, name), f"{name} went dark"
        loading = any(row.id.name == name and row.state is State.LOADING for row in after)
        if loading and set(wanted) - set(serving(rows, name)):
            # Not even a removed version leaves a gap before its replacement is there.
            assert not serving(rows, name) or serving(after, name)
        if view.frozen:
            assert serving(after, name) == serving(rows, name)


@given(repositories, tables())
def test_a_wanted_version_that_serves_goes_on_until_a_newer_generation_serves(models, rows):
    unloads = {action.id for action in plan(models, rows, 99) if isinstance(action, Unload)}
    for name, view in models.items():
        for version in select(view.policy, view.versions):
            best = serving(rows, name).get(version)
            assert best is None or best.id not in unloads


@given(repositories, tables())
def test_what_nobody_wants_leaves_at_once(models, rows):
    unloads = {action.id for action in plan(models, rows, 99) if isinstance(action, Unload)}
    for row in rows:
        if row.id.name not in models and row.state is State.READY:
            assert row.id in unloads


@given(repositories, tables(), st.integers(1, 4), st.randoms(use_true_random=False), st.data())
def test_whatever_fails_the_end_is_the_best_that_can_be_had(models, rows, bound, random, data):
    """Run plan and events to the end: each load fails or not by its (version, stamp), in any order of completion."""
    broken = data.draw(st.sets(st.tuples(st.sampled_from(NAMES), st.integers(1, 3), st.integers(0, 2))))

    def loads_well(version: VersionId, wanted: Stamp) -> bool:
        return (version.name, version.version, wanted.files[0].size) not in broken

    # Nothing in the past may contradict what loads now.
    rows = [row for row in rows if loads_well(row.id, row.stamp) != row.failed or row.state is not State.UNAVAILABLE]
    for _ in range(200):
        actions = plan(models, rows, bound)
        rows = carry_out(rows, actions)
        moving = [row for row in rows if row.state in {State.LOADING, State.UNLOADING}]
        if not moving:
            assert not actions
            break
        row = random.choice(moving)
        rows.remove(row)
        if row.state is State.UNLOADING:
            event = Event.DRAINED
        else:
            event = Event.LOADED if loads_well(row.id, row.stamp) else Event.FAILED
        rows.append(replace(row, state=next_state(row.state, event), failed=event is Event.FAILED))
    else:
        raise AssertionError("the plan never came to an end")
    for name in NAMES:
        found = serving(rows, name)
        view = models.get(name)
        if view is None:
            assert not found
            continue
        if view.frozen:
            continue
        wanted = select(view.policy, view.versions)
        good = {
            version
            for version, each in view.versions.items()
            if each is not None and loads_well(VersionId(name, version, 1), each)
        }
        for version in wanted:
            # What can be had of the wanted is served, from the files that are there now.
            if version in good:
                assert found[version].stamp == view.versions[version]
        assert set(found) <= set(view.versions)
        extra = set(found) - set(wanted)
        missing = [version for version in wanted if version not in found]
        assert len(extra) <= len(missing)
        if isinstance(view.policy, LatestVersions) and view.stand_in:
            possible = (good | set(found)) - set(wanted)
            assert len(extra) == min(len(missing), len(possible))
        assert len([row for row in rows if row.id.name == name and row.state is State.READY]) == len(found)
