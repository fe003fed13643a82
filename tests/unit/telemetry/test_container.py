"""Container figures from fake /proc and /sys trees, and CPU time of processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorquay.telemetry.container import Container, ContainerFigures
from tensorquay.telemetry.processes import CpuUse, cpu_seconds_of

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 /pod /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 /pod /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(root: Path, files: dict[str, str]) -> Path:
    said = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cgroup.type": "domain\n"}
    return tree(root, said | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def v1(root: Path, files: dict[str, str]) -> Path:
    said = {"proc/self/cgroup": "5:memory:/pod\n4:cpu,cpuacct:/pod\n", "proc/self/mountinfo": V1}
    return tree(root, said | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def test_version_two(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        {
            "cpu.stat": "usage_usec 2500000\nnr_periods 40\nnr_throttled 10\nthrottled_usec 1500000\nnr_bursts 0\n",
            "cpu.max": "150000 100000\n",
            "memory.current": "5000\n",
            "memory.stat": "anon 1\ninactive_file 2000\n",
            "memory.max": "8000\n",
        },
    )
    assert Container(root).read() == ContainerFigures(2.5, 40, 10, 1.5, 1.5, 3000, 8000)


def test_version_one(tmp_path: Path) -> None:
    root = v1(
        tmp_path,
        {
            "cpu,cpuacct/cpuacct.usage": "2500000000\n",
            "cpu,cpuacct/cpu.stat": "nr_periods 40\nnr_throttled 10\nthrottled_time 1500000000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/memory.usage_in_bytes": "5000\n",
            "memory/memory.stat": "cache 4\ntotal_inactive_file 2000\n",
            "memory/memory.limit_in_bytes": "8000\n",
        },
    )
    assert Container(root).read() == ContainerFigures(2.5, 40, 10, 1.5, 1.5, 3000, 8000)


def test_without_limits_there_is_usage_only(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        {
            "cpu.stat": "usage_usec 1000000\nnr_periods 0\nnr_throttled 0\n",
            "cpu.max": "max 100000\n",
            "memory.current": "5000",
            "memory.max": "max\n",
        },
    )
    assert Container(root).read() == ContainerFigures(cpu_seconds=1.0, memory_bytes=5000)


def test_a_limit_that_is_changed_under_way_is_told(tmp_path: Path) -> None:
    container = Container(v2(tmp_path, {"memory.max": "8000\n", "memory.current": "1\n"}))
    assert container.read().memory_limit_bytes == 8000
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("9000\n")
    assert container.read().memory_limit_bytes == 9000


def test_the_group_above_with_the_tighter_limit_counts_the_throttling(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        {
            "app/cpu.stat": "usage_usec 1000000\n",
            "app/cgroup.type": "domain\n",
            "cpu.max": "50000 100000\n",
            "cpu.stat": "usage_usec 9000000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 250000\n",
        },
    )
    (root / "proc/self/cgroup").write_text("0::/app\n")
    assert Container(root).read() == ContainerFigures(1.0, 7, 3, 0.25, 0.5)


def test_the_whole_machine_is_no_container(tmp_path: Path) -> None:
    root = v2(tmp_path, {"cpu.stat": "usage_usec 1000000\n"})
    (root / "sys/fs/cgroup/cgroup.type").unlink()
    assert Container(root).read() == ContainerFigures()


def test_without_any_of_it_nothing_is_known(tmp_path: Path) -> None:
    assert Container(tmp_path).read() == ContainerFigures()
    assert Container(tmp_path / "missing").read() == ContainerFigures()


NONSENSE = st.one_of(st.text(max_size=40), st.sampled_from(["-1", "max", "9" * 30, "usage_usec x", "\0"]))


@settings(max_examples=30)
@given(st.lists(NONSENSE, min_size=5, max_size=5))
def test_garbage_is_never_a_figure_nor_an_exception(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    names = ("cpu.stat", "cpu.max", "memory.current", "memory.stat", "memory.max")
    root = v2(tmp_path_factory.mktemp("garbage"), dict.fromkeys(names, ""))
    for name, text in zip(names, texts, strict=False):
        (root / "sys/fs/cgroup" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    found = Container(root).read()
    assert all(value is None or value >= 0 for value in (found.cpu_seconds, found.memory_bytes, found.cpu_limit_cores))


# -- processes


def stat_line(pid: int, user: int, system: int, name: str = "(a) b") -> str:
    return f"{pid} ({name}) S 1 1 1 0 -1 4194304 100 0 0 0 {user} {system} 0 0 20 0 1 0 100 1000 10\n"


def test_cpu_of_another_process_is_read_behind_its_awkward_name(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    tree(tmp_path, {"7/stat": stat_line(7, 2 * ticks, ticks)})
    assert cpu_seconds_of(7, tmp_path) == 3.0


@pytest.mark.parametrize("text", ["", "7", "7 (x) S 1", "7 (x) S " + "x " * 40])
def test_a_process_that_cannot_be_read_is_not_counted(tmp_path: Path, text: str) -> None:
    tree(tmp_path, {"7/stat": text})
    assert cpu_seconds_of(7, tmp_path) is None
    assert CpuUse(lambda: [7], proc=tmp_path).other_seconds() == 0.0


def test_what_ended_processes_used_stays_in_the_sum(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    alive = [7, 8]
    used = CpuUse(lambda: alive, proc=tmp_path)
    tree(tmp_path, {"7/stat": stat_line(7, 5 * ticks, 0), "8/stat": stat_line(8, ticks, 0)})
    assert used.other_seconds() == 6.0
    alive.remove(7)
    assert used.other_seconds() == 6.0
    alive.append(7)
    tree(tmp_path, {"7/stat": stat_line(7, ticks, 0)})
    assert used.other_seconds() == 7.0, "the number was given to a new process"
    assert used.seconds() >= 7.0


def test_a_process_that_cannot_be_looked_at_once_is_not_counted_twice(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    used = CpuUse(lambda: [7], proc=tmp_path)
    tree(tmp_path, {"7/stat": stat_line(7, 5 * ticks, 0)})
    assert used.other_seconds() == 5.0
    (tmp_path / "7/stat").unlink()
    assert used.other_seconds() == 5.0
    tree(tmp_path, {"7/stat": stat_line(7, 6 * ticks, 0)})
    assert used.other_seconds() == 6.0


def test_a_number_given_again_between_two_looks_starts_anew(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    used = CpuUse(lambda: [7], proc=tmp_path)
    tree(tmp_path, {"7/stat": stat_line(7, 5 * ticks, 0)})
    assert used.other_seconds() == 5.0
    tree(tmp_path, {"7/stat": stat_line(7, 2 * ticks, 0)})
    assert used.other_seconds() == 7.0
    assert CpuUse().other_seconds() == 0.0
