"""Which variants are worth trying for a model, in which order. Pure.

The first round is what fixed recipes would pick from, the most promising first, because the time budget may cut it
short. The second builds on what the first one found: fusion below quantization, mixed precision where INT8 is fast and
not accurate, threads for what leads. The last one tries what seldom wins by much.

Nothing is left out because it "is known" to be slow: that is measured. Dynamic INT8 was measured 2.5 times faster on an
encoder and 5 times slower on a convolutional net.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from tensorquay_convert.optimize.goals import Goals, Objective
from tensorquay_convert.optimize.results import Subject, Trial, Verdict
from tensorquay_convert.optimize.variants import Family, Settings, Step, Variant, saturates

_MULTIPLIED = ("MatMul", "Gemm")
_CONVOLVED = ("Conv", "ConvTranspose")
_QUANTIZABLE = (*_MULTIPLIED, *_CONVOLVED, "Gather", "LSTM", "Attention")
_TRANSFORMER = ("Softmax", "LayerNormalization", "SkipLayerNormalization", "Gelu", "Erf", "Attention")
_GPU = ("cuda", "tensorrt")
_NEARLY = 0.8
_BRANCHING = 40
"""Nodes from which running branches side by side is worth a try."""

FUSIONS = (
    Step("fuse transformers", {"by": "onnxscript"}),
    Step("fuse transformers", {"by": "onnxruntime"}),
)
_FLOAT16 = Step("float16")


def first_round(subject: Subject, goals: Goals, features: Collection[str] = ()) -> tuple[Variant, ...]:
    """The variants to begin with, in order. `features`: of the processor."""
    found = _in_the_file(subject, goals, _settings(goals), features)
    return tuple(each for each in found if _wanted(each, goals))


def last_round(subject: Subject, goals: Goals) -> tuple[Variant, ...]:
    """What is tried when there is time left, in order."""
    settings = _settings(goals)
    found = [
        *_beside_it(goals, settings),
        Variant("simplified", Family.GRAPH, (Step("simplify"),), settings),
        Variant("graph level all, saved", Family.GRAPH, (Step("graph level", {"level": "all"}),), settings),
    ]
    if not subject.quantized and any(_count(subject, each) for each in _QUANTIZABLE):
        found += [_static(method, settings) for method in ("entropy", "percentile")]
    if goals.objective is not Objective.SIZE:
        found += _weights_only(subject, settings)
    return tuple(each for each in found if _wanted(each, goals))


def _settings(goals: Goals) -> Settings:
    return Settings(provider=goals.provider, intra_op_threads=goals.threads)


def _in_the_file(subject: Subject, goals: Goals, settings: Settings, features: Collection[str]) -> Iterable[Variant]:
    on_gpu = goals.provider in _GPU
    quantizable = not subject.quantized and any(_count(subject, each) for each in _QUANTIZABLE)
    convolved = any(_count(subject, each) for each in _CONVOLVED)
    static = [_static("minmax", settings)] if quantizable else []
    dynamic = [_dynamic(per_channel, settings) for per_channel in (True, False)] if quantizable and not on_gpu else []
    if saturates(features):
        # Weights in 7 bits there, unless told otherwise; which of the two is more accurate depends on the model.
        static[1:1] = [_in_8_bits(each) for each in static[:1]]
        dynamic[1:1] = [_in_8_bits(each) for each in dynamic[:1]]
    half = [
        Variant("float16", Family.HALF, (_FLOAT16,), settings),
        Variant("bfloat16", Family.HALF, (Step("bfloat16"),), settings),
    ]
    if on_gpu:
        yield from half
    # Static pays where there are convolutions, dynamic where there are none: what is likelier to win comes first.
    yield from (*static, *dynamic) if convolved else (*dynamic, *static)
    if any(_count(subject, each) for each in _TRANSFORMER):
        yield from (Variant(f"fused by {step.parameters['by']}", Family.FUSION, (step,), settings) for step in FUSIONS)
    if goals.objective is Objective.SIZE:
        yield from (*_weights_only(subject, settings), *(() if on_gpu else half[:1]))


def _beside_it(goals: Goals, settings: Settings) -> Iterable[Variant]:
    if goals.provider == "tensorrt":
        half = replace(settings, provider_options={"trt_fp16_enable": "1"})
        yield Variant("TensorRT with FP16", Family.RUNTIME, (), half)
    if goals.provider == "cpu":
        yield Variant("no NCHWc", Family.RUNTIME, (), replace(settings, graph_optimization="extended"))


def second_round(subject: Subject, goals: Goals, trials: Sequence[Trial], processors: int) -> tuple[Variant, ...]:
    """What the first round's results suggest, in order. `processors`: that may be used."""
    found = [
        *_upon_fusion(goals, trials, _settings(goals)),
        *_mixed(trials),
        *_threads(subject, goals, trials, processors),
    ]
    tried = {each.variant.name for each in trials}
    return tuple(each for each in found if _wanted(each, goals) and each.name not in tried)


def _upon_fusion(goals: Goals, trials: Sequence[Trial], settings: Settings) -> Iterable[Variant]:
    """Quantizing what is fused: below the best way to do it, each fusion.

    Which fusion is the better one by itself does not tell which is better to quantize: what one of them fuses may have
    no INT8 form (an Attention with a bias).
    """
    fused = [
        each
        for each in trials
        if each.variant.family is Family.FUSION and each.verdict is not Verdict.UNCHANGED and _right(each)
    ]
    families = (
        (Family.HALF, Family.STATIC_INT8) if goals.provider in _GPU else (Family.DYNAMIC_INT8, Family.STATIC_INT8)
    )
    best = _right_of_the_fast([each for each in trials if each.variant.family in families])
    if best is None or (best.score or 0.0) <= 1.0:
        return
    for each in fused:
        name = f"{each.variant.name}, {best.variant.name}"
        yield Variant(name, best.variant.family, (*each.variant.steps, *best.variant.steps), settings)


def _right(trial: Trial) -> bool:
    return trial.judgement is not None and trial.judgement.passed


def _mixed(trials: Sequence[Trial]) -> Iterable[Variant]:
    """Where whole-model INT8 is faster than anything accurate: keep what costs accuracy in FP32."""
    int8 = (Family.DYNAMIC_INT8, Family.STATIC_INT8)
    leader = _best(trials, lambda each: bool(each.timings))
    to_beat = max(1.0, leader.score or 1.0) if leader is not None else 1.0
    for family in int8:
        missed = _right_of_the_fast(
            [each for each in trials if each.variant.family is family and each.verdict is Verdict.INACCURATE]
        )
        if missed is not None and (missed.score or 0.0) > to_beat:
            *below, step = missed.variant.steps
            mixed = Step("mixed int8", {"base": step.name, **step.parameters})
            yield Variant(f"mixed, {missed.variant.name}", Family.MIXED, (*below, mixed), missed.variant.settings)


def _threads(subject: Subject, goals: Goals, trials: Sequence[Trial], processors: int) -> Iterable[Variant]:
    """Other thread counts for what leads, and for the model as it is when nothing does."""
    if goals.provider != "cpu" or goals.threads:
        return
    leader = _best(trials, lambda each: (each.score_low or 0.0) > 1.0)
    base = leader.variant if leader is not None else Variant("as it is", Family.RUNTIME)
    for count in sorted({1, max(1, processors // 2)} - {processors}):
        yield Variant(
            f"{base.name}, {count} thread{'s' if count > 1 else ''}",
            Family.RUNTIME,
            base.steps,
            replace(base.settings, provider=goals.provider, intra_op_threads=count),
        )
    if processors > 1 and subject.nodes >= _BRANCHING:
        parallel = replace(base.settings, provider=goals.provider, parallel=True, inter_op_threads=processors)
        yield Variant(f"{base.name}, branches in parallel", Family.RUNTIME, base.steps, parallel)


def _best(trials: Sequence[Trial], where: Callable[[Trial], bool], *, accurate: bool = True) -> Trial | None:
    """The fastest so far among those that ran, and passed the gate where that is asked."""
    ran = [
        each
        for each in trials
        if each.score is not None
        and each.variant.family is not Family.BASELINE
        and (not accurate or _right(each))
        and where(each)
    ]
    return max(ran, key=lambda each: each.score or 0.0, default=None)


def _right_of_the_fast(trials: Sequence[Trial]) -> Trial | None:
    """Of those nearly as fast as the fastest, the one that is least wrong: it has least to mend."""
    ran = [each for each in trials if each.score is not None and each.judgement is not None]
    fastest = max((each.score or 0.0 for each in ran), default=0.0)
    return min((each for each in ran if (each.score or 0.0) >= _NEARLY * fastest), key=_wrong, default=None)


def _wrong(trial: Trial) -> tuple[int, float]:
    """How wrong its answers are: rules that it breaks, then the worst cosine."""
    assert trial.judgement is not None
    cosines = [each.cosine for each in trial.judgement.outputs if each.cosine is not None]
    return len(trial.judgement.failed), 1 - min(cosines, default=1.0)


def _static(method: str, settings: Settings) -> Variant:
    step = Step("static int8", {"method": method, "per_channel": True})
    return Variant(f"static int8, {method}", Family.STATIC_INT8, (step,), settings)


def _dynamic(per_channel: bool, settings: Settings) -> Variant:
    name = f"dynamic int8, per {'channel' if per_channel else 'tensor'}"
    return Variant(name, Family.DYNAMIC_INT8, (Step("dynamic int8", {"per_channel": per_channel}),), settings)


def _in_8_bits(variant: Variant) -> Variant:
    step = variant.steps[0]
    return replace(
        variant,
        name=f"{variant.name}, 8 bits",
        steps=(replace(step, parameters={**step.parameters, "reduce_range": False}),),
    )


def _weights_only(subject: Subject, settings: Settings) -> list[Variant]:
    """They save bytes, and seldom time."""
    if subject.quantized or not any(_count(subject, each) for each in _MULTIPLIED):
        return []
    return [_weights(bits, settings) for bits in (8, 4)]


def _weights(bits: int, settings: Settings) -> Variant:
    step = Step("weight-only", {"bits": bits, "block_size": 32})
    return Variant(f"weights in {bits} bits", Family.WEIGHTS, (step,), settings)


def _count(subject: Subject, operator: str) -> int:
    return sum(number for name, number in subject.operators.items() if name.rpartition(".")[2] == operator)


def _wanted(variant: Variant, goals: Goals) -> bool:
    return not goals.only or variant.family.value in goals.only
