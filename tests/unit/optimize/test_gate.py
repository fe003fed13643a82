"""The whole gate, with files: what passes, and that a planted loss is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.support import graphs
from tests.support.optimizing import samples_folder

from tensorquay_convert.errors import BadSource, CommandFailed
from tensorquay_convert.optimize import gate
from tensorquay_convert.optimize.gate import judge, reference
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.results import Judgement
from tensorquay_convert.optimize.samples import Samples
from tensorquay_convert.optimize.session import Opened, open_session
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.tensors import Array, Arrays

RNG = np.random.default_rng(0)
QUIET: Callable[[str], None] = lambda said: None  # noqa: E731 - a name for what is passed all over


@dataclass
class Answering:
    """A model that computes in Python."""

    answer: Callable[[Arrays], Arrays]
    bfloat16: frozenset[str] = frozenset()

    def run(self, inputs: Arrays) -> Arrays:
        return self.answer(inputs)


def model(answer: Callable[[Arrays], Arrays], *bfloat16: str) -> Opened:
    return cast("Opened", Answering(answer, frozenset(bfloat16)))


IMAGES = RNG.standard_normal((480, 16)).astype(np.float32)
WEIGHTS = RNG.standard_normal((16, 10)).astype(np.float32)
LABELS = (IMAGES @ WEIGHTS).argmax(-1)


def classifier(folder: Path, weights: Array, name: str) -> Opened:
    """image [n, 16] → probabilities [n, 10], digit [n]."""
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["probabilities"], ["digit"], axis=-1, keepdims=0),
    ]
    outputs = [graphs.value("probabilities", "FP32", ["n", 10]), graphs.value("digit", "INT64", ["n"])]
    proto = graphs.model(
        nodes, [graphs.value("image", "FP32", ["n", 16])], outputs, [numpy_helper.from_array(weights, "w")]
    )
    return open_session(graphs.write(proto, folder / name), Settings(intra_op_threads=1))


def spoiled(share: float) -> Array:
    """Weights with noise of this share of their size."""
    noise = np.random.default_rng(1).standard_normal(WEIGHTS.shape)
    return (WEIGHTS + share * noise).astype(np.float32)


def judged(
    folder: Path, baseline: Opened, variant: Opened, inputs: Arrays, labels: Array | None = None,
    rules: GateRules | None = None, **how: Any,
) -> Judgement:  # fmt: skip
    rules = rules or GateRules()
    samples = Samples(samples_folder(folder, inputs, labels, calibration=0, **how))
    reference(baseline, samples, folder / "reference", QUIET, rules=rules)
    return judge(variant, samples, folder / "reference", rules, QUIET)


@pytest.mark.parametrize("labels", [LABELS, np.eye(10)[LABELS], None], ids=["labels", "one-hot", "none"])
def test_the_model_itself_passes(labels: Array | None, tmp_path: Path) -> None:
    model = classifier(tmp_path, WEIGHTS, "a.onnx")
    found = judged(tmp_path, model, model, {"image": IMAGES}, labels)
    assert found.passed
    assert found.samples == 480
    assert [each.name for each in found.outputs] == ["probabilities", "digit"]
    if labels is not None:
        assert (found.metric, found.metric_value, found.metric_baseline) == ("top1", 1.0, 1.0)
        assert found.rule.startswith("top1 of 'probabilities' on 480 labelled samples may drop 0.5 % (one sample is")
    else:
        assert (found.metric, found.metric_value) == ("", None)
        assert found.rule.startswith("on 480 samples without labels: mean cosine at least 0.99")


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0, 30.0])
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "none"])
def test_a_planted_loss_of_accuracy_is_refused(share: float, labels: Array | None, tmp_path: Path) -> None:
    baseline = classifier(tmp_path, WEIGHTS, "a.onnx")
    worse = classifier(tmp_path, spoiled(share), "b.onnx")
    right = float((worse.run({"image": IMAGES})["digit"] == LABELS).mean())
    assert right < 0.99
    found = judged(tmp_path, baseline, worse, {"image": IMAGES}, labels)
    assert not found.passed
    if labels is not None:
        assert found.metric_value == pytest.approx(right)
        assert found.failed[0].startswith("top1 of output 'probabilities' on 480 labelled samples is 0.")
        assert found.failed[0].endswith("lost, at most 0.5 % may be")
        assert "output 'digit'" in found.failed[1]


def test_what_labels_call_right_is_right_though_answers_changed(tmp_path: Path) -> None:
    """The variant errs elsewhere than the baseline, equally often: labels decide, also for the integer output."""
    labels = LABELS.copy()
    base = classifier(tmp_path, WEIGHTS, "a.onnx")
    other = classifier(tmp_path, spoiled(0.2), "b.onnx")
    first, second = base.run({"image": IMAGES})["digit"], other.run({"image": IMAGES})["digit"]
    differ = np.flatnonzero(first != second)
    assert len(differ) > 10
    labels[differ[::2]] = second[differ[::2]]
    found = judged(tmp_path, base, other, {"image": IMAGES}, labels, GateRules(max_drop=0.01))
    assert found.passed, found.failed
    asked = judged(tmp_path / "cosine", base, other, {"image": IMAGES}, labels, GateRules(0.01, min_cosine=0.99999))
    assert "mean cosine" in asked.failed[0]


def test_of_few_samples_none_may_be_lost(tmp_path: Path) -> None:
    baseline = model(lambda inputs: {"probabilities": np.eye(10, dtype=np.float32)[inputs["digit"]]})
    variant = model(
        lambda inputs: {"probabilities": np.eye(10, dtype=np.float32)[inputs["digit"] + (inputs["digit"] == 3)]}
    )
    digits = np.arange(8)
    samples = Samples(samples_folder(tmp_path, {"digit": digits}, digits, calibration=0))
    notes = reference(baseline, samples, tmp_path / "r", QUIET)
    assert notes == (
        "answers are judged on 8 labelled samples only, of which one is 12.5 %: "
        "give at least 100 for rules in per cent",
    )
    found = judge(variant, samples, tmp_path / "r", GateRules(), QUIET)
    assert "12.5 % lost, at most 0.5 % may be" in found.failed[0]
    assert found.rule == (
        "top1 of 'probabilities' on 8 labelled samples may drop 0.5 % (one sample is 12.5 %); "
        "fewer than 100 samples prove little"
    )
    assert judge(variant, samples, tmp_path / "r", GateRules(max_drop=0.125), QUIET).passed


def test_numbers_are_judged_by_their_error(tmp_path: Path) -> None:
    targets = IMAGES[:, :1].astype(np.float64)
    baseline = model(lambda inputs: {"price": inputs["x"][:, :1] + np.float32(0.1)})
    worse = model(lambda inputs: {"price": inputs["x"][:, :1] + np.float32(0.102)})
    found = judged(tmp_path, baseline, worse, {"x": IMAGES}, targets)
    assert found.metric_baseline == pytest.approx(0.1, rel=1e-4)
    assert found.failed == (
        "rmse of output 'price' on 480 labelled samples is 0.102, was 0.1: 2 % more, at most 0.5 % may be",
    )
    assert found.rule == "rmse of 'price' on 480 labelled samples may grow by 0.5 % of itself"
    nan = judged(
        tmp_path / "nan", baseline, model(lambda inputs: {"price": inputs["x"][:, :1] * np.float32(np.nan)}),
        {"x": IMAGES}, targets,
    )  # fmt: skip
    assert nan.failed[0].endswith("has no value: answers are not finite numbers")
    assert "480 entries are NaN" in nan.failed[1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: {"y": x[:, :3]}, "has shape [16, 3]"),
        (lambda x: {"y": x.astype(np.float64)}, "is float64, the baseline gives float32"),
        (lambda x: {"z": x}, "output 'y' is missing"),
        (lambda x: {"y": np.full_like(x, np.nan)}, "7680 entries are NaN or infinite"),
    ],
)
@pytest.mark.parametrize("labels", [None, IMAGES.argmax(-1)], ids=["none", "labels"])
def test_another_interface_or_nan_fails(answer: Any, said: str, labels: Array | None, tmp_path: Path) -> None:
    found = judged(
        tmp_path, model(lambda inputs: {"y": inputs["x"]}), model(lambda inputs: answer(inputs["x"])),
        {"x": IMAGES}, labels,
    )  # fmt: skip
    assert any(said in each for each in found.failed), found.failed


def test_requests_of_a_model_without_batches_are_judged_one_by_one(tmp_path: Path) -> None:
    same = model(lambda inputs: {"scores": inputs["x"] @ WEIGHTS})
    other = model(lambda inputs: {"scores": inputs["x"] @ spoiled(1.0)})
    found = judged(tmp_path / "a", same, same, {"x": IMAGES[:120]}, LABELS[:120], batched=False)
    assert (found.passed, found.samples, found.metric_value) == (True, 120, 1.0)
    worse = judged(tmp_path / "b", same, other, {"x": IMAGES[:120]}, LABELS[:120], batched=False)
    assert not worse.passed
    assert not judged(tmp_path / "c", same, other, {"x": IMAGES[:120]}, batched=False).passed


def test_texts_and_bfloat16_are_kept_as_they_are(tmp_path: Path) -> None:
    texts = np.array([b"", b"a\0", "ö".encode(), b"."] * 30, object)
    bits = np.tile(np.array([0x3F80, 0x4000], np.uint16), (120, 1))

    def answer(inputs: Arrays) -> Arrays:
        rows = inputs["n"]
        return {"t": texts[rows], "b": bits[rows]}

    same = model(answer, "b")
    assert judged(tmp_path / "a", same, same, {"n": np.arange(120)}).passed
    other = model(lambda inputs: {**answer(inputs), "t": texts[inputs["n"] // 2]}, "b")
    (said,) = judged(tmp_path / "b", same, other, {"n": np.arange(120)}).failed
    assert said.startswith("output 't': equal in ")
    swapped = model(lambda inputs: {**answer(inputs), "b": bits[inputs["n"], ::-1]}, "b")
    found = judged(tmp_path / "c", same, swapped, {"n": np.arange(120)})
    assert found.outputs[1].max_error == 1.0
    assert not found.passed


def test_too_much_is_judged_in_part_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_BYTES", 100 * IMAGES[0].nbytes)
    asked: list[int] = []

    def answer(inputs: Arrays) -> Arrays:
        asked.append(len(inputs["x"]))
        return {"logits": inputs["x"]}

    labels = IMAGES.argmax(-1)
    samples = Samples(samples_folder(tmp_path, {"x": IMAGES}, labels, calibration=0))
    notes = reference(model(answer), samples, tmp_path / "r", QUIET)
    assert notes == ("96 of 480 labelled samples are judged: all of them would take too much time or space",
                     "answers are judged on 96 labelled samples only, of which one is 1.04 %: "
                     "give at least 100 for rules in per cent")  # fmt: skip
    assert sum(asked) == 96 + 2
    found = judge(model(answer), samples, tmp_path / "r", GateRules(), QUIET)
    assert (found.samples, found.metric_value, found.metric_baseline) == (96, 1.0, 1.0)


def test_rows_of_large_answers_are_judged_in_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_BATCH_BYTES", 5 * IMAGES[0].nbytes)
    asked: list[int] = []
    samples = Samples(samples_folder(tmp_path, {"x": IMAGES}, calibration=0))
    same = model(lambda inputs: (asked.append(len(inputs["x"])), {"y": inputs["x"]})[1])
    reference(same, samples, tmp_path / "r", QUIET)
    assert max(asked) == 5
    assert judge(same, samples, tmp_path / "r", GateRules(), QUIET).samples == 480


def test_groups_of_several_lengths_are_judged_together(tmp_path: Path) -> None:
    groups = [{"x": IMAGES[:50, :8]}, {"x": IMAGES[50:90]}]
    samples = Samples(samples_folder(tmp_path, groups, calibration=0))
    same = model(lambda inputs: {"embedding": inputs["x"]})
    said: list[str] = []
    assert reference(same, samples, tmp_path / "r", said.append) != ()
    assert said[-1] == "answering what is judged, 7 of 7"
    found = judge(same, samples, tmp_path / "r", GateRules(), said.append)
    assert (found.samples, found.passed) == (90, True)
    assert said[-1] == "judging, 7 of 7"


def test_labels_that_fit_no_output_are_refused_before_any_variant(tmp_path: Path) -> None:
    samples = Samples(samples_folder(tmp_path, {"x": IMAGES[:, :2]}, LABELS, calibration=0))
    with pytest.raises(BadSource, match="no output fits labels"):
        reference(model(lambda inputs: {"y": inputs["x"]}), samples, tmp_path / "r", QUIET, rules=GateRules())


def test_nothing_to_judge_with_is_refused(tmp_path: Path) -> None:
    samples = Samples(samples_folder(tmp_path, {"x": IMAGES}, calibration=480))
    with pytest.raises(BadSource, match="no sample to judge answers with"):
        reference(model(lambda inputs: {"y": inputs["x"]}), samples, tmp_path / "r", QUIET)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    samples = Samples(samples_folder(tmp_path, {"x": IMAGES}, calibration=0))
    (tmp_path / "r").write_text("a file")
    with pytest.raises(CommandFailed, match=r"answers cannot be written to .*: File exists; free some space"):
        reference(model(lambda inputs: {"y": inputs["x"]}), samples, tmp_path / "r", QUIET)
