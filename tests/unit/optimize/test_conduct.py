"""The conductor with workers that only pretend: what it asks for, what it makes of answers, and of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tensorquay_convert.errors import BadSource, LimitExceeded, NotPublished, Unsupported
from tensorquay_convert.optimize import jobs
from tensorquay_convert.optimize.conduct import Conducted, Conductor, Ordered
from tensorquay_convert.optimize.goals import Goals, Objective
from tensorquay_convert.optimize.jobs import (
    Job,
    Prepared,
    PrepareJob,
    Reference,
    ReferenceJob,
    Result,
    Sat,
    SittingJob,
    TrialJob,
    Tried,
)
from tensorquay_convert.optimize.results import (
    DataFacts,
    Judgement,
    Machine,
    NodeSensitivity,
    PassReport,
    Point,
    Sitting,
    Subject,
    Verdict,
)
from tensorquay_convert.optimize.variants import Family
from tensorquay_convert.progress import Listener, Told

POINTS = (Point("batch 1", 1, 0), Point("batch 8", 8, 0))
SUBJECT = Subject("m", "00", 1000, 17, 300, {"MatMul": 12, "Softmax": 2}, {}, True, {"x": "f"}, {"y": "f"}, 900)
DATA = DataFacts(True, 100, 200, True, POINTS)
MACHINE = Machine("a cpu", ("avx2",), 4, "1.31.1", ("CPUExecutionProvider",))
RIGHT, WRONG = Judgement((), 200, "rule", ()), Judgement((), 200, "rule", ("top1 is 0.5, was 0.9",))
A_RUN_S = 10.0


def sitting(point: Point, ratio: float) -> Sitting:
    return Sitting(
        point.name, point.batch, 50, 1e-3, 2e-3, 1e-3 / ratio, 2e-3 / ratio, ratio, ratio * 0.99, ratio * 1.01
    )


@dataclass
class Workers:
    """Answers jobs by the names of variants; keeps what it was asked. Every job takes `A_RUN_S` of its clock.

    `speeds`: how many times faster a variant is; `later`: what it turns out to be when it is timed again.
    """

    speeds: Mapping[str, float] = field(default_factory=dict)
    later: Mapping[str, float] = field(default_factory=dict)
    wrong: frozenset[str] = frozenset()
    failing: Mapping[str, Exception] = field(default_factory=dict)
    unchanged: frozenset[str] = frozenset()
    sensitivity: tuple[NodeSensitivity, ...] = ()
    asked: list[Job] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    now: float = 0.0
    folders: dict[Path, str] = field(default_factory=dict)
    by_settings: dict[str, str] = field(default_factory=dict)

    def __call__(self, job: Job, limit_s: float, listener: Listener) -> Result:
        self.asked.append(job)
        self.limits.append(limit_s)
        self.now += A_RUN_S
        listener(Told("job", "half done", 0.5))
        match job:
            case PrepareJob():
                return self._or_fail("prepare") or Prepared(SUBJECT, DATA)
            case ReferenceJob():
                sittings = tuple(sitting(each, 1.0) for each in job.points)
                return Reference("d0", job.points, sittings, MACHINE, {"CPUExecutionProvider": 300}, ())
            case TrialJob():
                return self._tried(job)
            case SittingJob():
                name = self.folders.get(job.variant.parent) or self.by_settings.get(str(job.settings), "as it is")
                ratio = self.later.get(name, self.speeds.get(name, 1.0))
                self._or_fail(f"again {name}")
                return Sat(tuple(sitting(each, ratio) for each in job.points))

    def _or_fail(self, name: str) -> None:
        if name in self.failing:
            raise self.failing[name]

    def _tried(self, job: TrialJob) -> Tried:
        name = job.variant.name
        job.target.mkdir(parents=True)
        (job.target / jobs.MODEL).write_bytes(name.encode())
        self._or_fail(name)
        self.folders[job.target] = name
        if not job.variant.steps:
            self.by_settings[str(job.variant.settings)] = name
        passes = (PassReport(name, name not in self.unchanged, f"did {name}"),) if job.variant.steps else ()
        if passes and name in self.unchanged:
            return Tried(passes, f"d {name}", 1000)
        ratio = self.speeds.get(name, 0.8)
        return Tried(
            passes, f"d {name}", 500, judgement=WRONG if name in self.wrong else RIGHT,
            sittings=tuple(sitting(each, ratio) for each in job.points),
            sensitivity=self.sensitivity if job.variant.family is Family.MIXED else (),
        )  # fmt: skip


Conduct = Callable[..., tuple[Conducted, list[Told]]]


@pytest.fixture
def conduct(tmp_path: Path) -> Conduct:
    def run(workers: Workers, **goals: object) -> tuple[Conducted, list[Told]]:
        folder = tmp_path / "work"
        folder.mkdir()
        model = tmp_path / "model.onnx"
        model.write_bytes(b"the model")
        told: list[Told] = []
        conductor = Conductor(workers, Goals(**goals), told.append, clock=lambda: workers.now)  # type: ignore[arg-type]
        found = conductor.run(Ordered(model, "m", (), "", folder))
        assert model.read_bytes() == b"the model"
        return found, told

    return run


def verdicts(found: Conducted) -> dict[str, Verdict]:
    return {each.variant.name: each.verdict for each in found.outcome.trials}


LONG = {"time_budget_s": 10_000.0}
DYNAMIC = "dynamic int8, per channel"


def test_the_fastest_that_is_right_wins_and_its_file_is_there(conduct: Conduct) -> None:
    found, _ = conduct(Workers({DYNAMIC: 2.0, "fused by onnxscript": 1.2}), **LONG)
    assert found.outcome.winner == DYNAMIC
    assert found.winner is not None
    assert found.winner.read_bytes() == DYNAMIC.encode()
    assert verdicts(found)[DYNAMIC] is Verdict.WON
    assert "2.00 × at batch 1, 2.00 × at batch 8" in found.outcome.sentence


def test_when_nothing_is_faster_the_model_stays_as_it_is(conduct: Conduct) -> None:
    found, _ = conduct(Workers(), **LONG)
    assert (found.outcome.winner, found.winner) == ("", None)
    assert "the model stays as it is" in found.outcome.sentence
    assert Verdict.WON not in verdicts(found).values()


def test_a_planted_loss_of_accuracy_never_wins_however_fast(conduct: Conduct) -> None:
    workers = Workers({DYNAMIC: 50.0, "fused by onnxscript": 1.2}, wrong=frozenset({DYNAMIC}))
    found, _ = conduct(workers, **LONG)
    assert found.outcome.winner == "fused by onnxscript"
    assert verdicts(found)[DYNAMIC] is Verdict.INACCURATE
    assert all(job.variant.parent not in {p for p, n in workers.folders.items() if n == DYNAMIC}
               for job in workers.asked if isinstance(job, SittingJob))  # fmt: skip


def test_luck_does_not_win(conduct: Conduct) -> None:
    found, _ = conduct(Workers({DYNAMIC: 2.0}, later={DYNAMIC: 1.0}), **LONG)
    assert found.outcome.winner == ""


def test_finalists_sit_three_times_in_all(conduct: Conduct) -> None:
    found, _ = conduct(Workers({DYNAMIC: 2.0}), **LONG)
    won = next(each for each in found.outcome.trials if each.verdict is Verdict.WON)
    assert {each.sittings for each in won.timings} == {3}
    assert {each.sittings for each in found.outcome.noise} == {2}


@pytest.mark.parametrize("failure", [Unsupported("no such operator", remedy="try another"), LimitExceeded("killed")])
def test_one_that_fails_is_listed_and_the_rest_go_on(conduct: Conduct, failure: Exception) -> None:
    found, _ = conduct(Workers({"fused by onnxscript": 1.5}, failing={DYNAMIC: failure}), **LONG)
    failed = next(each for each in found.outcome.trials if each.variant.name == DYNAMIC)
    assert failed.verdict is Verdict.FAILED
    assert str(failure) in failed.reason
    assert found.outcome.winner == "fused by onnxscript"


def test_one_that_fails_when_it_runs_again_does_not_win(conduct: Conduct) -> None:
    workers = Workers({DYNAMIC: 3.0, "fused by onnxscript": 1.5}, failing={f"again {DYNAMIC}": LimitExceeded("killed")})
    found, _ = conduct(workers, **LONG)
    assert verdicts(found)[DYNAMIC] is Verdict.FAILED
    assert found.outcome.winner == "fused by onnxscript"


@pytest.mark.parametrize("where", [DYNAMIC, f"again {DYNAMIC}"])
def test_a_full_disk_ends_it(conduct: Conduct, where: str) -> None:
    with pytest.raises(NotPublished, match="no space"):
        conduct(Workers({DYNAMIC: 2.0}, failing={where: NotPublished("no space left")}), **LONG)


def test_a_model_that_cannot_be_used_ends_it(conduct: Conduct) -> None:
    with pytest.raises(BadSource, match="corrupt"):
        conduct(Workers(failing={"prepare": BadSource("corrupt")}), **LONG)


def test_what_the_time_budget_leaves_no_time_for_is_said(conduct: Conduct) -> None:
    workers = Workers({DYNAMIC: 2.0})
    found, _ = conduct(workers, time_budget_s=100.0)
    left = [each for each in found.outcome.trials if each.verdict is Verdict.NOT_TRIED]
    assert left
    assert all("time budget of 100 s" in each.reason for each in left)
    assert found.outcome.winner == DYNAMIC
    assert workers.now <= 100.0 + 6 * A_RUN_S, "the finals come on top, and little else"
    assert min(workers.limits) >= 100.0


def test_a_pass_that_changes_nothing_says_so_and_is_not_judged(conduct: Conduct) -> None:
    found, _ = conduct(Workers(unchanged=frozenset({"simplified"})), **LONG)
    trial = next(each for each in found.outcome.trials if each.variant.name == "simplified")
    assert (trial.verdict, trial.reason, trial.judgement) == (Verdict.UNCHANGED, "did simplified", None)


def test_what_the_first_round_finds_is_built_upon(conduct: Conduct) -> None:
    layers = (NodeSensitivity("n1", "MatMul", 0.2, False),)
    workers = Workers(
        {DYNAMIC: 2.0, "fused by onnxscript": 1.2, f"mixed, {DYNAMIC}": 1.8}, wrong=frozenset({DYNAMIC}),
        sensitivity=layers,
    )  # fmt: skip
    found, _ = conduct(workers, **LONG)
    assert found.outcome.winner == f"mixed, {DYNAMIC}"
    assert found.outcome.sensitivity == layers


def test_only_the_best_files_are_kept_meanwhile(conduct: Conduct, tmp_path: Path) -> None:
    names = [DYNAMIC, "dynamic int8, per tensor", "fused by onnxscript", "fused by onnxruntime", "simplified"]
    conduct(Workers({name: 1.5 + place / 10 for place, name in enumerate(names)}), **LONG)
    assert len(list((tmp_path / "work").glob("v*"))) <= 3


def test_settings_alone_may_win_and_then_the_model_itself_is_the_file(conduct: Conduct, tmp_path: Path) -> None:
    found, _ = conduct(Workers({"as it is, 1 thread": 1.4}), **LONG)
    assert found.outcome.winner == "as it is, 1 thread"
    assert found.winner == tmp_path / "model.onnx"
    assert found.outcome.settings.intra_op_threads == 1


def test_the_bar_never_leaves_its_range_and_ends_near_the_end(conduct: Conduct) -> None:
    _, told = conduct(Workers({DYNAMIC: 2.0}), **LONG)
    shares = [each.overall for each in told]
    assert all(0 <= each <= 1 for each in shares)
    assert shares[-1] > 0.85
    steps = [each.step for each in told]
    assert list(dict.fromkeys(steps)) == ["prepare", "baseline", "try", "confirm"]


def test_every_variant_is_reported_when_it_is_done(conduct: Conduct) -> None:
    found, told = conduct(Workers({DYNAMIC: 2.0}), **LONG)
    notes = [each.text for each in told if each.note]
    for trial in found.outcome.trials[1:]:
        assert any(each.startswith(f"{trial.variant.name}: ") for each in notes)


def test_accuracy_that_was_not_judged_on_real_data_is_said_plainly(conduct: Conduct) -> None:
    class Drawn(Workers):
        def __call__(self, job: Job, limit_s: float, listener: Listener) -> Result:
            found = super().__call__(job, limit_s, listener)
            return Prepared(SUBJECT, DataFacts(False, 10, 10, False, POINTS)) if isinstance(found, Prepared) else found

    found, _ = conduct(Drawn(), **LONG)
    assert found.outcome.warnings[0].startswith("accuracy was not judged on real data")


def test_size_wants_fewer_bytes(conduct: Conduct) -> None:
    found, _ = conduct(Workers({"weights in 4 bits": 1.0}), objective=Objective.SIZE, **LONG)
    assert found.outcome.winner == "weights in 4 bits"


def test_whoever_wins_among_equals_has_its_file_still(conduct: Conduct) -> None:
    equal = ["static int8, minmax", "static int8, entropy", "static int8, percentile", DYNAMIC, "fused by onnxscript",
             "dynamic int8, per tensor", "weights in 8 bits", "simplified"]  # fmt: skip
    found, _ = conduct(Workers({name: 1.5 + place / 10_000 for place, name in enumerate(equal)}), **LONG)
    assert found.winner is not None
    assert found.winner.read_bytes() == found.outcome.winner.encode()
    assert found.outcome.winner == "simplified", "what changes the model least"
