"""A worker that crashes, hangs, fills memory, forks or floods costs one import, one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.support import graphs
from tests.support.faulty_converter import install
from tests.support.waiting import until

from tensorquay_convert import isolation, surroundings
from tensorquay_convert.errors import BadSource, CommandFailed, ExitCode, FrameworkMissing
from tensorquay_convert.isolation import Limits, WorkerFailed, run_worker
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.progress import Told
from tensorquay_convert.request import Request

Run = Callable[..., WorkerFailed]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a worker whose converter has a fault, and returns its failure; nothing of it is left."""
    folder = install(tmp_path / "stranger")
    model = graphs.write(graphs.scale(), tmp_path / "m.onnx")
    stage = tmp_path / "stage"
    stage.mkdir()

    def call(fault: str, **options: object) -> WorkerFailed:
        environment = surroundings.worker_environment(
            {**os.environ, "PYTHONPATH": str(folder), "FAULT": fault, "ORPHAN": str(tmp_path / "orphan")}
        )
        job = ImportJob(source=str(model), kind=SourceKind.ONNX)
        request = Request(job, "m", str(model), (), stage, ("test",), "0")
        told: list[Told] = []
        with pytest.raises(WorkerFailed) as error:
            run_worker(request.to_json(), environment, told.append, **options)  # type: ignore[arg-type]
        if options.get("python", sys.executable) == sys.executable:
            assert f"about to {fault}" in [each.text for each in told]
        return error.value

    before = set(psutil.Process().children(recursive=True))
    yield call
    assert not set(psutil.Process().children(recursive=True)) - before


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("segv", ExitCode.LIMIT, "killed by signal 11, a crash in native code"),
        ("killed", ExitCode.LIMIT, r"killed by signal 9 \(out of memory\?\)"),
        ("fail", ExitCode.FAILED, "the import failed: ValueError: no such thing$"),
        ("leave", ExitCode.FAILED, "the import failed: SystemExit: 0"),
        ("vanish", ExitCode.FAILED, "ended with status 0 and without a result"),
        ("lack", ExitCode.FRAMEWORK_MISSING, "importing onnx needs a_framework_nobody_has, which is not installed in"),
        ("memory", ExitCode.LIMIT, "ran out of memory"),
        ("unsupported", ExitCode.UNSUPPORTED, "operator Foo of node 'bar'"),
        ("deep", ExitCode.FAILED, "RecursionError"),
        ("garbage_events", ExitCode.FAILED, "ValueError: after the garbage"),
    ],
)
def test_every_end_is_a_sentence_and_a_code(run: Run, fault: str, code: ExitCode, said: str) -> None:
    ended = run(fault)
    assert ended.failure.code is code
    with pytest.raises(CommandFailed, match=said):
        raise type(ended.failure)(ended.failure.sentence)
    assert ended.unforeseen is (code is ExitCode.FAILED or "signal" in said)


def test_the_remedy_and_the_facts_come_through(run: Run) -> None:
    failure = run("unsupported").failure
    assert (failure.remedy, failure.facts) == ("leave it out", {"operator": "Foo"})


def test_what_the_framework_printed_is_kept_with_the_traceback(run: Run) -> None:
    output = run("fail").output.decode()
    assert "what the framework printed" in output
    assert "Traceback" in output
    assert "second line" in output


@pytest.mark.parametrize("fault", ["loop", "close_everything", "garbage"])
def test_a_worker_that_does_not_end_is_ended(run: Run, fault: str) -> None:
    ended = run(fault, limits=Limits(timeout_s=4.0))
    assert ended.failure.code is ExitCode.LIMIT
    assert "stopped after 4 s, its time limit" in ended.failure.sentence
    assert "--timeout" in ended.failure.remedy
    assert len(ended.output) <= isolation._KEPT_OUTPUT_BYTES


@pytest.mark.parametrize("fault", ["hog", "hog_in_a_child"])
def test_memory_is_counted_for_all_its_processes(run: Run, fault: str) -> None:
    ended = run(fault, limits=Limits(timeout_s=60.0, memory_bytes=500 << 20))
    assert ended.failure.code is ExitCode.LIMIT
    assert "its limit is 500 MiB" in ended.failure.sentence


def test_what_it_started_ends_with_it(run: Run, tmp_path: Path) -> None:
    assert "leaves an orphan" in run("orphan").failure.sentence
    orphan = int((tmp_path / "orphan").read_text())
    until(lambda: not psutil.pid_exists(orphan), "the end of the orphan")


def test_an_interpreter_that_is_none_is_said(run: Run, tmp_path: Path) -> None:
    request = Request(ImportJob(source="x"), "m", "x", (), tmp_path, (), "0")
    with pytest.raises(FrameworkMissing, match="cannot be started: No such file"):
        run_worker(request.to_json(), {}, lambda _: None, python=str(tmp_path / "nothing"))


def test_an_interpreter_without_the_packages_is_told_what_it_lacks(run: Run, tmp_path: Path) -> None:
    """Another interpreter runs this package from where it lies, and nothing else of this environment."""
    bare = tmp_path / "bare"
    bare.mkdir()
    real = Path(sys.executable).resolve()
    (bare / "python3").symlink_to(real)
    (bare / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    ended = run("fail", python=str(bare / "python3"))
    assert ended.failure.code is ExitCode.FRAMEWORK_MISSING
    assert "has no " in ended.failure.sentence
    assert "-m pip install numpy onnx onnxruntime" in ended.failure.remedy


def test_a_program_that_is_no_python_is_a_failure_and_no_hang(run: Run) -> None:
    ended = run("fail", python="/bin/false")
    assert "ended with status 1" in ended.failure.sentence


def test_a_job_that_cannot_be_read_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Request, "to_json", lambda _: {"job": {"source": "x", "colour": "red"}})
    request = Request(ImportJob(source="x"), "m", "x", (), tmp_path, (), "0")
    with pytest.raises(WorkerFailed, match="no job it can read on standard input") as error:
        run_worker(request.to_json(), surroundings.worker_environment(os.environ), lambda _: None)
    assert error.value.failure.code is ExitCode.FAILED


def test_strangers_get_no_secrets() -> None:
    given = {"PATH": "/bin", "SECRET": "x", "LC_ALL": "C", "PYTHONHOME": "/x", "OMP_NUM_THREADS": "7"}
    own = surroundings.worker_environment(given, other_python=True)
    assert (own["SECRET"], own["OMP_NUM_THREADS"], own["HF_HUB_OFFLINE"]) == ("x", "7", "1")
    assert "PYTHONHOME" not in own
    theirs = surroundings.worker_environment(given, untrusted=True)
    assert "SECRET" not in theirs
    assert theirs["LC_ALL"] == "C"


def test_a_failure_that_cannot_be_read_is_ours() -> None:
    with pytest.raises(CommandFailed, match="cannot be read"):
        isolation.failure_from({"event": "failed", "code": 99})
    found = isolation.failure_from({"event": "failed", "code": 3, "sentence": "s", "remedy": "r", "facts": {}})
    assert isinstance(found, BadSource)


def test_memory_has_a_default_below_what_there_is() -> None:
    limit = surroundings.default_memory_limit()
    assert limit is not None
    assert 0 < limit < psutil.virtual_memory().total
    assert surroundings.process(os.getpid()) is not None
    assert os.getpid() in [each.pid for each in surroundings.tree_of(os.getpid())]
