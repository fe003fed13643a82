"""Whatever is put into the repository, what serves serves on, and the index says what is wrong with the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onnx import helper
from tests.support import ask, graphs
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

GOOD = 2.0
ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = Repo(tmp_path_factory.mktemp("drops") / "repo")
    made.model("steady", {1: graphs.scale(5.0)})
    return made


@pytest.fixture(scope="module")
def server(repo: Repo) -> Iterator[RunningServer]:
    running = start(
        [repo.root], "--model-control-mode=poll", "--repository-poll-secs=0.02", "--settle-secs=0.05", "--log-verbose=1"
    )
    yield running
    assert _serves(running, "steady", 5.0), "what was never touched served to the end"
    assert ask.get(running, "/v2/health/ready").status == 200
    assert running.stop() == 0, running.told()
    assert "Traceback" not in running.told(), running.told()


@pytest.fixture
def name(repo: Repo, server: RunningServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A model of the test's own, version 1 of which serves."""
    made = f"m{abs(hash(request.node.name)) % 10**12}"
    repo.model(made, {1: graphs.scale(GOOD)})
    until(lambda: _state(server, made, 1) == "READY", "version 1 serves")
    yield made
    if (repo.root / made).exists():
        repo.remove(made)
    until(lambda: not any(model == made for model, _ in ask.index(server)), "the model is gone from the index")


def _corrupt(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\x00\xff this is no model " * 100)


def _empty(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")


def _truncated(folder: Path) -> None:
    whole = graphs.dense()[0].SerializeToString()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def _no_file(folder: Path) -> None:
    """Nothing but an empty folder."""


def _other_file(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"PK")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "model.onnx")


def _link_out(folder: Path) -> None:
    outside = folder.parents[2] / "outside.onnx"
    outside.write_bytes(graphs.scale(666.0).SerializeToString())
    (folder / "model.onnx").symlink_to(outside)


def _link_to_itself(folder: Path) -> None:
    (folder / "model.onnx").symlink_to(folder / "model.onnx")


def _link_to_nothing(folder: Path) -> None:
    (folder / "model.onnx").symlink_to("nowhere.onnx")


def _weights_outside(folder: Path) -> None:
    graphs.write_external(folder)
    proto, _ = graphs.dense()
    graphs.make_external(proto.graph.initializer[0], "../../../../../../etc/passwd", length="16")
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def _weights_missing(folder: Path) -> None:
    graphs.write_external(folder)
    (folder / "weights.bin").unlink()


def _weights_short(folder: Path) -> None:
    graphs.write_external(folder)
    (folder / "weights.bin").write_bytes(b"\x00" * 17)


def _weights_linked_out(folder: Path) -> None:
    graphs.write_external(folder)
    outside = folder.parents[2] / "weights.bin"
    (folder / "weights.bin").rename(outside)
    (folder / "weights.bin").symlink_to(outside)


def _unknown_operator(folder: Path) -> None:
    node = helper.make_node("Sorcery", ["x"], ["y"], domain="com.example")
    proto = graphs.model([node], [graphs.value("x", "FP32", ["n"])], [graphs.value("y", "FP32", ["n"])])
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def _future_opset(folder: Path) -> None:
    proto = graphs.scale()
    proto.opset_import[0].version = 9_999
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def _dangling_edge(folder: Path) -> None:
    node = helper.make_node("Add", ["x", "nobody_makes_this"], ["y"])
    proto = graphs.model([node], [graphs.value("x", "FP32", ["n"])], [graphs.value("y", "FP32", ["n"])])
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


BAD_VERSIONS: dict[Callable[[Path], None], str] = {
    _corrupt: "model.onnx",
    _empty: "empty",
    _truncated: "model.onnx",
    _no_file: "no model.onnx",
    _other_file: "model.pt",
    _fifo: "model.onnx",
    _link_out: "leads out",
    _link_to_itself: "model.onnx",
    _link_to_nothing: "model.onnx",
    _weights_outside: "outside",
    _weights_missing: "weights.bin",
    _weights_short: "still being copied",
    _weights_linked_out: "leads out",
    _unknown_operator: "Sorcery",
    _future_opset: "opset",
    _dangling_edge: "nobody_makes_this",
}
"""What is wrong with version 2 → a word of the reason that its owner needs to find it."""


@pytest.mark.parametrize(("spoil", "word"), BAD_VERSIONS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_bad_version_leaves_the_old_one_serving_and_says_why(
    server: RunningServer, repo: Repo, name: str, spoil: Callable[[Path], None], word: str
) -> None:
    made = repo.root.with_name("spoiled")
    making = made / "repo" / name / "2"
    making.mkdir(parents=True)
    spoil(making)
    making.rename(repo.root / name / "2")
    for folder in (making.parent, making.parents[1]):
        folder.rmdir()

    state, reason = until(lambda: _told(server, name, 2), "version 2 is judged")

    assert state == "UNAVAILABLE"
    assert word in reason
    assert "/tmp" not in reason, "no path of this machine"
    assert "Traceback" not in reason
    assert _serves(server, name, GOOD)
    assert _state(server, name, 1) == "READY"
    # And a good one after it works, without anybody taking the bad one away first.
    repo.version(name, 3, graphs.scale(3.0))
    until(lambda: _serves(server, name, 3.0), "version 3 serves")


BAD_CONFIGS: dict[str, tuple[dict[str, str], str]] = {
    "not toml": ({"config.toml": "max_batch_size = = 3"}, "config.toml"),
    "not pbtxt": ({"config.pbtxt": "input [ { name: "}, "config.pbtxt"),
    "not text": ({"config.toml": "\x00\x01"}, "config.toml"),
    "unknown key": ({"config.toml": "max_batch_siez = 3"}, "max_batch_siez"),
    "both files": ({"config.toml": "", "config.pbtxt": ""}, "config.pbtxt"),
    "another name": ({"config.pbtxt": 'name: "another"'}, "another"),
    "another input": ({"config.toml": '[[input]]\nname = "z"\ndatatype = "FP32"\ndims = [4]'}, "z"),
    "another type": ({"config.toml": '[[input]]\nname = "x"\ndatatype = "INT64"\ndims = [4]'}, "INT64"),
    "another shape": ({"config.toml": '[[input]]\nname = "x"\ndatatype = "FP32"\ndims = [5]'}, "5"),
    "negative batch": ({"config.toml": "max_batch_size = -1"}, "max_batch_size"),
    "huge number": ({"config.toml": f"max_batch_size = {10**30}"}, "max_batch_size"),
    "two million instances": ({"config.toml": "[instances]\ncount = 2_000_000"}, "instance"),
    "labels outside": ({"config.toml": '[[output]]\nname = "y"\nlabels = "../../x"'}, "../../x"),
    "labels missing": ({"config.toml": '[[output]]\nname = "y"\nlabels = "nothing.txt"'}, "nothing.txt"),
    "file outside": ({"config.toml": 'model_file = "../1/model.onnx"'}, "../1/model.onnx"),
    "huge warm-up": (
        {"config.toml": f'[[warmup]]\nname = "w"\n[warmup.inputs.x]\ndatatype = "FP32"\ndims = [{2**40}, {2**20}]'},
        "warmup",
    ),
    "endless warm-up": (
        {"config.toml": f'[[warmup]]\nname = "w"\ncount = {2**31}\n[warmup.inputs.x]\ndatatype = "FP32"\ndims = [4]'},
        "count",
    ),
    "warm-up file outside": (
        {
            "config.toml": '[[warmup]]\nname = "w"\n[warmup.inputs.x]\ndatatype = "FP32"\ndims = [4]\ndata = "file"\n'
            'file = "../../../etc/passwd"'
        },
        "passwd",
    ),
    "a GPU that is not there": ({"config.toml": '[instances]\nkind = "gpu"'}, "GPU"),
    "another backend": ({"config.pbtxt": 'backend: "python"'}, "python"),
    "deep nesting": ({"config.pbtxt": "parameters { " * 10_000}, "config.pbtxt"),
}
"""What is wrong with the files beside the versions → a word of the reason."""


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_configuration_leaves_the_old_one_in_force_and_says_why(
    server: RunningServer, repo: Repo, name: str, case: str
) -> None:
    files, word = BAD_CONFIGS[case]
    for file, text in files.items():
        repo.file(f"{name}/{file}", text)

    reason = until(lambda: _any_reason(server, name), f"{case}: judged")

    assert word in reason
    assert "/tmp" not in reason, "no path of this machine"
    assert _serves(server, name, GOOD), "what served before serves on"
    for file in files:
        repo.remove(f"{name}/{file}")
    until(lambda: not _any_reason(server, name), f"{case}: forgotten when it is put right")
    assert _serves(server, name, GOOD)


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_new_model_is_not_served_and_says_why(server: RunningServer, repo: Repo, case: str) -> None:
    files, word = BAD_CONFIGS[case]
    made = f"n{abs(hash(case)) % 10**12}"
    repo.model(made, {1: graphs.scale(GOOD)}, **files)

    reason = until(lambda: _any_reason(server, made), f"{case}: judged")

    assert word in reason
    assert ask.infer(server, made, ask.sequence([ROW])).status in {404, 503}
    assert ask.get(server, f"/v2/models/{made}/ready").status == 400
    assert ask.get(server, "/v2/health/ready").status == 200, "a bad drop does not take traffic from the others"
    repo.remove(made)


@pytest.mark.parametrize("version", ["003", "0", "-3", "3.5", "1e3", "abc", "9" * 20, "٣", "18446744073709551617"])
def test_a_folder_that_is_no_version_is_none(server: RunningServer, repo: Repo, name: str, version: str) -> None:
    repo.version(name, version, graphs.scale(666.0))
    # A version put there afterwards is seen in a look that saw the strange one too.
    repo.version(name, 2, graphs.scale(3.0))

    until(lambda: _serves(server, name, 3.0), "version 2 serves")

    assert {number for model, number in ask.index(server) if model == name} <= {"1", "2"}


@pytest.mark.parametrize(
    "odd", ["..hidden", "a b", "ä", "a%2fb", "a\nb", "'; drop", "-flag", "\u202ereversed", "x" * 255]
)
def test_a_model_with_an_odd_name_hurts_nobody(server: RunningServer, repo: Repo, name: str, odd: str) -> None:
    """It is served under its name, or refused in words: the others do not notice."""
    repo.model(odd, {1: graphs.scale(GOOD)})
    try:
        repo.version(name, 2, graphs.scale(3.0))
        until(lambda: _serves(server, name, 3.0), "another model is loaded in the same look")
        assert all("\n" not in reason for _, reason in ask.index(server).values())
    finally:
        repo.remove(odd)


def test_a_file_that_is_copied_slowly_is_believed_when_it_is_whole(
    server: RunningServer, repo: Repo, name: str
) -> None:
    """In pieces, with pauses in which the server looks several times; never told as broken."""
    whole = graphs.scale(3.0).SerializeToString()
    folder = repo.root / name / "2"
    folder.mkdir()
    states = set()
    with (folder / "model.onnx").open("wb") as file:
        for start_at in range(0, len(whole), 1 + len(whole) // 40):
            file.write(whole[start_at : start_at + 1 + len(whole) // 40])
            file.flush()
            os.utime(folder / "model.onnx")
            states.add(ask.index(server).get((name, "2"), ("", ""))[0])
            assert _serves(server, name, GOOD)

    until(lambda: _serves(server, name, 3.0), "version 2 serves")

    assert "READY" not in states
    assert f"failed to load {name}/2" not in server.told()


def test_a_repository_that_cannot_be_read_is_not_an_empty_one(server: RunningServer, repo: Repo, name: str) -> None:
    away = repo.root.with_name("away")
    repo.root.rename(away)
    try:
        until(lambda: "cannot be read" in server.told(), "it is noticed")
        for _ in range(20):
            assert _serves(server, name, GOOD)
            assert _serves(server, "steady", 5.0)
        assert _state(server, name, 1) == "READY"
        assert ask.get(server, "/v2/health/ready").status == 200
    finally:
        away.rename(repo.root)
    repo.version(name, 2, graphs.scale(3.0))
    until(lambda: _serves(server, name, 3.0), "it is followed again")


def test_a_version_that_comes_and_goes_does_no_harm(server: RunningServer, repo: Repo, name: str) -> None:
    for _ in range(20):
        repo.version(name, 2, graphs.scale(3.0))
        assert _serves(server, name, GOOD) or _serves(server, name, 3.0)
        repo.remove(f"{name}/2")
        assert _serves(server, name, GOOD) or _serves(server, name, 3.0)
    until(lambda: _serves(server, name, GOOD), "version 1 serves")


def test_a_model_taken_away_is_unloaded_and_may_come_back(server: RunningServer, repo: Repo, name: str) -> None:
    repo.remove(name)
    until(lambda: ask.infer(server, name, ask.sequence([ROW])).status == 404, "it is gone")

    repo.model(name, {1: graphs.scale(7.0)})

    until(lambda: _serves(server, name, 7.0), "it is back")


def _serves(server: RunningServer, name: str, factor: float) -> bool:
    answer = ask.infer(server, name, ask.sequence([ROW]))
    return answer.status == 200 and ask.values(answer) == [factor * each for each in ROW]


def _state(server: RunningServer, name: str, version: int) -> str:
    return ask.index(server).get((name, str(version)), ("", ""))[0]


def _told(server: RunningServer, name: str, version: int) -> tuple[str, str] | None:
    """State and reason of a version, once there is a reason."""
    state, reason = ask.index(server).get((name, str(version)), ("", ""))
    return (state, reason) if reason and state == "UNAVAILABLE" else None


def _any_reason(server: RunningServer, name: str) -> str:
    """What the index says against a model or its versions."""
    lines = [reason for (model, _), (_, reason) in ask.index(server).items() if model == name and reason]
    return "; ".join(lines)
