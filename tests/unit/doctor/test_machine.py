"""Limits, threads, ports, files, clock, settings and terminal, on machines that are described instead of had."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tensorquay.commands.doctor import clock, limits, ports, repository, settings, storage, terminal, threads
from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, Level
from tensorquay.config.resources import CpuBudget, cpu_budget
from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import load
from tensorquay.transport.listen import PortTaken, bind, port_of

OK, NOTE, WARNING, PROBLEM = Level.OK, Level.NOTE, Level.WARNING, Level.PROBLEM
GIB, MIB = 2**30, 2**20


def config(**settings: str) -> ServerConfig:
    return load(environment={}, command_line=settings)


def levels(findings: Iterator[Finding]) -> dict[str, Level]:
    return {each.check: each.level for each in findings}


def root(tmp_path: Path, *, cpu: str = "max 100000", memory: str = "max", shm: bool = True, **files: str) -> Path:
    """A machine with 8 GiB whose container is the group /c."""
    group = tmp_path / "sys/fs/cgroup/c"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(cpu)
    (group / "memory.max").write_text(memory)
    (group / "cgroup.type").write_text("domain")
    for name, text in files.items():
        (group / name.replace("_", ".", 1)).write_text(text)
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/c\n")
    (proc / "mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nSwapTotal: 2097152 kB\nSwapFree: 2097152 kB\n")
    if shm:
        (tmp_path / "dev/shm").mkdir(parents=True)
    return tmp_path


def of_limits(
    at: Path, *, shm: int = GIB, numbers: dict[str, int | None] | None = None, **given: str
) -> dict[str, Finding]:
    def disk(path: Path) -> tuple[int, int]:
        if not path.is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        return shm, shm

    numbers = {"nofile": 65536, "nproc": None} if numbers is None else numbers
    found = limits.examine(config(**given), root=at, affinity=4, limits=lambda: numbers, disk=disk)
    return {each.check: each for each in found}


def test_a_container_with_room(tmp_path: Path) -> None:
    stat = "nr_periods 1000\nnr_throttled 0\nthrottled_usec 0\n"
    found = of_limits(root(tmp_path, cpu="200000 100000", memory=str(2 * GIB), memory_current=str(GIB), cpu_stat=stat))
    assert {each.level for each in found.values()} == {OK}
    assert found["limits.cpu"].text.startswith("CPU time for 2 threads: cgroup v2 quota 200000/100000 us")
    assert found["limits.memory"].text == "2.0 GiB of memory (cgroup v2 memory limit)"
    assert found["limits.throttling"].text.startswith("the quota stopped this container in 0.0% of 1000 periods")


@pytest.mark.parametrize(
    ("machine", "check", "level", "word"),
    [
        ({"cpu": "50000 100000"}, "limits.cpu", WARNING, "less than one CPU"),
        (
            {"cpu": "100000 100000", "cpu_stat": "nr_periods 100\nnr_throttled 7\n"},
            "limits.throttling",
            WARNING,
            "7.0% of 100",
        ),
        ({"memory": str(40 * MIB)}, "limits.memory", PROBLEM, "too little memory"),
        (
            {"memory": str(GIB), "memory_current": str(GIB - 10 * MIB)},
            "limits.memory",
            WARNING,
            "10 MiB of 1.0 GiB are left",
        ),
        ({"memory": str(GIB), "memory_events": "oom 3\noom_kill 2\n"}, "limits.killed", WARNING, "ended 2 processes"),
    ],
)
def test_a_container_without(tmp_path: Path, machine: dict[str, str], check: str, level: Level, word: str) -> None:
    found = of_limits(root(tmp_path, **machine))[check]
    assert found.level is level
    assert word in found.text
    assert found.remedy


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    found = of_limits(tmp_path, numbers={})
    assert found["limits.memory"].level is NOTE
    assert {name: each.level for name, each in found.items() if name != "limits.memory"} == {
        "limits.cpu": OK,
        "limits.swap": OK,
    }


def test_swap_in_use(tmp_path: Path) -> None:
    at = root(tmp_path)
    (at / "proc/meminfo").write_text("MemTotal: 8388608 kB\nSwapTotal: 2097152 kB\nSwapFree: 1000 kB\n")
    assert of_limits(at)["limits.swap"].level is WARNING
    (at / "proc/meminfo").write_text("MemTotal: 8388608 kB\nSwapTotal: 0 kB\nSwapFree: nonsense\n")
    assert of_limits(at)["limits.swap"].level is OK


@pytest.mark.parametrize(
    ("size", "allowed", "level"), [(64 * MIB, "true", WARNING), (64 * MIB, "false", OK), (GIB, "true", OK)]
)
def test_shared_memory_matters_to_those_who_allow_it(tmp_path: Path, size: int, allowed: str, level: Level) -> None:
    assert of_limits(root(tmp_path), shm=size, allow_client_shm=allowed)["limits.shm"].level is level


def test_no_shared_memory_at_all(tmp_path: Path) -> None:
    at = root(tmp_path, shm=False)
    assert "limits.shm" not in of_limits(at)
    assert of_limits(at, allow_client_shm="true")["limits.shm"].level is PROBLEM


@pytest.mark.parametrize(("files", "level"), [(None, OK), (1_000_000, OK), (4096, NOTE), (1024, NOTE), (256, WARNING)])
def test_open_files(tmp_path: Path, files: int | None, level: Level) -> None:
    found = of_limits(root(tmp_path), numbers={"nofile": files, "nproc": 100})
    assert found["limits.files"].level is level
    assert found["limits.processes"].level is WARNING


def test_our_own_limits_can_be_asked() -> None:
    assert limits.soft_limits().keys() == {"nofile", "nproc"}


# -- threads


@pytest.mark.parametrize(
    ("given", "check", "level"),
    [
        ({}, "threads.models", OK),
        ({"threads": "2"}, "threads.models", OK),
        ({"threads": "64"}, "threads.models", WARNING),
        ({"frontends": "4"}, "threads.frontends", WARNING),
    ],
)
def test_threads(given: dict[str, str], check: str, level: Level) -> None:
    assert levels(threads.examine(config(**given), CpuBudget(4, "4 threads: because"), {}))[check] is level


def test_variables_that_change_nothing() -> None:
    found = threads.examine(config(), cpu_budget(), {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": ""})
    assert levels(found)["threads.openmp"] is NOTE


# -- ports


def test_free_ports() -> None:
    found = ports.examine(config(http_port="0", grpc_port="0", metrics_port="0", http_host="127.0.0.1"))
    assert set(levels(found).values()) == {OK}


def test_a_taken_port_and_who_has_it() -> None:
    with bind("127.0.0.1", 0, what="HTTP") as taken:
        taken.listen()
        port = str(port_of(taken))
        found = ports.examine(config(http_host="127.0.0.1", http_port=port, allow_metrics="false", grpc_port="0"))
        told = {each.check: each for each in found}
    assert told["ports.http"].level is PROBLEM
    assert f"process {os.getpid()} (" in told["ports.http"].text
    assert told["ports.metrics"].text == "metrics is off (command line)"


def _machine_with_listener(tmp_path: Path, command: str) -> Path:
    (tmp_path / "proc/net").mkdir(parents=True)
    line = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100\n"
    other = line.replace("0A", "01").replace("4242", "9")
    (tmp_path / "proc/net/tcp").write_text("  sl  local_address\n" + other + line + "garbage\n")
    fd = tmp_path / "proc/77/fd"
    fd.mkdir(parents=True)
    (fd / "3").symlink_to("socket:[4242]")
    (tmp_path / "proc/77/cmdline").write_bytes(command.encode().replace(b" ", b"\0") + b"\0")
    (tmp_path / "proc/78/fd").mkdir(parents=True)
    return tmp_path


def _refuse(host: str, port: int, what: str) -> None:
    raise PortTaken(f"cannot listen for {what} on {host} port {port}: another process listens there; stop it")


@pytest.mark.parametrize(
    ("command", "level", "word"),
    [
        ("nginx: master", PROBLEM, "taken by process 77 (nginx: master)"),
        ("/opt/bin/python -m tensorquay serve repo", NOTE, "served by process 77"),
        ("/venv/bin/python3 /venv/bin/tensorquay serve repo", NOTE, "served by process 77"),
        ("/venv/bin/tensorquay serve", NOTE, "served by process 77"),
        ("python -P -c import_tensorquay.frontends.worker /venv", NOTE, "served by process 77"),
        ("python -m http.server 8000 --directory /data/tensorquay", PROBLEM, "taken by process 77"),
        ("/opt/tensorquay/bin/python -m http.server 8000", PROBLEM, "taken by process 77"),
        ("tensorquay top", PROBLEM, "taken by process 77"),
    ],
)
def test_a_port_of_a_stranger_and_of_our_own_kind(tmp_path: Path, command: str, level: Level, word: str) -> None:
    at = _machine_with_listener(tmp_path, command)
    found, *_ = ports.examine(config(), root=at, take=_refuse)
    assert found.level is level
    assert word in found.text


def test_a_port_that_nobody_is_seen_to_have(tmp_path: Path) -> None:
    found, *_ = ports.examine(config(), root=tmp_path, take=_refuse)
    assert (found.level, found.text) == (PROBLEM, "cannot listen for HTTP on 0.0.0.0 port 8000")
    assert "ss -ltnp" in found.remedy


def test_a_host_that_is_none() -> None:
    def take(host: str, port: int, what: str) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    found, *_ = ports.examine(config(http_host="nowhere.invalid"), take=take)
    assert (found.level, found.text) == (PROBLEM, "HTTP on nowhere.invalid: Name or service not known")


# -- files


def of_storage(given: dict[str, str], *, free: int = 100 * GIB, writable: bool = True) -> dict[str, Finding]:
    found = storage.examine(
        config(**given), {"TMPDIR": "/"}, disk=lambda path: (200 * GIB, free), writable=lambda path: writable
    )
    return {each.check: each for each in found}


def test_files_that_can_be_written(tmp_path: Path) -> None:
    given = {
        "log_file": str(tmp_path / "log"),
        "trace_file": str(tmp_path / "t.json"),
        "import_cache": str(tmp_path / "a/b/c"),
    }
    found = of_storage(given)
    assert {name: each.level for name, each in found.items()} == {
        "storage.log": OK,
        "storage.trace": OK,
        "storage.cache": OK,
        "storage.temporary": OK,
    }
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_files_that_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert of_storage({"log_file": str(tmp_path)})["storage.log"].text.endswith("is a folder")
    missing = of_storage({"log_file": str(tmp_path / "no/such/log")})["storage.log"]
    assert (missing.level, missing.remedy) == (PROBLEM, f"mkdir -p {tmp_path / 'no/such'}")
    under_file = of_storage({"import_cache": str(tmp_path / "file/cache")})["storage.cache"]
    assert (under_file.level, "is no folder" in under_file.text) == (PROBLEM, True)
    closed = of_storage({"log_file": str(tmp_path / "log")}, writable=False)
    assert (closed["storage.log"].level, closed["storage.cache"].level) == (PROBLEM, WARNING)


def test_a_log_that_is_no_file(tmp_path: Path) -> None:
    """Serve refuses a socket, and a named pipe without a reader; to try the pipe would end its reader."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        found = of_storage({"log_file": str(tmp_path / name)})["storage.log"]
        assert (found.level, "serve refuses it when nobody reads it" in found.text) == (WARNING, True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert of_storage({"log_file": str(tmp_path / "socket")})["storage.log"].level is PROBLEM
    reader, writer = os.pipe()
    assert of_storage({"log_file": f"/proc/self/fd/{writer}"})["storage.log"].level is OK
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("free", "level"), [(GIB // 2, WARNING), (10 * MIB, WARNING), (2 * GIB, OK)])
def test_room_for_models(tmp_path: Path, free: int, level: Level) -> None:
    assert of_storage({"import_cache": str(tmp_path)}, free=free)["storage.cache"].level is level


def test_a_disk_that_does_not_tell(tmp_path: Path) -> None:
    def disk(path: Path) -> tuple[int, int]:
        raise OSError(5, "Input/output error")

    found = storage.examine(config(import_cache=str(tmp_path)), {}, disk=disk, writable=lambda path: True)
    assert levels(found)["storage.cache"] is NOTE


def test_without_imports_there_is_no_cache() -> None:
    assert "storage.cache" not in of_storage({"auto_import": "false", "auto_optimize": "false"})


# -- time, texts, settings


def test_the_clock(tmp_path: Path) -> None:
    source = tmp_path / "sys/devices/system/clocksource/clocksource0"
    source.mkdir(parents=True)
    (source / "current_clocksource").write_text("hpet\n")
    found = levels(clock.examine(10**12, 2 * 10**12, {}, root=tmp_path))
    assert found == {"clock.wall": PROBLEM, "clock.source": WARNING}
    (source / "current_clocksource").write_text("tsc\n")
    found = levels(clock.examine(2 * 10**12, 2 * 10**12, {"TZ": "UTC"}, root=tmp_path))
    assert found == {"clock.wall": OK, "clock.source": OK}


def test_terminals() -> None:
    plain = terminal.examine({"LANG": "C"}, encoding="ascii", files="ascii", is_terminal=True)
    assert levels(plain) == {"terminal.files": WARNING, "terminal.encoding": NOTE, "terminal.kind": NOTE}
    good = terminal.examine({"TERM": "xterm"}, encoding="UTF-8", files="utf8", is_terminal=True)
    assert levels(good) == {"terminal.encoding": OK}


def test_settings_and_where_they_come_from() -> None:
    given = load(
        environment={"TENSORQUAY_HTTP_PORT": "9000"}, command_line={"threads": "2"}, notes=("--x has no effect.",)
    )
    told = list(settings.examine(given, ()))
    assert told[0].text == "2 given: http_port (TENSORQUAY_HTTP_PORT), threads (command line)"
    assert (told[1].level, told[1].text) == (NOTE, "--x has no effect")
    broken = list(settings.examine(config(), ["environment: unknown variable TENSORQUAY_HTP_PORT"]))
    assert [each.level for each in broken] == [PROBLEM, NOTE]


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    files = {"http_use_ssl": "true", "http_server_cert": str(tmp_path / "c"), "http_server_key": str(tmp_path / "k")}
    (found,) = settings.certificates(config(**files), 0)
    assert found.level is PROBLEM
    assert not list(settings.certificates(config(), 0))


# -- the repository


def _checked(models: Sequence[dict[str, Any]], why: str = "") -> Ended:
    return Ended(json.dumps({"ok": True, "models": list(models), "remarks": ["a remark"]}), "", why)


def of_repository(ended: Ended, gpus: int | None = None, **settings: str) -> list[Finding]:
    given = config(model_repository="repo", **settings)
    return list(repository.examine(given, lambda arguments: ended, lambda: gpus))


def test_a_repository_in_short() -> None:
    good = {"name": "a", "versions": [1], "problems": []}
    bad = {"name": "b", "versions": [], "problems": [{"version": None, "text": "has\nno version"}]}
    found = of_repository(_checked([good, bad]))
    assert [(each.level, each.text) for each in found] == [
        (PROBLEM, "model 'b': has no version"),
        (NOTE, "a remark"),
        (OK, "1 of 2 models can be served: a"),
    ]


@pytest.mark.parametrize(
    ("settings", "level"),
    [({}, PROBLEM), ({"model_control_mode": "poll"}, WARNING), ({"exit_on_error": "false"}, WARNING)],
)
def test_a_repository_without_models_is_a_problem_where_the_server_would_not_start(
    settings: dict[str, str], level: Level
) -> None:
    assert of_repository(_checked([]), **settings)[-1].level is level


@pytest.mark.parametrize(
    ("groups", "providers", "fallback", "gpus", "refused"),
    [
        ("[kind KIND_GPU, count 1, name g_0]", "[]", "false", 0, True),
        ("[gpus [0], name g_0]", "[]", "false", 0, True),
        ("[]", "[tensorrt]", "false", 0, True),
        ("[kind KIND_GPU, count 1]", "[]", "true", 0, False),
        ("[kind KIND_GPU, count 1]", "[]", "false", 1, False),
        ("[kind KIND_GPU, count 1]", "[]", "false", None, False),
        ("[kind KIND_CPU, count 1]", "[openvino]", "false", 0, False),
    ],
)
def test_models_that_ask_for_a_gpu_where_there_is_none(
    groups: str, providers: str, fallback: str, gpus: int | None, refused: bool
) -> None:
    shown = {"instance_groups": groups, "execution.providers": providers, "execution.allow_fallback": fallback}
    model = {
        "name": "a",
        "versions": [1],
        "problems": [],
        "config": {name: {"value": value} for name, value in shown.items()},
    }
    found = of_repository(_checked([model]), gpus)
    assert [each.check for each in found if each.level is PROBLEM] == ["repository.gpu"] * refused
    assert found[-1].text == ("0 of 1 model can be served" if refused else "1 of 1 model can be served: a")


def test_very_many_problems_are_counted() -> None:
    bad = {"name": "b", "versions": [], "problems": [{"version": 1, "text": "x"}] * 100}
    assert "80 more problems" in of_repository(_checked([bad]))[20].text


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (
            Ended("", "tensorquay: the model repository 'x' cannot be read: No such file\n", ""),
            "the model repository 'x' cannot be read: No such file",
        ),
        (Ended("", "", "did not end within 30 s"), "it said nothing (tensorquay check did not end within 30 s)"),
        (Ended("[]", "", "was ended by SIGSEGV"), "it said nothing (tensorquay check was ended by SIGSEGV)"),
    ],
)
def test_a_repository_that_cannot_be_read(ended: Ended, text: str) -> None:
    (found,) = of_repository(ended)
    assert (found.level, found.text) == (PROBLEM, text)


def test_no_repository() -> None:
    (found,) = repository.examine(config(), lambda arguments: pytest.fail("nothing to check"))
    assert found.level is NOTE
