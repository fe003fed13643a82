"""The first job of an optimisation, whole: from a model and files to samples that every other job reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from sklearn.datasets import load_digits
from tests.support import graphs

from tensorquay_convert.errors import BadSource, CommandFailed, Unsupported
from tensorquay_convert.optimize.goals import GateRules, Goals, Metric
from tensorquay_convert.optimize.plain import from_plain, to_plain
from tensorquay_convert.optimize.prepare import NOT_JUDGED, padded_outputs, prepare
from tensorquay_convert.optimize.results import DataFacts, Subject
from tensorquay_convert.optimize.samples import Samples
from tensorquay_convert.proof.runtime import Runtime
from tensorquay_convert.tensors import Interface, Meaning, TensorSpec, Values

DIGITS = Path(__file__).parents[3] / "model_repo" / "digits" / "2" / "model.onnx"


def silent(_text: str) -> None:
    pass


class Prepared:
    """What came of a run."""

    def __init__(self, folder: Path, facts: tuple[Subject, DataFacts]) -> None:
        self.folder, (self.subject, self.facts) = folder, facts
        self.samples = Samples(folder)

    def content(self) -> Mapping[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


def run(
    tmp_path: Path,
    model: Path | ModelProto,
    data: Sequence[Path] = (),
    labels: Path | None = None,
    *,
    into: str = "samples",
    **goals: Any,
) -> Prepared:
    path = model if isinstance(model, Path) else graphs.write(model, tmp_path / "m" / "model.onnx")
    folder = tmp_path / into
    folder.mkdir()
    named = [str(each) for each in data]
    return Prepared(folder, prepare(path, "m", named, str(labels or ""), Goals(**goals), folder, silent))


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def digits(tmp_path: Path, rows: int = 1797) -> tuple[Path, Path]:
    found = load_digits()
    np.save(tmp_path / "labels.npy", found.target[:rows])
    return npz(tmp_path / "digits.npz", image=found.images[:rows, None]), tmp_path / "labels.npy"


def encoder(vocabulary: int = 50, width: int = 4) -> ModelProto:
    """ids, attention_mask INT64 [batch, seq] → y FP32 [batch, width]: the sum of what the unmasked ids stand for."""
    table = np.random.default_rng(0).standard_normal((vocabulary, width)).astype(np.float32)
    return graphs.model(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=1),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["rows", "wide"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "middle"], ["y"], keepdims=0),
        ],
        [graphs.value("ids", "INT64", ("batch", "seq")), graphs.value("attention_mask", "INT64", ("batch", "seq"))],
        [graphs.value("y", "FP32", ("batch", width))],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ],
    )


def tokens(path: Path, rows: int, length: int, vocabulary: int = 50) -> Path:
    drawn = np.random.default_rng(length).integers(0, vocabulary, (rows, length))
    return npz(path, ids=drawn, attention_mask=np.ones((rows, length), np.int32))


def all_rows(samples: Samples, which: str) -> list[Any]:
    return [row for inputs in getattr(samples, which)(64) for row in zip(*inputs.values(), strict=True)]


# -- with data


def test_real_digits_with_labels(tmp_path: Path) -> None:
    data, labels = digits(tmp_path)
    found = run(tmp_path, DIGITS, [data], labels)
    assert (found.facts.calibration, found.facts.judging) == (256, 1541)
    assert found.facts.real
    assert found.facts.labels
    assert [each.name for each in found.facts.points] == ["batch 1", "batch 8", "batch 32"]
    assert found.samples.index.points == found.facts.points
    assert found.samples.index.batched
    runtime = Runtime(DIGITS)
    answers = np.concatenate([runtime.run(each, ["digit"])["digit"] for each in found.samples.judging(256)])
    wanted = found.samples.labels()
    assert wanted is not None
    # Shuffled labels would be right one time in ten.
    assert np.mean(answers == wanted) > 0.97
    assert from_plain(DataFacts, to_plain(found.facts)) == found.facts


def test_both_sides_are_disjoint_and_cover_the_data(tmp_path: Path) -> None:
    data, _ = digits(tmp_path, rows=300)
    found = run(tmp_path, DIGITS, [data])
    sides = [{row[0].tobytes() for row in all_rows(found.samples, side)} for side in ("calibration", "judging")]
    given = {row.astype(np.float32).tobytes() for row in load_digits().images[:300]}
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == given
    assert (len(sides[0]), len(sides[1])) == (100, 200)


def test_repeated_rows_are_on_one_side_also_across_files(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(10, 4)
    first, second = npz(tmp_path / "a.npz", x=rows), npz(tmp_path / "b.npz", x=rows[::-1])
    found = run(tmp_path, graphs.scale(), [first, second])
    sides = [{row[0].tobytes() for row in all_rows(found.samples, side)} for side in ("calibration", "judging")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 10
    assert found.facts.calibration + found.facts.judging == 20
    assert len(found.samples.index.groups) == 1
    assert found.samples.index.groups[0].name == "a.npz and 1 more"
    assert "10 of 20 rows are repetitions; equal rows are never on both sides" in found.facts.notes


def test_labels_stay_with_their_rows_in_files_of_several_lengths(tmp_path: Path) -> None:
    paths = [tokens(tmp_path / f"{length}.npz", rows, length) for length, rows in ((5, 30), (9, 20), (5, 10))]
    # A row's label is its first id, so that it can be told from the row.
    firsts = np.concatenate([np.load(path)["ids"][:, 0] for path in paths])
    np.save(tmp_path / "l.npy", firsts)
    found = run(tmp_path, encoder(width=64), paths, tmp_path / "l.npy", seed=3)
    wanted = found.samples.labels()
    assert wanted is not None
    read = [row for each in found.samples.judging(7) for row in each["ids"][:, 0]]
    assert read == wanted.tolist()
    assert found.facts.judging == len(read)
    assert [each.name for each in found.samples.index.groups] == ["5.npz and 1 more", "9.npz"]
    assert {each.name for each in found.facts.points} >= {"batch 1, seq 5", "batch 32, seq 9"}


def test_a_large_file_is_used_in_part(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.arange(80_000, dtype=np.float32).reshape(20_000, 4))
    found = run(tmp_path, graphs.scale(), [tmp_path / "d.npy"])
    assert (found.facts.calibration, found.facts.judging) == (256, 2048)
    assert found.samples.index.groups[0].rows == 2304
    assert "of 20000 rows 256 calibrate and 2048 judge; the rest is not used" in found.facts.notes


def test_few_rows_are_said_to_be_few(tmp_path: Path) -> None:
    found = run(tmp_path, graphs.scale(), [npz(tmp_path / "d.npz", x=np.eye(4))])
    assert (found.facts.calibration, found.facts.judging) == (1, 3)
    assert "4 rows are few (1 calibrate, 3 judge)" in found.facts.notes[0]
    # A batch that is larger than the rows repeats them.
    assert found.samples.timing(found.facts.points[-1])["x"].shape == (32, 4)


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    words = ["", "a", "a\0", "ß\0\0", "x" * 300, "日本"]
    (tmp_path / "d.json").write_text(json.dumps({"x": [[word, "-"] for word in words]}))
    found = run(tmp_path, graphs.identity("BYTES"), [tmp_path / "d.json"])
    rows = [row for side in ("calibration", "judging") for row in all_rows(found.samples, side)]
    assert sorted(row[0][0] for row in rows) == sorted(word.encode() for word in words)
    assert found.samples.index.groups[0].kinds == {"x": "text"}
    timed = found.samples.timing(found.facts.points[0])["x"]
    assert timed.dtype == object
    assert Runtime(tmp_path / "m" / "model.onnx").run({"x": timed})["y"].tolist() == timed.tolist()


def test_requests_of_a_model_of_fixed_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((30, 2, 4)).astype(np.float32))
    found = run(tmp_path, graphs.scale(axes=(2, 4)), [tmp_path / "d.npy"])
    assert not found.samples.index.batched
    assert [(each.name, each.batch) for each in found.facts.points] == [("single requests", 0)]
    assert (found.facts.calibration, found.facts.judging) == (10, 20)
    assert {each["x"].shape for each in found.samples.judging(8)} == {(2, 4)}
    assert found.samples.timing(found.facts.points[0])["x"].shape == (2, 4)


@pytest.mark.parametrize("real", [True, False])
def test_single_numbers_stay_single(real: bool, tmp_path: Path) -> None:
    by = graphs.model(
        [helper.make_node("Mul", ["x", "s"], ["y"])],
        [graphs.value("x", "FP32", (4,)), graphs.value("s", "FP32", ())],
        [graphs.value("y", "FP32", (4,))],
    )
    rows = np.arange(24).reshape(6, 4)
    found = run(tmp_path, by, [npz(tmp_path / "d.npz", x=rows, s=rows[:, 0])] if real else [])
    inputs = next(found.samples.judging(8))
    assert (inputs["x"].shape, inputs["s"].shape) == ((4,), ())
    assert inputs["s"].dtype == np.float32


def test_images_are_rows_of_one_group(tmp_path: Path) -> None:
    from PIL import Image

    model = graphs.identity("FP32", ("batch", 3, 4, 4))
    for number in range(6):
        Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
    found = run(tmp_path, model, [tmp_path / f"{number}.png" for number in range(6)])
    assert [each.name for each in found.samples.index.groups] == ["0.png and 5 more"]
    reds = {round(float(row[0][0, 0, 0]) * 255) for row in all_rows(found.samples, "judging")}
    assert len(reds) == 4
    assert reds <= {0, 40, 80, 120, 160, 200}


def test_sizes_that_the_data_do_not_have_are_timed_and_not_judged(tmp_path: Path) -> None:
    found = run(tmp_path, encoder(), [tokens(tmp_path / "d.npz", 30, 5)], sizes={"seq": (5, 12)}, batches=(1, 4))
    assert [each.name for each in found.facts.points] == [
        "batch 1, seq 5", "batch 4, seq 5", "batch 1, seq 12", "batch 4, seq 12",
    ]  # fmt: skip
    groups = found.samples.index.groups
    assert (groups[1].name, groups[1].calibration, groups[1].judging) == ("drawn, seq 12", (), ())
    assert (found.facts.calibration, found.facts.judging) == (10, 20)
    assert any("seq 12" in note and "not judged" in note for note in found.facts.notes)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.ones((1, 4)), "hold 1 row, expected at least 2"),
        (np.ones((9, 4)), "all 9 rows of the data are equal"),
        (np.full((3, 4), np.nan), "has nan at [0, 0] and 11 more like it, expected finite numbers"),
        (np.ones((3, 5)), "has shape [3, 5], expected (rows, 4)"),
    ],
)
def test_data_that_cannot_be_used_leave_no_samples(rows: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadSource) as refused:
        run(tmp_path, graphs.scale(), [npz(tmp_path / "d.npz", x=rows)])
    assert says in refused.value.sentence
    assert refused.value.remedy
    assert not list((tmp_path / "samples").iterdir())


def test_labels_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="--labels is given and --data is not"):
        run(tmp_path, DIGITS, [], digits(tmp_path)[1])


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    data, _ = digits(tmp_path, rows=100)
    np.save(tmp_path / "l.npy", np.zeros(99, int))
    with pytest.raises(BadSource, match=r"l.npy: holds 99 labels, expected 100: one for each row"):
        run(tmp_path, DIGITS, [data], tmp_path / "l.npy", gate=GateRules(metric=Metric.TOP1))


# -- without data


def test_drawn_rows_are_half_and_half_and_said_to_prove_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, DIGITS)
    assert (found.facts.real, found.facts.calibration, found.facts.judging) == (False, 128, 128)
    assert found.facts.notes == (NOT_JUDGED,)
    group = found.samples.index.groups[0]
    assert sorted((*group.calibration, *group.judging)) == list(range(256))


def test_drawn_tokens_are_in_the_vocabulary_and_padded(tmp_path: Path) -> None:
    found = run(tmp_path, encoder(vocabulary=7))
    rows = [each for side in ("calibration", "judging") for each in getattr(found.samples, side)(256)]
    ids, mask = (np.concatenate([each[name] for each in rows]) for name in ("ids", "attention_mask"))
    assert ids.shape == mask.shape == (256, 64)
    assert (ids.min(), ids.max()) == (0, 6)
    lengths = mask.sum(axis=1)
    assert lengths.min() >= 1
    assert 32 <= np.count_nonzero(lengths == 64) < 64
    assert "sizes of dynamic axes nobody gave: 'seq' 64" in found.facts.notes


def test_drawn_groups_at_the_asked_sizes(tmp_path: Path) -> None:
    found = run(tmp_path, encoder(), sizes={"seq": (4, 9)}, batches=(2,))
    assert [each.name for each in found.facts.points] == ["batch 2, seq 4", "batch 2, seq 9"]
    assert (found.facts.calibration, found.facts.judging) == (128, 128)
    assert found.facts.notes == (NOT_JUDGED,)


@pytest.mark.parametrize("wire", ["BYTES", "BF16", "BOOL", "UINT8", "FP16"])
def test_every_kind_of_value_is_drawn_written_and_runs(wire: str, tmp_path: Path) -> None:
    found = run(tmp_path, graphs.identity(wire), batches=(1, 300))
    assert [each.batch for each in found.facts.points] == [1, 300]
    array = next(found.samples.judging(4))["x"]
    assert (
        array.dtype == {"BYTES": object, "BF16": np.uint16, "BOOL": bool, "UINT8": np.uint8, "FP16": np.float16}[wire]
    )


def test_a_model_that_mixes_rows_is_served_one_request_at_a_time(tmp_path: Path) -> None:
    mixing = graphs.model(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        [graphs.value("x", "FP32", ("batch", 4))],
        [graphs.value("y", "FP32", ("batch", 4))],
    )
    found = run(tmp_path, mixing)
    assert not found.subject.batched
    assert "the model mixes rows" in found.subject.notes[0]
    assert [each.name for each in found.facts.points] == ["rows 64"]
    assert next(found.samples.judging(8))["x"].shape == (64, 4)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (
            {"length": (4,)},
            "sizes are given for axis 'length', which the model does not have; its dynamic axes are: 'seq'",
        ),
        ({"batch": (4,)}, "sizes are given for axis 'batch'"),
        ({"seq": (0,)}, "size 0 is asked for axis 'seq', expected 1 to any size"),
        ({"seq": (1 << 40,)}, "one row at seq 1099511627776 takes 17592186044416 bytes, expected at most 536870912"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadSource) as refused:
        run(tmp_path, encoder(), sizes=sizes)
    assert says in refused.value.sentence


# -- points


def picky() -> ModelProto:
    """x FP32 [batch, 4] → y; runs with at most 9 rows, for it slices and multiplies with as many."""
    limit = numpy_helper.from_array(np.ones((10, 1), np.float32), "ten")
    return graphs.model(
        [
            helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
            helper.make_node("Slice", ["ten", "zero", "shape"], ["ones"]),
            helper.make_node("Mul", ["x", "ones"], ["y"]),
        ],
        [graphs.value("x", "FP32", ("batch", 4))],
        [graphs.value("y", "FP32", ("batch", 4))],
        [limit, numpy_helper.from_array(np.array([0]), "zero")],
    )


def test_a_batch_at_which_the_model_does_not_run_is_left_out(tmp_path: Path) -> None:
    found = run(tmp_path, picky(), batches=(1, 8, 32))
    assert [each.batch for each in found.facts.points] == [1, 8]
    assert any(note.startswith("batch 32 is left out: ONNX Runtime does not run") for note in found.facts.notes)


def test_a_model_that_runs_at_no_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"there is nothing to time the model at: batch 64 is left out") as refused:
        run(tmp_path, picky(), batches=(32, 64))
    assert "--batch" in refused.value.remedy


def test_a_model_that_runs_with_nothing_drawn_asks_for_data(tmp_path: Path) -> None:
    odd, _ = graphs.dense(inputs=77)
    odd.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    with pytest.raises(Unsupported, match="give inputs that it takes with --data"):
        run(tmp_path, odd)
    rows = np.random.default_rng(0).random((20, 77))
    found = run(tmp_path, odd, [npz(tmp_path / "d.npz", x=rows)], into="again")
    assert [each.name for each in found.facts.points] == ["batch 1, n 77", "batch 8, n 77", "batch 32, n 77"]


# -- the folder


@pytest.mark.parametrize("real", [True, False])
def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(real: bool, tmp_path: Path) -> None:
    data, labels = digits(tmp_path, rows=90)
    given: Any = ([data], labels) if real else ((), None)
    first, second, third = (
        run(tmp_path, DIGITS, *given, into=f"s{number}", seed=seed).content() for number, seed in enumerate((5, 5, 6))
    )
    assert first == second
    assert first != third
    assert set(first) == set(third)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"the samples cannot be written to '.*absent': No such file") as refused:
        prepare(DIGITS, "m", [], "", Goals(), tmp_path / "absent", silent)
    assert "free some space" in refused.value.remedy


def test_outputs_of_every_position_are_known_to_have_padding() -> None:
    def spec(name: str, shape: tuple[int | str, ...], meaning: Meaning = Meaning.NUMBERS) -> TensorSpec:
        return TensorSpec(name, "float32", shape, Values(meaning))

    ids, mask = spec("ids", ("batch", "seq"), Meaning.TOKEN_IDS), spec("mask", ("batch", "seq"), Meaning.MASK)
    other = spec("other", ("batch", "target"), Meaning.MASK)
    outputs = (spec("hidden", ("batch", "seq", 4)), spec("pooled", ("batch", 4)), spec("tags", ("batch", "seq")))
    assert padded_outputs(Interface((ids, mask, other), outputs)) == {"hidden": "mask", "tags": "mask"}
    assert padded_outputs(Interface((ids,), outputs)) == {}
    twice = spec("second", ("batch", "seq"), Meaning.MASK)
    assert padded_outputs(Interface((ids, mask, twice), outputs)) == {}
