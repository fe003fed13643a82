"""The proof: run the source and its ONNX model on the same inputs, and judge.

Order: the graph's declarations, then cases from small to large, then the axes, and, when something is wrong, where it
comes from. A source that does not take some inputs itself is not the conversion's fault: such a case counts neither
way. Never raises for a mismatch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tensorquay_convert.api import OpenSource, Say
from tensorquay_convert.proof import axes as axis_proofs
from tensorquay_convert.proof import contract, diagnose, examples, inputs, sensitivity, sizes
from tensorquay_convert.proof.compare import compare, excess, sample
from tensorquay_convert.proof.graph import Graph
from tensorquay_convert.proof.options import ProofOptions
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed, runtime_name
from tensorquay_convert.proof.verification import AxisProof, Case, Comparison, Culprit, Sample, Verification
from tensorquay_convert.tensors import BATCH, Arrays, Interface

__all__ = ["ProofOptions", "verify"]

_MAX_PROBLEMS = 12
_MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class _Planned:
    """A case before it is run: seeded, or from a file."""

    name: str
    origin: str
    sizes: Mapping[str, int]
    needed: bool
    drawn: inputs.Drawn | None = None
    given: Arrays | None = None


@dataclass(slots=True)
class _Worst:
    """The worst case of one output so far, for the plots."""

    rank: float
    sample: Sample


@dataclass(slots=True)
class _Proof:
    """What gathers while cases run. Owned by `verify`."""

    source: OpenSource
    runtime: Runtime
    options: ProofOptions
    cases: list[Case] = field(default_factory=list)
    planned: list[_Planned] = field(default_factory=list)
    worst: dict[str, _Worst] = field(default_factory=dict)
    widened: dict[str, float] = field(default_factory=dict)


def verify(source: OpenSource, model: Path, options: ProofOptions, say: Say) -> Verification:
    """Prove `model` equal to `source`, or say why not.

    Args: source: after its export. model: the finished ONNX file.
    Returns: the verdict with everything measured. `problems` is empty exactly when the model may be published.
    Raises: BadSource for examples that do not fit.
    """
    started = time.monotonic()
    interface = source.facts.interface
    shown = examples.read(options.examples, interface)
    graph = Graph(model)
    agreed = contract.check(graph, interface)
    notes = list(agreed.notes)
    try:
        runtime = Runtime(model)
    except RuntimeFailed as exc:
        return _unloadable(exc, agreed, options, time.monotonic() - started, real=bool(shown))
    proof = _Proof(source, runtime, options)
    base = _base(source, interface, options)
    planned = _plan(interface, base, options, shown)
    skipped = _run_all(proof, interface, planned, started, say)
    if skipped:
        notes.append(f"{skipped} of {len(planned)} cases were left out: the proof had taken {options.budget_s:.0f} s")
    notes += _outside(proof.cases)
    notes += [
        f"the source itself is sensitive to rounding in {name}: tolerance x {min(factor, 100.0):.0f}"
        for name, factor in proof.widened.items()
    ]
    axes = () if options.static else axis_proofs.prove(interface, proof.cases, agreed.fixed)
    if not options.static:
        notes += _fixed_but_free(source, interface, options)
    problems = _problems(agreed.problems, axes, proof.cases)
    culprit, advice = agreed.culprit, ""
    if problems:
        found = diagnose.diagnose(
            source,
            graph,
            interface,
            _failing(proof, interface),
            axes,
            proof.cases,
            say,
            known=agreed.culprit,
            tolerance=options.tolerance,
        )
        culprit, advice = found.culprit, found.advice
        problems = [_with_culprit(problems[0], culprit), *problems[1:], *found.problems]
    return Verification(
        cases=tuple(proof.cases),
        axes=axes,
        problems=tuple(problems[:_MAX_PROBLEMS]),
        culprit=culprit,
        advice=advice,
        seed=options.seed,
        real_inputs=bool(shown),
        runtime=runtime_name(),
        seconds=time.monotonic() - started,
        notes=tuple(notes),
        samples=tuple(each.sample for each in proof.worst.values()),
    )


def _base(source: OpenSource, interface: Interface, options: ProofOptions) -> Mapping[str, int]:
    """Middle sizes that the source runs at; the first ones when it runs at none."""
    tries = sizes.bases(interface, batch=min(2, max(1, options.max_batch)))
    for each in tries:
        if sizes.elements(interface, each) > options.case_elements and each is not tries[-1]:
            continue
        if _takes(source, inputs.draw(interface, inputs.Drawn("base", each), options.seed)):
            return each
    return tries[0]


def _takes(source: OpenSource, given: Arrays) -> bool:
    try:
        source.run(given)
    except Exception:  # noqa: BLE001 - any framework's error is the answer "no"
        return False
    return True


def _plan(
    interface: Interface, base: Mapping[str, int], options: ProofOptions, shown: Sequence[examples.Example]
) -> list[_Planned]:
    """Small cases first, examples before them: a fault is looked for in the smallest case that has it."""
    every = sizes.plan(interface, base, max_batch=options.max_batch, case_elements=options.case_elements)
    drawn = [inputs.Drawn(each.name, each.of, needed=each.needed) for each in every]
    if not base:
        drawn = [inputs.Drawn("usual", {})]
    drawn += [inputs.Drawn(style.value, base, style) for style in inputs.styles(interface)]
    drawn.sort(key=lambda each: (not each.needed, sizes.elements(interface, each.sizes)))
    planned = [_Planned(each.name, each.name, each.sizes, needed=True, given=each.inputs) for each in shown]
    return planned + [_Planned(each.name, "seeded", each.sizes, each.needed, drawn=each) for each in drawn]


def _run_all(proof: _Proof, interface: Interface, planned: Sequence[_Planned], started: float, say: Say) -> int:
    """Run the cases; returns how many were left out for lack of time."""
    skipped = 0
    for number, each in enumerate(planned, start=1):
        spent = time.monotonic() - started
        if spent > proof.options.budget_s and not each.needed:
            skipped += 1
            continue
        say(f"case {number} of {len(planned)}: {each.name} ({spent:.0f} s of at most {proof.options.budget_s:.0f} s)")
        proof.planned.append(each)
        proof.cases.append(_run(proof, interface, each))
    return skipped


def _inputs(each: _Planned, interface: Interface, seed: int) -> Arrays:
    if each.given is not None:
        return each.given
    assert each.drawn is not None
    return inputs.draw(interface, each.drawn, seed)


def _run(proof: _Proof, interface: Interface, each: _Planned) -> Case:
    given = _inputs(each, interface, proof.options.seed)
    case = Case(each.name, each.origin, dict(each.sizes), ())
    try:
        expected = proof.source.run(given)
    except Exception as exc:  # noqa: BLE001 - frameworks raise what they like; the case says what
        return replace(case, problem=f"the source does not take these inputs: {_told(exc)}", outside=True)
    try:
        got = proof.runtime.run(given)
    except RuntimeFailed as exc:
        return replace(case, problem=exc.sentence)
    compared = _compare(proof, interface, expected, got)
    if any(not one.within and not np.isnan(one.max_absolute) for one in compared):
        compared = _reconsidered(proof, interface, given, expected, got, compared)
    for one in compared:
        _remember(proof, interface, each.name, one, expected, got)
    return replace(case, comparisons=compared)


def _compare(
    proof: _Proof, interface: Interface, expected: Arrays, got: Arrays, widened: Mapping[str, float] | None = None
) -> tuple[Comparison, ...]:
    return tuple(
        compare(
            spec,
            expected.get(spec.name),
            got.get(spec.name),
            proof.options.tolerance,
            kind=proof.source.facts.kind,
            widened=(widened or {}).get(spec.name, 1.0),
        )
        for spec in interface.outputs
    )


def _reconsidered(
    proof: _Proof, interface: Interface, given: Arrays, expected: Arrays, got: Arrays, compared: tuple[Comparison, ...]
) -> tuple[Comparison, ...]:
    """The comparisons again, with the tolerance that the source's own sensitivity asks for."""
    try:
        widened = sensitivity.widening(proof.source, given, expected, proof.options.seed)
    except Exception:  # noqa: BLE001 - a source that does not take the nudged inputs tells nothing: no widening
        return compared
    if not widened:
        return compared
    again = _compare(proof, interface, expected, got, widened)
    for before, after in zip(compared, again, strict=True):
        if after.within and not before.within:
            factor = widened[after.output]
            proof.widened[f"'{after.output}'"] = max(factor, proof.widened.get(f"'{after.output}'", 1.0))
    return again


def _remember(proof: _Proof, interface: Interface, case: str, one: Comparison, expected: Arrays, got: Arrays) -> None:
    """Keep a sample of an output's worst case."""
    if np.isnan(one.max_absolute):
        return
    rank = excess(one) or min(excess(replace(one, within=False)), 1.0)
    if one.output in proof.worst and proof.worst[one.output].rank >= rank:
        return
    spec = next(each for each in interface.outputs if each.name == one.output)
    kept = sample(spec, case, expected[one.output], got[one.output])
    if kept is not None:
        proof.worst[one.output] = _Worst(rank, kept)


def _failing(proof: _Proof, interface: Interface) -> Iterator[diagnose.Candidate]:
    """Failing cases, those with the clearest error first among the small ones; then one that passed."""
    seed = proof.options.seed
    pairs = list(zip(proof.cases, proof.planned, strict=True))
    failed = [pair for pair in pairs if not pair[0].passed and not pair[0].outside]
    failed.sort(key=lambda pair: (sizes.elements(interface, pair[0].sizes), -_rank(pair[0])))
    passed = sorted(
        (pair for pair in pairs if pair[0].passed), key=lambda pair: sizes.elements(interface, pair[0].sizes)
    )
    for case, planned in [*failed, *passed]:
        yield diagnose.Candidate(case, lambda each=planned: _inputs(each, interface, seed))  # type: ignore[misc]


def _rank(case: Case) -> float:
    return max((excess(each) for each in case.comparisons), default=float("inf"))


def _problems(agreed: Sequence[str], axes: Sequence[AxisProof], cases: Sequence[Case]) -> list[str]:
    """One sentence each, the most telling first; one for each kind of failure, not for each case."""
    found = [*agreed, *(axis.problem for axis in axes if axis.problem)]
    ran = [case for case in cases if not case.outside]
    if not ran:
        why = cases[0].problem if cases else "there were no cases"
        return [*found, f"nothing could be compared: {why}"]
    seen: dict[str, tuple[str, int]] = {}
    for case in ran:
        if case.problem:
            seen[case.problem[:80]] = _counted(seen, case.problem[:80], f"case '{case.name}': {case.problem}")
        for each in case.comparisons:
            if not each.within:
                kind = f"{each.output}/{'values' if each.max_absolute == each.max_absolute else each.problem[:40]}"
                seen[kind] = _counted(seen, kind, f"case '{case.name}': {each.problem}")
    for text, count in seen.values():
        found.append(text if count == 1 else f"{text} (and {count - 1} more cases like it)")
    return list(dict.fromkeys(found))


def _with_culprit(problem: str, culprit: Culprit | None) -> str:
    """The first problem names the node: it is what a console shows."""
    if culprit is None or f"'{culprit.node}'" in problem or culprit.operator == "graph input":
        return problem
    return f"{problem}; the first node at fault is {culprit.operator} '{culprit.node}'"


def _counted(seen: Mapping[str, tuple[str, int]], kind: str, text: str) -> tuple[str, int]:
    first, count = seen.get(kind, (text, 0))
    return first, count + 1


def _outside(cases: Sequence[Case]) -> list[str]:
    """What the source itself did not take, as one note."""
    names = [case for case in cases if case.outside]
    if not names:
        return []
    listed = ", ".join(f"'{case.name}'" for case in names[:5])
    return [f"the source itself does not run {len(names)} of {len(cases)} cases ({listed}): {names[0].problem}"]


def _fixed_but_free(source: OpenSource, interface: Interface, options: ProofOptions) -> list[str]:
    """A note when the first axis is called fixed although the source takes other sizes of it."""
    needed = [spec for spec in interface.inputs if not spec.optional]
    firsts = {spec.shape[0] for spec in needed if spec.shape}
    if len(firsts) != 1 or not all(spec.shape for spec in needed) or not isinstance(size := next(iter(firsts)), int):
        return []
    wider = replace(interface, inputs=tuple(replace(spec, shape=(BATCH, *(spec.shape or ())[1:])) for spec in needed))
    others = {axis: 2 for spec in needed for axis in spec.dynamic}
    case = inputs.Drawn("another size", {**others, BATCH: size + 1})
    if sizes.elements(wider, case.sizes) > options.case_elements:
        return []
    if not _takes(source, inputs.draw(wider, case, options.seed)):
        return []
    return [f"the first axis is fixed at {size}, but the source takes {size + 1} as well: it could be dynamic"]


def _unloadable(
    failed: RuntimeFailed, agreed: contract.Contract, options: ProofOptions, seconds: float, *, real: bool
) -> Verification:
    return Verification(
        cases=(),
        axes=(),
        problems=(failed.sentence, *agreed.problems),
        culprit=agreed.culprit,
        advice="the exporter wrote a model that cannot be loaded: try another operator set (--opset) or exporter",
        seed=options.seed,
        real_inputs=real,
        runtime=runtime_name(),
        seconds=seconds,
        notes=agreed.notes,
    )


def _told(exc: Exception) -> str:
    line = next((each.strip() for each in str(exc).splitlines() if each.strip()), "")
    return f"{type(exc).__name__}: {line}"[:_MAX_TEXT]
