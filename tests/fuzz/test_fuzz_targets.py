"""Every fuzz target for a moment, without a fuzzer: its seeds, what was once found, and seeds that were mutated.

`make fuzz` runs the same targets for as long as one likes, guided by coverage (docs in tests/fuzz/__main__.py).
"""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import mutators
from tests.fuzz.__main__ import Outcome, main
from tests.fuzz.all_targets import TARGETS
from tests.fuzz.found import FOUND
from tests.fuzz.target import Target, cut, places_of, with_cuts

_EXAMPLES = 250
_ALIKE: dict[str, Any] = {
    # The same examples every time: looking for new ones is `make fuzz`.
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@each_target
def test_the_seeds_are_read(target: Target) -> None:
    seeds = target.seeds()
    assert all(len(seed) <= target.max_bytes for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    for seed in (*seeds, b"", bytes(target.max_bytes)):
        target.run(seed)


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, inputs in FOUND.items() for data in inputs])
def test_what_a_fuzzer_once_found_stays_right(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@each_target
def test_mutated_seeds_are_read_or_refused(target: Target) -> None:
    seeds = target.seeds()

    @settings(max_examples=_EXAMPLES, **_ALIKE)
    @given(st.sampled_from(seeds), st.integers(0, 2**32 - 1), st.integers(1, 4))
    def law(data: bytes, number: int, rounds: int) -> None:
        random_ = random.Random(number)
        damage = partial(mutators.damaged, random_=random_)
        for _ in range(rounds):
            data = target.mutate(data, random_, damage) if target.mutate else damage(data)
        target.run(data[: target.max_bytes])

    law()


@each_target
def test_any_bytes_are_read_or_refused(target: Target) -> None:
    @settings(max_examples=_EXAMPLES // 2, **_ALIKE)
    @given(st.binary(max_size=80))
    def law(data: bytes) -> None:
        target.run(data)

    law()


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_cuts_are_where_they_were_put(payload: bytes, cuts: list[int]) -> None:
    data = with_cuts(payload, cuts)
    assert places_of(data) == (cuts, payload)
    pieces, whole = cut(data)
    assert whole == payload == b"".join(pieces)
    assert all(pieces)


@given(st.binary(max_size=200))
def test_any_bytes_have_cuts(data: bytes) -> None:
    pieces, whole = cut(data)
    assert b"".join(pieces) == whole
    assert data.endswith(whole)


@given(st.lists(st.binary(max_size=9), max_size=4))
def test_frames_and_fields_are_found_again(payloads: list[bytes]) -> None:
    frames = [len(p).to_bytes(3, "big") + b"\0\1\0\0\0\1" + p for p in payloads]
    assert mutators.frames_of(b"".join(frames)) == frames
    fields = [b"\x0a" + mutators.varint(len(p)) + p for p in payloads]
    assert mutators.fields_of(b"".join(fields)) == fields


LOG = """INFO: seed corpus: files: 13 min: 14b max: 733b total: 29124b rss: 93Mb
#16	INITED cov: 40 ft: 150 corp: 9/1Kb exec/s: 0 rss: 93Mb
#80123	NEW    cov: 41 ft: 207 corp: 35/4Kb lim: 1024 exec/s: 5341 rss: 99Mb L: 12/90 MS: 1 Custom-
"""


def test_what_the_fuzzer_says_is_understood():
    done = Outcome.read(LOG + "Done 80177 runs in 15 second(s)\n", 0)
    assert done == Outcome(executions=80_177, edges=41, features=207, kept=35, status=0)
    assert done.told() == "80,177 executions, 41 edges, 207 features, 35 inputs kept"
    # One that was broken ends without that line.
    assert Outcome.read(LOG, 77).executions == 80_123
    assert Outcome.read("Traceback", 1) == Outcome(0, 0, 0, 0, 1)


def test_an_unknown_target_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["h4"])
    assert "expected some of h1, h2" in capsys.readouterr().err


def test_without_atheris_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert main(["chunked", "--seconds=1"]) == 1
    assert "pip install -e '.[fuzz]'" in capsys.readouterr().err
