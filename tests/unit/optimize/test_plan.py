"""Which variants are tried, in which order, and what follows from results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorquay_convert.optimize import plan
from tensorquay_convert.optimize.goals import Goals, Objective
from tensorquay_convert.optimize.results import Judgement, OutputAgreement, Subject, Trial, Verdict
from tensorquay_convert.optimize.variants import Family, Settings, Step, Variant

CONVOLVED = Subject(
    "cnn", "", 1 << 20, 17, 12, {"Conv": 3, "Gemm": 1, "Softmax": 1}, {}, True, {}, {}, 1 << 20
)  # fmt: skip
ENCODER = replace(CONVOLVED, operators={"MatMul": 36, "Softmax": 6, "LayerNormalization": 13, "Gather": 3}, nodes=297)
RIGHT = Judgement((), 100, "rule", ())
WRONG = Judgement((), 100, "rule", ("cosine 0.9, at least 0.99",))


def names(variants: tuple[Variant, ...]) -> list[str]:
    return [each.name for each in variants]


def trial(variant: Variant, score: float, *, right: bool = True) -> Trial:
    verdict = Verdict.PASSED if right else Verdict.INACCURATE
    return Trial(
        variant, verdict, judgement=RIGHT if right else WRONG, score=score, score_low=score - 0.05,
        score_high=score + 0.05, timings=(object(),),  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_is_likelier_to_win_comes_first() -> None:
    assert names(plan.first_round(CONVOLVED, Goals()))[0] == "static int8, minmax"
    assert names(plan.first_round(ENCODER, Goals()))[0] == "dynamic int8, per channel"


def test_dynamic_int8_is_measured_on_convolutions_too() -> None:
    found = (*plan.first_round(CONVOLVED, Goals()), *plan.last_round(CONVOLVED, Goals()))
    assert {each.family for each in found} >= {Family.DYNAMIC_INT8, Family.STATIC_INT8, Family.GRAPH, Family.RUNTIME}


def test_names_are_unique() -> None:
    for subject in (CONVOLVED, ENCODER):
        for provider in ("cpu", "cuda", "tensorrt"):
            for objective in Objective:
                goals = Goals(provider=provider, objective=objective)
                found = names((*plan.first_round(subject, goals), *plan.last_round(subject, goals)))
                assert len(found) == len(set(found))


def test_a_quantized_model_is_not_quantized_again() -> None:
    again = replace(ENCODER, quantized={"MatMulInteger": 36})
    found = (*plan.first_round(again, Goals()), *plan.last_round(again, Goals()))
    assert not {each.family for each in found} & {Family.DYNAMIC_INT8, Family.STATIC_INT8, Family.WEIGHTS}
    assert found


def test_half_precision_is_for_gpus_and_for_size() -> None:
    def tried(goals: Goals) -> set[str]:
        return {each.name for each in plan.first_round(ENCODER, goals) if each.family is Family.HALF}

    assert tried(Goals()) == set()
    assert tried(Goals(objective=Objective.SIZE)) == {"float16"}
    assert tried(Goals(provider="cuda")) == {"float16", "bfloat16"}


def test_every_variant_runs_on_the_provider_and_threads_that_were_asked_for() -> None:
    for each in plan.first_round(ENCODER, Goals(provider="cuda", threads=3)):
        assert (each.settings.provider, each.settings.intra_op_threads) == ("cuda", 3)


@pytest.mark.parametrize("family", [each for each in Family if each is not Family.BASELINE])
def test_only_some_families(family: Family) -> None:
    found = plan.first_round(ENCODER, Goals(only=(family.value,)))
    assert {each.family for each in found} <= {family}


def test_the_best_quantization_is_put_upon_each_fusion() -> None:
    fused = Variant("fused by onnxscript", Family.FUSION, (plan.FUSIONS[0],))
    other = Variant("fused by onnxruntime", Family.FUSION, (plan.FUSIONS[1],))
    wrong = Variant("fused wrongly", Family.FUSION, (plan.FUSIONS[1],))
    dynamic = Variant("dynamic int8, per channel", Family.DYNAMIC_INT8, (Step("dynamic int8", {"per_channel": True}),))
    trials = [trial(fused, 1.2), trial(other, 1.1), trial(wrong, 1.3, right=False), trial(dynamic, 2.0)]
    found = {each.name: each for each in plan.second_round(ENCODER, Goals(), trials, 2)}
    assert found["fused by onnxscript, dynamic int8, per channel"].steps == (plan.FUSIONS[0], *dynamic.steps)
    assert found["fused by onnxruntime, dynamic int8, per channel"].steps == (plan.FUSIONS[1], *dynamic.steps)
    assert not [name for name in found if name.startswith("fused wrongly")]


def test_fast_and_inaccurate_int8_is_mixed_and_slow_one_is_not() -> None:
    static = Variant("static int8, minmax", Family.STATIC_INT8, (Step("static int8", {"method": "minmax"}),))
    fast = plan.second_round(ENCODER, Goals(), [trial(static, 2.0, right=False)], 2)
    mixed = next(each for each in fast if each.family is Family.MIXED)
    assert mixed.steps == (Step("mixed int8", {"base": "static int8", "method": "minmax"}),)
    slow = plan.second_round(ENCODER, Goals(), [trial(static, 0.9, right=False)], 2)
    assert Family.MIXED not in {each.family for each in slow}
    beaten = [trial(static, 2.0, right=False), trial(Variant("x", Family.DYNAMIC_INT8), 2.5)]
    assert Family.MIXED not in {each.family for each in plan.second_round(ENCODER, Goals(), beaten, 2)}


def test_other_threads_are_tried_for_what_leads() -> None:
    dynamic = Variant("dynamic int8, per channel", Family.DYNAMIC_INT8, (Step("dynamic int8"),))
    found = plan.second_round(ENCODER, Goals(), [trial(dynamic, 2.0)], 8)
    runtime = {each.name: each for each in found if each.family is Family.RUNTIME}
    assert {each.settings.intra_op_threads for each in runtime.values() if not each.settings.parallel} == {1, 4}
    assert all(each.steps == dynamic.steps for each in runtime.values())
    assert plan.second_round(CONVOLVED, Goals(threads=2), [], 8) == ()


def test_nothing_is_tried_twice() -> None:
    first = plan.first_round(ENCODER, Goals())
    trials = [trial(each, 1.5) for each in first]
    second = plan.second_round(ENCODER, Goals(), trials, 4)
    again = plan.second_round(ENCODER, Goals(), [*trials, *(trial(each, 1.5) for each in second)], 4)
    assert not set(names(first)) & set(names(second))
    assert not set(names(second)) & set(names(again))


def test_settings_are_those_of_a_server_that_says_nothing() -> None:
    assert Settings() == Settings("cpu", {}, "all", 0, 1, False, False, {})


def test_where_sums_saturate_both_widths_of_weights_are_tried() -> None:
    plain, dot = (
        names(plan.first_round(CONVOLVED, Goals(), ())),
        names(plan.first_round(CONVOLVED, Goals(), ("avx_vnni",))),
    )
    assert set(plain) - set(dot) == {"static int8, minmax, 8 bits", "dynamic int8, per channel, 8 bits"}
    assert plain[:2] == ["static int8, minmax", "static int8, minmax, 8 bits"]
    assert dot[:2] == ["static int8, minmax", "dynamic int8, per channel"]


def test_mixed_precision_starts_from_what_is_least_wrong_among_the_fast() -> None:
    def missed(name: str, score: float, cosine: float) -> Trial:
        step = Step("dynamic int8", {"per_channel": name == "channel"})
        agreement = OutputAgreement("y", cosine, cosine, 1.0, 1.0, None)
        found = trial(Variant(name, Family.DYNAMIC_INT8, (step,)), score, right=False)
        return replace(found, judgement=replace(WRONG, outputs=(agreement,)))

    trials = [missed("tensor", 2.0, 0.84), missed("channel", 1.9, 0.987), missed("slow", 1.2, 0.989)]
    mixed = next(each for each in plan.second_round(ENCODER, Goals(), trials, 2) if each.family is Family.MIXED)
    assert mixed.name == "mixed, channel"
