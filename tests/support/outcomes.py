"""Outcomes of optimisations made by hand, for what reads and shows them."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from tensorquay_convert.optimize.results import (
    DataFacts,
    Judgement,
    Machine,
    NodeSensitivity,
    Outcome,
    OutputAgreement,
    PassReport,
    Point,
    Subject,
    Timing,
    Trial,
    Verdict,
)
from tensorquay_convert.optimize.variants import Family, Settings, Step, Variant

HEAD: dict[str, Any] = {
    "model": "encoder",
    "baseline": {"version": 1, "sha256": "ab" * 32, "file": "model.onnx"},
    "version": "0.1.0",
    "at": "2026-11-21T10:00:00Z",
    "command": ["tensorquay", "optimize", "encoder", "--data", "texts.npz"],
}
POINTS = (
    Point("batch 1, seq 16", 1, 0, {"seq": 16}),
    Point("batch 8, seq 64", 8, 1, {"seq": 64}),
    Point("batch 32, seq 128", 32, 2, {"seq": 128}),
)
BASE_S = (0.0042, 0.110, 0.870)


def timings(*ratios: float, points: Sequence[Point] = POINTS, spread: float = 0.04) -> tuple[Timing, ...]:
    """One timing for each point, `ratios` × faster than the baseline."""
    found = []
    for point, ratio, base in zip(points, ratios, (*BASE_S, *(1.0,) * len(points)), strict=False):
        p50 = base / ratio
        low, high = ratio * (1 - spread), ratio * (1 + spread)
        found.append(Timing(point.name, point.batch, 3, base, base * 1.2, p50, p50 * 1.3, ratio, low, high))
    return tuple(found)


def judgement(cosine: float = 0.9999, top1: float = 1.0, *failed: str, **more: Any) -> Judgement:
    """Of two outputs, the first with a direction."""
    outputs = (
        OutputAgreement("embedding", cosine, 1 - 3 * (1 - cosine), 0.03, 0.002, None, 0, 0.1),
        OutputAgreement("scores", cosine, 1 - 4 * (1 - cosine), 0.21, 0.011, top1, 0, 0.08),
    )
    return Judgement(outputs, 64, "mean cosine at least 0.99 on 64 samples", failed, **more)


def trial(
    name: str, verdict: Verdict, ratios: Sequence[float] = (), *, family: Family = Family.DYNAMIC_INT8, **more: Any
) -> Trial:
    """A trial; timed where there are `ratios`."""
    score = sum(ratios) / len(ratios) if ratios else None
    given: dict[str, Any] = {
        "variant": Variant(name, family, (Step("dynamic int8", {"per_channel": True}),)),
        "verdict": verdict,
        "reason": "" if verdict in {Verdict.WON, Verdict.PASSED} else f"because it is {verdict.value}",
        "timings": timings(*ratios),
        "score": score,
        "score_low": None if score is None else score * 0.97,
        "score_high": None if score is None else score * 1.03,
        "bytes": 23_000_000,
        "seconds": 4.5,
    }
    return Trial(**{**given, **more})


def encoder(**changes: Any) -> Outcome:
    """What an encoder's optimisation looks like, with every kind of verdict."""
    fused = PassReport(
        "fuse transformers, onnxscript", changed=True,
        summary="fused 6 Attention, 12 SkipLayerNormalization, 6 BiasGelu",
        fused={"Attention": 6, "SkipLayerNormalization": 12, "BiasGelu": 6}, seconds=0.9,
    )  # fmt: skip
    quantized = PassReport(
        "dynamic int8, per channel", changed=True, summary="quantized 36 MatMul, 1 Gather", quantized=37,
        kept=("/pooler/dense/MatMul",), seconds=1.4, notes=("weights in 7 bits: this processor has no VNNI",),
    )  # fmt: skip
    nothing = PassReport("simplify", changed=False, summary="there was nothing to fold", seconds=0.4)
    low = ("output 'scores': mean cosine 0.96210, at least 0.99 is asked",)
    trials = (
        trial("simplified", Verdict.UNCHANGED, family=Family.GRAPH, passes=(nothing,), judgement=judgement(1.0)),
        trial("dynamic int8, per tensor", Verdict.INACCURATE, (2.42, 1.9, 2.3), passes=(quantized,),
              judgement=judgement(0.9621, 0.80, *low)),
        trial("dynamic int8, per channel", Verdict.WON, (2.38, 2.05, 2.31), passes=(quantized,),
              judgement=judgement(0.99312, 0.9688), nodes={"CPUExecutionProvider": 297}),
        trial("fused by onnxscript", Verdict.PASSED, (1.19, 1.2, 1.18), family=Family.FUSION, passes=(fused,),
              judgement=judgement(0.9999999), bytes=90_900_000, nodes={"CPUExecutionProvider": 91}),
        trial("fused by onnxscript, dynamic int8, per channel", Verdict.PASSED, (2.1, 1.8, 1.95),
              passes=(fused, quantized), judgement=judgement(0.9942, 0.92)),
        trial("graph level all, saved", Verdict.PASSED, (1.12, 1.08, 1.07), family=Family.GRAPH, bytes=90_800_000,
              judgement=judgement(1.0)),
        trial("4 bit weights", Verdict.SLOWER, (0.94, 0.81, 0.78), family=Family.WEIGHTS, bytes=55_000_000,
              judgement=judgement(0.9661, 0.86)),
        trial("8 bit weights", Verdict.NOT_FASTER, (1.01, 0.93, 0.9), family=Family.WEIGHTS,
              judgement=judgement(0.9997)),
        trial("static int8, minmax", Verdict.INACCURATE, (2.2, 2.0, 2.16), family=Family.STATIC_INT8,
              judgement=judgement(0.941, 0.75, *low), passes=(quantized,)),
        trial("float16", Verdict.FAILED, family=Family.HALF, bytes=None,
              reason="onnxruntime refused the model: type mismatch at node /layers.0/LayerNorm"),
        trial("static int8, entropy", Verdict.NOT_TRIED, family=Family.STATIC_INT8, bytes=None, timings=(),
              reason="the time budget of 5 min was used up"),
    )  # fmt: skip
    layers = tuple(
        NodeSensitivity(f"/encoder/layers.{at // 6}/block_{at % 6}/MatMul", "MatMul", 10.0 ** (-2 - at * 0.14), at > 4)
        for at in range(36)
    )
    found = Outcome(
        subject=Subject(
            "encoder", "ab" * 32, 90_900_000, 20, 297, {"MatMul": 48, "Add": 61, "LayerNormalization": 13}, {}, True,
            {"input_ids": "int64[batch,seq]", "attention_mask": "int64[batch,seq]"},
            {"embedding": "float32[batch,384]", "scores": "float32[batch,10]"}, 90_700_000,
        ),
        data=DataFacts(real=True, calibration=64, judging=64, labels=False, points=POINTS),
        goals={"objective": "balanced", "gate": {"max_drop": None, "min_cosine": 0.99}, "batches": [1, 8, 32]},
        machine=Machine("AMD EPYC 7B13", ("avx2",), 2, "1.31.1", ("CPUExecutionProvider",)),
        winner="dynamic int8, per channel",
        sentence="dynamic int8, per channel is 2.24 × as fast as the model before at mean cosine 0.993",
        settings=Settings(intra_op_threads=2, session_options={"session.set_denormal_as_zero": "1"}),
        noise=timings(1.0, 1.01, 0.99, spread=0.03),
        trials=trials,
        sensitivity=layers,
        warnings=("this machine was busy while it was measured: bounds are wider than they could be",),
        seconds=184.0,
    )  # fmt: skip
    return replace(found, **changes)


def nothing_helped() -> Outcome:
    """A small model that stays as it is: one point, no batch axis, no data of the user's."""
    point = (Point("as it is", 0, 0),)
    slow = replace(trial("dynamic int8", Verdict.SLOWER, (0.2,)), timings=timings(0.2, points=point))
    return encoder(
        winner="",
        sentence="nothing that was tried is faster here by more than the noise: the model stays as it was",
        data=DataFacts(real=False, calibration=0, judging=16, labels=False, points=point),
        trials=(slow,),
        noise=timings(1.0, points=point),
        sensitivity=(),
        settings=Settings(),
        warnings=(),
    )


def any_outcome(text: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Outcome]:
    """Any outcome at all, by the types of its fields; numbers are finite, as the contract says."""
    said = st.text(st.characters(codec="utf-8"), max_size=12) if text is None else text
    leaves: dict[Any, st.SearchStrategy[Any]] = {
        str: said,
        int: st.integers(0, 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.floats(0.1, 10),
        bool: st.booleans(),
        type(None): st.none(),
        Any: st.none() | st.booleans() | st.integers(0, 9) | said,
    }
    return _any(Outcome, leaves)


def _any(kind: Any, leaves: Mapping[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if kind in leaves:
        return leaves[kind]
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return st.builds(kind, **{each.name: _any(hints[each.name], leaves) for each in fields(kind)})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    inner = [_any(each, leaves) for each in get_args(kind) if each is not ...]
    if get_origin(kind) is tuple:
        return st.lists(inner[0], max_size=3).map(tuple)
    if get_origin(kind) is Mapping:
        return st.dictionaries(inner[0], inner[1], max_size=3)
    assert get_origin(kind) is types.UnionType, kind
    return st.one_of(inner)
