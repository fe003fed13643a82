"""`optimization.json`: all of an outcome, in JSON that every reader takes, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings

from outcomes import HEAD, any_outcome, encoder, nothing_helped, trial
from tensorquay_convert.optimize.plain import to_plain
from tensorquay_convert.optimize.report import console, page, record
from tensorquay_convert.optimize.results import Outcome, OutputAgreement, Verdict


@pytest.mark.parametrize("outcome", [encoder(), nothing_helped(), encoder(trials=(), noise=(), sensitivity=())])
def test_a_record_is_json_and_comes_back(outcome: Outcome) -> None:
    plain = record.record(outcome, **HEAD)
    assert plain["schema"] == "tensorquay.optimization/1"
    assert {name: plain[name] for name in ("model", "at", "command")} == {
        "model": "encoder",
        "at": "2026-11-21T10:00:00Z",
        "command": ["tensorquay", "optimize", "encoder", "--data", "texts.npz"],
    }
    assert plain["baseline"] == HEAD["baseline"]
    assert plain["tensorquay"] == "0.1.0"
    written = json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    assert record.read(json.loads(written)) == outcome


def test_every_field_of_an_outcome_is_in_it() -> None:
    plain = record.record(encoder(), **HEAD)
    assert {each.name for each in dataclasses.fields(Outcome)} <= set(plain)
    assert plain["trials"][2]["verdict"] == "won"
    assert plain["trials"][2]["variant"]["family"] == "dynamic-int8"


def test_what_is_added_later_is_left_out() -> None:
    plain = record.record(encoder(), **HEAD)
    plain["later"] = {"more": 1}
    plain["trials"][0]["later"] = [1]
    plain["machine"]["later"] = "x"
    assert record.read(plain) == encoder()


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (None, "expected an object of schema 'tensorquay.optimization/1', got NoneType"),
        ([], "got list"),
        ({}, "expected schema 'tensorquay.optimization/1', got None"),
        ({"schema": "tensorquay.optimization/2"}, "got 'tensorquay.optimization/2'"),
        ({"schema": "tensorquay.provenance/1"}, "got 'tensorquay.provenance/1'"),
        ({"schema": "\x1b[31m" + "x" * 500}, r"got '\\x1b\[31mxxx"),
        ({"schema": ["tensorquay.optimization/1"]}, "expected schema"),
        ({"schema": "tensorquay.optimization/1"}, "this is no record of schema"),
    ],
)
def test_other_things_are_refused(plain: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        record.read(plain)
    assert len(str(caught.value)) < 600


def test_a_wrong_member_is_refused_and_the_sentence_is_short() -> None:
    plain = record.record(encoder(), **HEAD)
    plain["trials"] = [{"verdict": "splendid"}] * 1000
    with pytest.raises(ValueError, match="no record") as caught:
        record.read(plain)
    assert len(str(caught.value)) < 600


def test_what_is_no_number_becomes_null() -> None:
    nan = OutputAgreement("y", math.nan, -math.inf, math.inf, None, None, 3)
    outcome = encoder()
    judged = outcome.trials[2].judgement
    assert judged is not None
    one = dataclasses.replace(outcome.trials[2], judgement=dataclasses.replace(judged, outputs=(nan,)), score=math.nan)
    plain = record.record(encoder(trials=(one,)), **HEAD)
    json.dumps(plain, allow_nan=False)
    back = record.read(plain).trials[0]
    assert back.score is None
    assert back.judgement is not None
    assert back.judgement.outputs == (OutputAgreement("y", None, None, None, None, None, 3),)


def test_half_a_surrogate_pair_does_not_stop_a_record() -> None:
    odd = "a\ud800b"
    outcome = encoder(winner=odd, trials=(trial(odd, Verdict.WON, (2.0,)),))
    plain = record.record(outcome, **{**HEAD, "model": odd, "command": [odd]})
    json.dumps(plain, ensure_ascii=False).encode("utf-8")
    back = record.read(plain)
    assert back.winner == back.trials[0].variant.name == "a\\ud800b"


@settings(max_examples=60)
@given(any_outcome())
def test_any_outcome_comes_back_and_can_be_shown(outcome: Outcome) -> None:
    found = record.record(outcome, **HEAD)
    assert {name: found[name] for name in to_plain(outcome)} == to_plain(outcome)
    plain = json.loads(json.dumps(found, allow_nan=False))
    assert record.read(plain) == outcome
    page.render(plain, outcome).encode("utf-8")
    headers, rows = console.table(outcome)
    assert {len(each) for each in rows} == {len(headers)}
    "\n".join(console.lines(outcome)).encode("utf-8")
