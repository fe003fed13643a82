"""CPU and memory budgets from fake /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorquay.config import resources
from tensorquay.config.resources import cpu_budget, memory_budget

V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(root: Path, own: str, limits: dict[str, str], mount: str = V2_MOUNT) -> Path:
    files = {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": mount}
    files |= {f"sys/fs/cgroup{name}": text for name, text in limits.items()}
    return write(root, files)


def v1(root: Path, own: str, inside: str, limits: dict[str, str]) -> Path:
    mounts = (
        f"32 31 0:29 {inside} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        f"33 31 0:30 {inside} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    )
    files = {"proc/self/cgroup": f"5:memory:{own}\n4:cpu,cpuacct:{own}\n1:name=systemd:{own}\n"}
    files |= {"proc/self/mountinfo": mounts}
    return write(root, files | {f"sys/fs/cgroup/{name}": text for name, text in limits.items()})


def test_v2_quota_is_the_sentence_that_operators_read(tmp_path):
    budget = cpu_budget(v2(tmp_path, "/", {"/cpu.max": "200000 100000\n"}), affinity=64, online=64)
    assert budget.threads == 2
    assert budget.reason == "2 threads: cgroup v2 quota 200000/100000 us, affinity 64 of 64 CPUs"


def test_the_affinity_wins_when_it_is_tighter(tmp_path):
    budget = cpu_budget(v2(tmp_path, "/", {"/cpu.max": "800000 100000\n"}), affinity=2, online=64)
    assert budget.threads == 2
    assert "affinity 2 of 64 CPUs" in budget.reason


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("250000 100000", 3),
        ("300000", 3),
        ("max 100000", 16),
        ("", 16),
        ("garbage", 16),
        ("-5 100000", 16),
        ("200000 0", 16),
        ("0 100000", 16),
        ("9" * 40 + " 100000", 16),
    ],
)
def test_fractions_round_up_and_nonsense_limits_nothing(tmp_path, text, threads):
    assert cpu_budget(v2(tmp_path, "/", {"/cpu.max": text}), affinity=16, online=16).threads == threads


def test_the_tightest_level_between_own_cgroup_and_mount_root_counts(tmp_path):
    limits = {"/a/b/cpu.max": "max 100000", "/a/cpu.max": "300000 100000", "/cpu.max": "600000 100000"}
    assert cpu_budget(v2(tmp_path, "/a/b", limits), affinity=16, online=16).threads == 3


def test_a_sibling_cgroup_does_not_count(tmp_path):
    limits = {"/a/cpu.max": "max 100000", "/b/cpu.max": "100000 100000"}
    assert cpu_budget(v2(tmp_path, "/a", limits), affinity=4, online=4).threads == 4


def test_a_path_outside_the_namespace_is_looked_up_at_the_mount(tmp_path):
    assert cpu_budget(v2(tmp_path, "/../../x", {"/cpu.max": "100000 100000"}), affinity=4, online=4).threads == 1


def test_v1_inside_a_container_that_sees_the_hosts_path(tmp_path):
    limits = {"cpu,cpuacct/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    budget = cpu_budget(v1(tmp_path, "/docker/abc", "/docker/abc", limits), affinity=8, online=8)
    assert budget.threads == 2
    assert "cgroup v1 quota 150000/100000 us" in budget.reason


def test_v1_walks_up_and_minus_one_is_no_limit(tmp_path):
    limits = {
        "cpu,cpuacct/slice/pod/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/slice/pod/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/slice/cpu.cfs_quota_us": "400000",
        "cpu,cpuacct/slice/cpu.cfs_period_us": "200000",
    }
    assert cpu_budget(v1(tmp_path, "/slice/pod", "/", limits), affinity=8, online=8).threads == 2


def test_nothing_readable_leaves_the_affinity(tmp_path):
    budget = cpu_budget(tmp_path, affinity=3, online=4)
    assert (budget.threads, budget.reason) == (3, "3 threads: no CPU quota, affinity 3 of 4 CPUs")


def test_one_thread_is_singular_and_the_least(tmp_path):
    assert cpu_budget(tmp_path, affinity=0, online=0).reason.startswith("1 thread: ")


def test_mount_points_with_spaces_are_unescaped(tmp_path):
    mount = "31 23 0:28 / /sys/fs/cgroup/my\\040dir rw - cgroup2 cgroup2 rw\n"
    root = v2(tmp_path, "/", {"/my dir/cpu.max": "100000 100000"}, mount)
    assert cpu_budget(root, affinity=4, online=4).threads == 1


def test_memory_takes_the_tightest_limit_below_the_machine(tmp_path):
    root = v2(tmp_path, "/a", {"/a/memory.max": "max\n", "/memory.max": "1073741824\n"})
    write(root, {"proc/meminfo": "MemTotal:       16384000 kB\nMemFree: 1 kB\n"})
    budget = memory_budget(root)
    assert budget.limit_bytes == 1 << 30
    assert "cgroup v2 memory limit" in budget.reason


def test_memory_without_limit_is_the_machines(tmp_path):
    root = v1(tmp_path, "/", "/", {"memory/memory.limit_in_bytes": "9223372036854771712\n"})
    write(root, {"proc/meminfo": "MemTotal: 1000 kB\n"})
    assert memory_budget(root).limit_bytes == 1024000


def test_memory_unknown_says_so(tmp_path):
    assert memory_budget(tmp_path).limit_bytes is None


def test_this_very_machine_gives_a_usable_budget():
    budget = cpu_budget()
    assert budget.threads >= 1
    assert str(budget.threads) in budget.reason


def test_a_deeply_nested_path_is_bounded(tmp_path):
    root = v2(tmp_path, "/" + "x/" * 5000, {"/cpu.max": "100000 100000"})
    assert cpu_budget(root, affinity=4, online=4).threads == 1
    assert len(list(resources.own_folders(root, version=2, controller="cpu"))) <= 65
