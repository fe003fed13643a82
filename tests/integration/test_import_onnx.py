"""The command `tensorquay import` from end to end, with ONNX sources: no framework is needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from tests.support import graphs
from tests.support.faulty_converter import install
from tests.support.repo import Repo
from tests.support.waiting import until

from tensorquay_convert import CommandFailed, import_model
from tensorquay_convert.errors import ExitCode

DIGITS = Path(__file__).parents[2] / "model_repo/digits/1/model.onnx"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder with an empty repository in it, where the command runs."""
    (tmp_path / "here/model_repo").mkdir(parents=True)
    return tmp_path / "here"


def begin(place: Path, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TENSORQUAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tensorquay", "import", *map(str, arguments)],
        cwd=place,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place: Path, *arguments: object, **environment: str) -> tuple[int, str, str]:
    process = begin(place, *arguments, **environment)
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def left(place: Path) -> list[str]:
    return sorted(each.relative_to(place).as_posix() for each in place.rglob("*"))


def faulty(tmp_path: Path, fault: str) -> dict[str, str]:
    """Environment variables under which ONNX sources are opened by a converter with that fault."""
    folder = tmp_path / "stranger"
    if not folder.exists():
        install(folder)
    return {"PYTHONPATH": str(folder), "FAULT": fault, "ORPHAN": str(tmp_path / "orphan")}


# -- what it is for


def test_import_serve_predict(place: Path, serve: Callable[..., object]) -> None:
    code, out, err = run(place, DIGITS, "--name", "numbers")
    assert code == 0, err
    assert "an ONNX model, operator set 20" in out
    assert "proof   equal on" in out
    assert re.search(r"probabilities +0 +0 .* 100.00%", out)
    assert "tensorquay serve model_repo" in out

    server = serve([place / "model_repo"])
    image = np.random.default_rng(7).random((3, 1, 8, 8), np.float32)
    wanted = onnxruntime.InferenceSession(DIGITS).run(["probabilities"], {"image": image})[0]
    body = {"name": "image", "shape": [3, 1, 8, 8], "datatype": "FP32", "data": image.ravel().tolist()}
    answer = httpx.post(f"{server.url}/v2/models/numbers/infer", json={"inputs": [body]}).json()  # type: ignore[attr-defined]
    got = next(each for each in answer["outputs"] if each["name"] == "probabilities")
    np.testing.assert_allclose(np.array(got["data"]).reshape(got["shape"]), wanted, rtol=1e-5, atol=1e-6)

    told = httpx.get(f"{server.url}/v2/models/numbers/versions/1/provenance").json()  # type: ignore[attr-defined]
    version = place / "model_repo/numbers/1"
    assert told["proof"]["passed"] is True
    assert told["source"]["files"][0]["sha256"] == hashlib.sha256(DIGITS.read_bytes()).hexdigest()
    assert {each["path"] for each in told["files"]} == {"model.onnx", "report.html", "verification.json"}
    for each in told["files"]:
        assert hashlib.sha256((version / each["path"]).read_bytes()).hexdigest() == each["sha256"]
    assert told["resources"]["peak_rss_bytes"] > 10 << 20
    verification = httpx.get(f"{server.url}/v2/models/numbers/verification").json()  # type: ignore[attr-defined]
    assert verification["passed"] is True

    page = httpx.get(f"{server.url}/v2/models/numbers/report")  # type: ignore[attr-defined]
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text == (version / "report.html").read_text()

    shown = subprocess.run(
        [sys.executable, "-m", "tensorquay", "models", "show", "numbers", "--url", server.url],  # type: ignore[attr-defined]
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert re.search(r"proof +equal, cases: \d+, largest error 0, seeded inputs only", shown)


def test_a_model_that_was_not_imported_has_no_provenance(server: object) -> None:
    for kind in ("provenance", "verification", "report"):
        answer = httpx.get(f"{server.url}/v2/models/digits/{kind}")  # type: ignore[attr-defined]
        assert answer.status_code == 404
        assert "not imported" in answer.json()["error"]
        assert httpx.get(f"{server.url}/v2/models/digits/versions/x/{kind}").status_code == 404  # type: ignore[attr-defined]
        assert httpx.get(f"{server.url}/v2/models/nothing/{kind}").status_code == 404  # type: ignore[attr-defined]


def test_files_beside_a_model_that_are_no_record_are_not_passed_on(
    tmp_path: Path, serve: Callable[..., object]
) -> None:
    repo = Repo(tmp_path / "repo")
    folder = repo.model("m", {1: graphs.scale()})
    (folder / "1/provenance.json").write_text("no json")
    (folder / "1/verification.json").mkdir()
    (tmp_path / "secret").write_text("secret")
    server = serve([repo.root])
    # Put there while it serves: a repository with such a link would not have been loaded.
    (folder / "1/report.html").symlink_to(tmp_path / "secret")
    for kind, said in (("provenance", "provenance.json"), ("verification", "Is a directory"), ("report", "leads out")):
        answer = httpx.get(f"{server.url}/v2/models/m/{kind}")  # type: ignore[attr-defined]
        assert answer.status_code == 500
        assert said in answer.json()["error"]
        assert str(tmp_path) not in answer.text


def test_the_python_interface_does_the_same(place: Path) -> None:
    result = import_model(DIGITS, name="m", repository=place / "model_repo", max_batch=4)
    assert (result.version, result.path) == (1, place / "model_repo/m/1")
    assert result.proof["axes"]["batch"][-1] == 4
    with pytest.raises(CommandFailed, match="exists"):
        import_model(DIGITS, name="m", repository=place / "model_repo", version=1)


def test_an_old_model_is_raised_and_proven(place: Path) -> None:
    model = graphs.scale()
    model.opset_import[0].version = 11
    graphs.write(model, place / "old.onnx")
    code, out, err = run(place, "old.onnx", "--name", "m", "--json", "--quiet")
    assert code == 0, err
    assert json.loads(out)["opset"] == 17
    assert "operator set raised from 11 to 17" in json.loads(out)["notes"]
    assert onnx.load(place / "model_repo/m/1/model.onnx").opset_import[0].version == 17


def test_a_first_axis_that_is_no_batch_is_served_so(place: Path) -> None:
    graphs.write(graphs.scale(axes=("n", 4)), place / "m.onnx")
    assert run(place, "m.onnx", "--name", "m", "--dynamic", "x:0=seq")[0] == 0
    checked = subprocess.run(
        [sys.executable, "-m", "tensorquay", "check", "model_repo"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert re.search(r"max_batch_size +0 +config.toml", checked)


def test_without_a_repository(place: Path) -> None:
    assert run(place, DIGITS, "--output", "out")[0] == 0
    assert left(place / "out") == ["model.onnx", "provenance.json", "report.html", "verification.json"]
    code, _, err = run(place, DIGITS, "--output", "out")
    assert (code, "exists" in err) == (ExitCode.NOT_PUBLISHED, True)
    before = left(place)
    code, out, _ = run(place, DIGITS, "--dry-run")
    assert (code, "kept    nothing, it was a dry run" in out) == (0, True)
    assert left(place) == before


def test_progress_is_told_as_it_is_wanted(place: Path) -> None:
    code, out, err = run(place, DIGITS, "--dry-run", "--progress=json")
    lines = [json.loads(line) for line in err.splitlines()]
    assert list(dict.fromkeys(each["step"] for each in lines)) == ["open", "export", "check", "prove", "report"]
    assert all(0 <= each["overall"] <= 1 for each in lines)
    proving = [each["overall"] for each in lines if each["step"] == "prove"]
    assert max(proving) > min(proving) + 0.1
    code, out, err = run(place, DIGITS, "--dry-run", "--quiet")
    assert (code, out, err) == (0, "", "")


# -- what is refused


def test_a_wrong_conversion_is_refused_and_reported(place: Path, tmp_path: Path) -> None:
    graphs.write(graphs.scale(3.0), place / "m.onnx")
    code, out, err = run(place, "m.onnx", "--name", "m", "--json", "--quiet", **faulty(tmp_path, "lie"))
    assert code == ExitCode.NOT_EQUAL, err
    told = json.loads(out)
    assert (told["result"], told["reason"]) == ("failed", "not_equal")
    assert "does not do what its source does" in told["sentence"]
    assert told["facts"]["report"] == "m-import-report.html"
    assert left(place) == ["m-import-report.html", "m.onnx", "model_repo"]
    code, _, err = run(place, "m.onnx", "--name", "m", "--report", "told", **faulty(tmp_path, "lie"))
    assert code == ExitCode.NOT_EQUAL
    assert "the report is in 'told/report.html'" in err
    assert left(place / "told") == ["provenance.json", "report.html", "verification.json"]
    assert json.loads((place / "told/verification.json").read_text())["passed"] is False
    assert left(place / "model_repo") == []


def test_an_unforeseen_failure_leaves_a_log(place: Path, tmp_path: Path) -> None:
    code, _, err = run(place, DIGITS, "--name", "m", **faulty(tmp_path, "fail"))
    assert code == ExitCode.FAILED
    assert "the import failed: ValueError: no such thing\n  the log is in 'm-import.log'" in err
    assert "second line" in (place / "m-import.log").read_text()
    assert left(place) == ["m-import.log", "model_repo"]


def test_a_crash_leaves_nothing_in_the_repository(place: Path, tmp_path: Path) -> None:
    code, _, err = run(place, DIGITS, "--name", "m", **faulty(tmp_path, "segv"))
    assert (code, "signal 11" in err) == (ExitCode.LIMIT, True)
    assert left(place / "model_repo") == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing.onnx", "--name", "m"], ExitCode.BAD_SOURCE, "'nothing.onnx' does not exist"),
        (["cut.onnx", "--name", "m"], ExitCode.BAD_SOURCE, "cut short"),
        (["m.pkl", "--name", "m"], ExitCode.BAD_SOURCE, "--trust-pickle"),
        (["m.onnx", "--name", "a/b"], ExitCode.NOT_PUBLISHED, "cannot be the name of a model"),
        (["m.onnx", "--name", "m", "--repository", "nothing"], ExitCode.NOT_PUBLISHED, "mkdir -p 'nothing'"),
        (["m.onnx", "--name", "m", "--python", "nothing"], ExitCode.FRAMEWORK_MISSING, "cannot be started"),
        (["m.onnx", "--name", "m", "--output-name", "z"], ExitCode.BAD_SOURCE, "no output 'z'; it has y"),
        (["custom.onnx", "--name", "m"], ExitCode.UNSUPPORTED, "acme::Magic"),
        (["m.onnx", "--name", "m", "--opset", "99"], ExitCode.UNSUPPORTED, "cannot be moved from operator set"),
        (["pkg.mod:make", "--name", "m", "--untrusted"], ExitCode.BAD_SOURCE, "is not trusted"),
        (["no_such_package.mod:make", "--name", "m"], ExitCode.BAD_SOURCE, "no module 'no_such_package.mod'"),
        (["m.onnx", "--name", "m", "--memory-limit", "1M"], ExitCode.LIMIT, "its limit is 1 MiB"),
        (["m.onnx", "--name", "m", "--timeout", "0.01"], ExitCode.LIMIT, "its time limit"),
        (["m.onnx"], ExitCode.USAGE, "--name is missing"),
        (["m.onnx", "--name", "m", "--input", "x"], ExitCode.USAGE, "expected NAME:DTYPE"),
        (["m.onnx", "--name", "m", "--input", "x:float31[1]"], ExitCode.USAGE, "expected NAME:DTYPE"),
        (["m.onnx", "--name", "m", "--input", "x:float32[a b]"], ExitCode.USAGE, "'a b' is neither a size"),
        (["m.onnx", "--name", "m", "--dynamic", "x=seq"], ExitCode.USAGE, "expected INPUT:AXIS=NAME"),
        (["m.onnx", "--name", "m", "--memory-limit", "much"], ExitCode.USAGE, "expected a number of bytes"),
        (["m.onnx", "--name", "m", "--kind", "magic"], ExitCode.USAGE, "pt2"),
        (["m.onnx", "--name", "m", "--version", "0"], ExitCode.USAGE, "version"),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(place: Path, arguments: list[str], code: int, said: str) -> None:
    model = graphs.scale()
    graphs.write(model, place / "m.onnx")
    (place / "cut.onnx").write_bytes(model.SerializeToString()[:-9])
    (place / "m.pkl").write_bytes(b"\x80\x04}.")
    model.graph.node.add(op_type="Magic", domain="acme", input=["y"], output=["z"])
    graphs.write(model, place / "custom.onnx")
    before = left(place)
    status, out, err = run(place, *arguments, "--progress=none")
    assert status == code, err
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert left(place) == before


def test_a_full_disk_is_said_and_leaves_nothing(place: Path) -> None:
    """The worker's own writes fail, as on a disk that is full: a limit on the size of files does it without a mount."""
    model, _ = graphs.dense(300, 300)
    graphs.write(model, place / "m.onnx")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        process = begin(place, "m.onnx", "--name", "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    _, err = process.communicate(timeout=100)
    assert process.returncode == ExitCode.NOT_PUBLISHED, err
    assert "the result could not be written: File too large" in err
    assert left(place) == ["m.onnx", "model_repo"]


# -- ended from outside, and many at once


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_everything(place: Path, tmp_path: Path, number: int, code: int) -> None:
    process = begin(place, DIGITS, "--name", "m", "--json", **faulty(tmp_path, "loop"))
    worker = _worker_of(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert json.loads(out)["result"] == "stopped"
    assert left(place) == ["model_repo"]
    until(lambda: not worker.is_running(), "the end of the worker")


def test_a_killed_import_takes_its_worker_along_and_the_next_one_cleans_up(place: Path, tmp_path: Path) -> None:
    process = begin(place, DIGITS, "--name", "m", **faulty(tmp_path, "loop"))
    worker = _worker_of(process)
    family = [worker, *worker.children(recursive=True)]
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(each.is_running() for each in family), "the end of the worker")
    assert [each for each in left(place) if ".import-" in each]
    assert run(place, DIGITS, "--name", "m")[0] == 0
    assert not [each for each in left(place) if ".import-" in each]


def test_of_two_imports_of_one_version_one_wins(place: Path) -> None:
    both = [begin(place, DIGITS, "--name", "m", "--version", "5") for _ in range(2)]
    ended = [process.communicate(timeout=100) for process in both]
    assert sorted(process.returncode for process in both) == [0, ExitCode.NOT_PUBLISHED], ended
    assert any("'model_repo/m/5' exists" in err for _, err in ended)
    assert [each.name for each in (place / "model_repo").iterdir()] == ["m"]
    assert [each.name for each in (place / "model_repo/m").iterdir()] == ["5"]


def _worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The process that converts, once it says that it does."""
    assert process.stderr is not None
    for line in process.stderr:
        if "about to" in line:
            return psutil.Process(process.pid).children()[0]
    raise AssertionError("the worker never began")
