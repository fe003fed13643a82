"""Say where a failed proof comes from: the runtime's optimizer, an axis, two outputs, or a node.

Ways to a culprit, the surest first: what the graph's declarations tell; outputs that hold each other's values; the
values inside both (`bisect.py`); one change that cures it (`repairs.py`); the node at which the runtime stopped; a
stored shape that holds the size an axis is frozen at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from tensorquay_convert.api import OpenSource, Say
from tensorquay_convert.job import Tolerance
from tensorquay_convert.proof import bisect, hints, repairs
from tensorquay_convert.proof.advice import advise
from tensorquay_convert.proof.axes import frozen_at
from tensorquay_convert.proof.bisect import Failing
from tensorquay_convert.proof.compare import compare, off
from tensorquay_convert.proof.graph import Graph, source_line
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed
from tensorquay_convert.proof.verification import AxisProof, Case, Culprit
from tensorquay_convert.tensors import Arrays, Interface

_MAX_LOOKED_INTO = 3
_REPAIR_CASES = 3
_REPAIR_S = 30.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A case that was run, and how to make its inputs again."""

    case: Case
    inputs: Callable[[], Arrays]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`problems`: what is worth saying besides those known before."""

    culprit: Culprit | None
    advice: str
    problems: tuple[str, ...] = ()


def diagnose(
    source: OpenSource,
    graph: Graph,
    interface: Interface,
    candidates: Iterable[Candidate],
    axes: Sequence[AxisProof],
    cases: Sequence[Case],
    say: Say,
    *,
    known: Culprit | None,
    tolerance: Tolerance,
) -> Diagnosis:
    """Args: candidates: failing cases, the most telling first, then passing ones. known: a culprit found before."""
    every = list(candidates)
    failed = [each for each in every if not each.case.passed]
    if known is not None or not failed:
        return Diagnosis(known, advise(known, axes, cases, optimizer=False))
    say("looking for where the model parts from its source")
    try:
        plain = Runtime(graph.model, folder=graph.folder, optimized=False)
    except RuntimeFailed as exc:
        return Diagnosis(None, advise(None, axes, cases, optimizer=False), (f"without optimizations: {exc.sentence}",))
    looked: list[Failing] = []
    suspect: Culprit | None = None
    hint = ""
    for each in failed[:_MAX_LOOKED_INTO]:
        case, got = _without_optimizer(source, plain, interface, each, tolerance)
        if case is None:
            problem = f"without ONNX Runtime's optimizations the model is right in case '{each.case.name}'"
            return Diagnosis(None, advise(None, axes, cases, optimizer=True), (problem,))
        if case.stopped_at is None and _equal(case, got):
            # A name, a dtype or a tolerance of the user's: there is no node to look for.
            continue
        looked.append(case)
        swapped = hints.swapped(graph, case, got)
        if swapped is not None:
            return Diagnosis(swapped, advise(swapped, axes, cases, optimizer=False))
        hint = hint or hints.transposed(case, got)
        found = _inside(source, graph, case, say)
        if found is not None and found.confirmed:
            return Diagnosis(found, advise(found, axes, cases, optimizer=False))
        suspect = suspect or found
    if not looked:
        return Diagnosis(None, advise(None, axes, cases, optimizer=False))
    cured = _by_trying(source, graph, looked, every, say)
    culprit = cured or suspect or _frozen(graph, axes, looked) or _stopped(graph, looked)
    return Diagnosis(culprit, advise(culprit, axes, cases, optimizer=False, hint="" if cured else hint))


def _equal(case: Failing, got: Arrays) -> bool:
    """Whether the values are the same all the same."""
    return all(
        name in got and name in case.expected and off(case.expected[name], got[name]) <= 1
        for name in case.outputs
        if name in got or name in case.expected
    )


def _without_optimizer(
    source: OpenSource, plain: Runtime, interface: Interface, each: Candidate, tolerance: Tolerance
) -> tuple[Failing | None, Arrays]:
    """The case again with the optimizations off: as a failing one, or None when it is right then."""
    given = each.inputs()
    expected = source.run(given)
    try:
        got = plain.run(given)
    except RuntimeFailed as exc:
        names = tuple(spec.name for spec in interface.outputs)
        return Failing(given, expected, names, exc.node or None), {}
    compared = [
        compare(spec, expected.get(spec.name), got.get(spec.name), tolerance, kind=source.facts.kind)
        for spec in interface.outputs
    ]
    wrong = tuple(one.output for one in compared if not one.within)
    return (Failing(given, expected, wrong) if wrong else None), got


def _inside(source: OpenSource, graph: Graph, case: Failing, say: Say) -> Culprit | None:
    """What the values inside tell; with the node narrowed down by repairs where the source knows too few of them."""
    try:
        found = bisect.find(source, graph, case, say)
    except Exception as exc:  # noqa: BLE001 - looking inside is a service of the source's, and may fail with anything
        say(f"the source cannot be looked into: {type(exc).__name__}")
        return None
    if found is None or not found.among:
        return found
    among = [each.rpartition(" (")[0] for each in found.among]
    narrowed = repairs.find(graph, [case], time.monotonic() + _REPAIR_S, say, among=among)
    return found if narrowed is None else replace(narrowed, max_absolute=found.max_absolute, among=found.among)


def _by_trying(
    source: OpenSource, graph: Graph, looked: Sequence[Failing], every: Sequence[Candidate], say: Say
) -> Culprit | None:
    more: list[Failing] = []
    for each in islice((one for one in every if one.case.passed), _REPAIR_CASES):
        given = each.inputs()
        more.append(Failing(given, source.run(given), ()))
    return repairs.find(graph, [*looked, *more], time.monotonic() + _REPAIR_S, say)


def _stopped(graph: Graph, looked: Sequence[Failing]) -> Culprit | None:
    """The node at which the runtime gave up: what is wrong may have come from before it."""
    for case in looked:
        node = None if case.stopped_at is None else graph.named(case.stopped_at)
        if node is not None:
            line = source_line(node)
            sentence = f"ONNX Runtime stops at {node.op_type} node '{node.name}'"
            return Culprit(
                node.name, node.op_type, node.output[0], float("nan"), f"{sentence}; from {line}" if line else sentence,
                source_line=line,
            )  # fmt: skip
    return None


def _frozen(graph: Graph, axes: Sequence[AxisProof], looked: Sequence[Failing]) -> Culprit | None:
    for axis in axes:
        size = frozen_at(axis)
        if size is not None and axis.problem and looked:
            return hints.frozen_in(graph, size, looked[0].outputs)
    return None
