"""Packages, frameworks and providers, with installations that are described instead of made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tensorquay.backends.onnxruntime.elf import needed as libraries_of
from tensorquay.commands.doctor import frameworks, processor, program, providers, wheels
from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, Level
from tensorquay.config.machine import CpuFacts

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
ALWAYS = "python_version > '3'"
REQUIREMENTS = [
    "numpy>=2.0",
    "uvloop>=0.21; sys_platform != 'win32'",
    "colorama>=0.4; sys_platform == 'win32'",
    "onnxruntime>=1.22; extra == 'cpu'",
    "onnxruntime-gpu>=1.22; extra == 'gpu'",
    "torch>=2.9; extra == 'torch'",
    "transformers>=4.57; extra == 'torch'",
    "xgboost-cpu>=3; (sys_platform == 'linux') and extra == 'boosting'",
    "xgboost>=3; (sys_platform != 'linux') and extra == 'boosting'",
]
GOOD = {"numpy": "2.4.6", "uvloop": "0.23.0", "onnxruntime": "1.31.1"}


def by_check(findings: Sequence[Finding]) -> dict[str, tuple[Level, str, str]]:
    found = {each.check: (each.level, each.text, each.remedy) for each in findings}
    assert len(found) == len(findings), "every finding has a name of its own here"
    return found


def went(names: Sequence[str], *, turn: str | None = None, why: str = "", **errors: str) -> Ended:
    told = {"turn": turn, "went": {name: errors.get(name, "") for name in names if name != turn}}
    return Ended(json.dumps(told) + "\n", "", why)


def packages(have: Mapping[str, str], **more: Any) -> dict[str, tuple[Level, str, str]]:
    runtimes = [name for name in have if name.startswith("onnxruntime")]
    given = {"version": have.get, "runtimes": lambda: runtimes, "import_all": went, "requirements": REQUIREMENTS} | more
    return by_check(list(wheels.examine(given.pop("requirements"), **given)))


def test_a_good_installation() -> None:
    found = packages(GOOD)
    assert {level for level, _, _ in found.values()} == {Level.OK}
    assert (
        found["packages.versions"][1]
        == "3 packages in versions that fit: numpy 2.4.6, onnxruntime 1.31.1, uvloop 0.23.0"
    )
    assert found["packages.imports"][1] == "all 3 of them can be imported"


def test_two_runtimes_and_none() -> None:
    level, text, remedy = packages(GOOD | {"onnxruntime-gpu": "1.22.0"})["packages.runtime"]
    assert level is Level.PROBLEM
    assert "overwrite each other" in text
    assert remedy.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")
    level, _, remedy = packages({"numpy": "2.4.6", "uvloop": "1"})["packages.runtime"]
    assert level is Level.PROBLEM
    assert "tensorquay[cpu]" in remedy


@pytest.mark.parametrize(
    ("numpy", "text"),
    [
        (None, "the package 'numpy' (numpy>=2.0) is not installed"),
        ("1.26.4", "the package 'numpy' is 1.26.4, expected >=2.0"),
        ("weird", "the package 'numpy' is weird, expected >=2.0"),
    ],
)
def test_what_is_missing_or_too_old(numpy: str | None, text: str) -> None:
    have = {name: version for name, version in (GOOD | {"numpy": numpy}).items() if version is not None}
    level, told, remedy = packages(have)["packages.numpy"]
    assert (level, told) == (Level.PROBLEM, text)
    assert "pip install" in remedy
    assert "'numpy>=2.0'" in remedy


def test_an_old_runtime_is_told_too() -> None:
    assert packages(GOOD | {"onnxruntime": "1.17.0"})["packages.onnxruntime"][0] is Level.PROBLEM


def test_a_pre_release_fits() -> None:
    assert "packages.numpy" not in packages(GOOD | {"numpy": "2.5.0rc1"})


def test_an_import_that_fails() -> None:
    def import_all(names: Sequence[str]) -> Ended:
        return went(names, numpy="ImportError: libopenblas.so.0: cannot open shared object file")

    level, text, remedy = packages(GOOD, import_all=import_all)["packages.numpy"]
    assert level is Level.PROBLEM
    assert text == "importing 'numpy' fails: ImportError: libopenblas.so.0: cannot open shared object file"
    assert "--force-reinstall" in remedy


def test_an_import_that_ends_the_interpreter_is_named_and_the_others_are_tried() -> None:
    asked: list[list[str]] = []

    def import_all(names: Sequence[str]) -> Ended:
        asked.append(list(names))
        if "uvloop" not in names:
            return went(names)
        before = list(names)[: list(names).index("uvloop")]
        return went([*before, "uvloop"], turn="uvloop", why="was ended by SIGSEGV")

    found = packages(GOOD, import_all=import_all)
    assert found["packages.uvloop"][1] == "importing 'uvloop' fails: the interpreter was ended by SIGSEGV"
    assert "packages.imports" not in found
    assert {name for names in asked for name in names} == {"numpy", "onnxruntime", "uvloop"}
    assert all("uvloop" not in names for names in asked[1:])


def test_an_import_that_hangs_is_named_and_nothing_more_is_tried() -> None:
    asked: list[object] = []

    def import_all(names: Sequence[str]) -> Ended:
        asked.append(names)
        return Ended(json.dumps({"turn": names[0], "went": {}}), "", "did not end within 30 s", late=True)

    found = packages(GOOD, import_all=import_all)
    assert len(asked) == 1
    assert "packages.imports" not in found
    assert [check for check, (level, _, _) in found.items() if level is Level.PROBLEM] == ["packages.numpy"]


def test_a_child_that_says_nothing_at_all_ends_the_search() -> None:
    found = packages(GOOD, import_all=lambda names: Ended("", "no such file", "cannot be run: no such file"))
    assert sum(level is Level.PROBLEM for level, _, _ in found.values()) == 3


def test_not_installed_as_a_distribution() -> None:
    assert packages(GOOD, requirements=None)["packages.metadata"][0] is Level.NOTE


def test_what_pip_left_behind(tmp_path: Path) -> None:
    (tmp_path / "~umpy").mkdir()
    level, text, _ = packages(GOOD, folders=[tmp_path, tmp_path / "absent"])["packages.leftovers"]
    assert level is Level.WARNING
    assert "~umpy" in text


def test_our_own_requirements_are_understood() -> None:
    base = wheels.needed(PYPROJECT["dependencies"])
    assert {Requirement(each).name for each in PYPROJECT["dependencies"] if "win32" not in each} <= base.keys()
    for extra in frameworks.EXTRAS:
        texts = [
            f"{name}; ({marker or ALWAYS}) and extra == '{extra}'"
            for name, _, marker in (each.partition(";") for each in PYPROJECT["optional-dependencies"][extra])
        ]
        wanted = wheels.needed(texts, extra)
        assert wanted.keys() & frameworks.EXTRAS[extra][1], extra


# -- frameworks


def _versions(**have: str) -> Ended:
    found = {name.replace("_", "-"): version for name, version in have.items()}
    return Ended(json.dumps({"python": "3.12.1", "versions": found}), "")


def test_frameworks_present_incomplete_old_and_absent() -> None:
    wanted = frameworks.EXTRAS.keys() & {"torch"}
    assert wanted

    def torch(**have: str) -> tuple[Level, str, str]:
        return by_check(list(frameworks.examine(REQUIREMENTS, lambda names: _versions(**have))))["frameworks.torch"]

    assert torch(torch="2.13.0", transformers="5.0")[0] is Level.OK
    assert torch(torch="2.13.0")[1] == "incomplete, PyTorch and Hugging Face models: transformers missing"
    level, text, remedy = torch(torch="2.1", transformers="5.0")
    assert (level, "torch 2.1 (expected >=2.9)" in text) == (Level.WARNING, True)
    assert remedy == "pip install 'tensorquay[torch]' --upgrade"
    level, text, remedy = torch(transformers="5.0")
    assert (level, text) == (Level.NOTE, "absent, PyTorch and Hugging Face models")
    assert remedy.startswith("pip install 'tensorquay[torch]'")


def test_another_interpreter_for_imports() -> None:
    python = Path("/opt/tf/bin/python")
    found = by_check(list(frameworks.examine(REQUIREMENTS, lambda names: _versions(torch="2.13"), python=python)))
    assert found["frameworks.interpreter"][1] == "imports run in /opt/tf/bin/python, Python 3.12.1"
    assert found["frameworks.boosting"][2].startswith("pip install 'tensorquay[boosting]' in /opt/tf/bin/python")
    broken = Ended("", "", "cannot be run: No such file or directory")
    (finding,) = frameworks.examine(REQUIREMENTS, lambda names: broken, python=python)
    assert finding.level is Level.PROBLEM
    assert "cannot be run: No such file" in finding.text


def test_without_metadata_nothing_is_said_about_frameworks() -> None:
    assert not list(frameworks.examine(None, lambda names: _versions()))


# -- providers

CPU_BUILD: dict[str, Any] = {
    "version": "1.31.1",
    "wheels": ["onnxruntime"],
    "available": ["CPUExecutionProvider"],
    "built_for_cuda": "",
    "gpus": 0,
    "gpu_name": "",
    "driver_cuda": "",
    "libraries": {},
}
GPU_BUILD = CPU_BUILD | {
    "wheels": ["onnxruntime-gpu"],
    "available": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    "built_for_cuda": "13.0",
    "gpus": 1,
    "gpu_name": "NVIDIA H100",
    "driver_cuda": "13.0",
    "libraries": {
        "CUDAExecutionProvider": {"libcudnn.so.9": "", "libcublas.so.13": "", "libc.so.6": ""},
        "TensorrtExecutionProvider": {"libnvinfer.so.10": "libnvinfer.so.10: cannot open shared object file"},
    },
}


def on(
    document: dict[str, Any], tmp_path: Path, *, driver: str = "", **environment: str
) -> dict[str, tuple[Level, str, str]]:
    if driver:
        file = tmp_path / "proc/driver/nvidia/version"
        file.parent.mkdir(parents=True)
        file.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue\n")
    return by_check(list(providers.examine(Ended(json.dumps(document), ""), environment, root=tmp_path)))


def test_a_cpu_build_without_a_gpu_is_as_it_should_be(tmp_path: Path) -> None:
    assert {level for level, _, _ in on(CPU_BUILD, tmp_path).values()} == {Level.OK}


def test_a_cpu_build_beside_a_gpu(tmp_path: Path) -> None:
    level, text, remedy = on(CPU_BUILD, tmp_path, driver="550.54.15")["providers.gpu"]
    assert level is Level.WARNING
    assert "550.54.15" in text
    assert "tensorquay[gpu]" in remedy


def test_a_gpu_build_that_has_everything_but_tensorrt(tmp_path: Path) -> None:
    found = on(GPU_BUILD, tmp_path, driver="580.1")
    assert found["providers.gpu"][:2] == (Level.OK, "1 NVIDIA GPU, the first is NVIDIA H100; driver 580.1")
    assert found["providers.cuda"][:2] == (Level.OK, "the 3 libraries that 'cuda' needs can be loaded")
    level, text, remedy = found["providers.tensorrt"]
    assert (level, text) == (Level.NOTE, "'tensorrt' cannot be used: libnvinfer.so.10 cannot be loaded")
    assert "TensorRT 10" in remedy


@pytest.mark.parametrize(
    ("library", "remedy"),
    [
        ("libcudnn.so.9", "cuDNN 9"),
        ("libcublasLt.so.13", "CUDA"),
        ("libcuda.so.1", "the NVIDIA driver: install it"),
        ("libodd.so.3", "install the package that has libodd.so.3"),
    ],
)
def test_a_missing_library_is_named_with_what_brings_it(tmp_path: Path, library: str, remedy: str) -> None:
    libraries = {"CUDAExecutionProvider": {library: "cannot open shared object file", "libc.so.6": ""}}
    level, text, told = on(GPU_BUILD | {"libraries": libraries}, tmp_path)["providers.cuda"]
    assert (level, text) == (Level.PROBLEM, f"'cuda' cannot be used: {library} cannot be loaded")
    assert remedy in told


def test_a_gpu_build_without_a_gpu(tmp_path: Path) -> None:
    blind = GPU_BUILD | {"gpus": 0}
    assert on(blind, tmp_path / "a")["providers.gpu"][0] is Level.NOTE
    level, _, remedy = on(blind, tmp_path / "b", driver="580.1")["providers.gpu"]
    assert (level, "--gpus all" in remedy) == (Level.WARNING, True)
    level, text, _ = on(blind, tmp_path / "c", CUDA_VISIBLE_DEVICES="-1")["providers.gpu"]
    assert (level, "CUDA_VISIBLE_DEVICES='-1'" in text) == (Level.NOTE, True)


def test_a_driver_that_is_too_old(tmp_path: Path) -> None:
    level, text, _ = on(GPU_BUILD | {"driver_cuda": "12.4"}, tmp_path)["providers.driver"]
    assert (level, text) == (Level.PROBLEM, "this build is for CUDA 13.0, the driver runs CUDA 12.4 and older")


def test_a_driver_of_unknown_version(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert "of unknown version" in on(CPU_BUILD, tmp_path)["providers.gpu"][1]


def test_a_build_without_cpu(tmp_path: Path) -> None:
    assert on(CPU_BUILD | {"available": []}, tmp_path)["providers.cpu"][0] is Level.PROBLEM


@pytest.mark.parametrize("ended", [Ended("", "", "was ended by SIGILL"), Ended("", "Boom: x\n", "ended with status 1")])
def test_a_runtime_that_cannot_be_asked(ended: Ended, tmp_path: Path) -> None:
    (finding,) = providers.examine(ended, {}, root=tmp_path)
    assert finding.level is Level.PROBLEM
    assert ended.why in finding.text


# -- the processor and the program


@pytest.mark.parametrize(
    ("features", "machine", "level", "word"),
    [
        (("avx2", "avx512_vnni", "amx_int8"), "x86_64", Level.OK, "AMX"),
        (("avx2", "avx_vnni"), "x86_64", Level.OK, "VNNI"),
        (("avx2",), "x86_64", Level.NOTE, "saturate"),
        ((), "x86_64", Level.WARNING, "no AVX2"),
        (("asimd",), "aarch64", Level.OK, "asimd"),
    ],
)
def test_what_the_processor_means_for_int8(features: tuple[str, ...], machine: str, level: Level, word: str) -> None:
    *_, last = processor.examine(CpuFacts("a processor", features), machine)
    assert last.level is level
    assert word in last.text


def test_the_program() -> None:
    assert {each.level for each in program.examine(metadata_version=None, system="Linux")} == {Level.OK}
    found = by_check(list(program.examine(metadata_version="0.0.9", system="Darwin", python=(3, 10, 4), bits=32)))
    assert found["program.installation"][0] is Level.WARNING
    assert found["program.python"][:2] == (Level.PROBLEM, "Python 3.10.4 is too old")
    assert found["program.bits"][0] is Level.PROBLEM
    assert found["program.system"][0] is Level.NOTE


# -- ELF


def test_the_libraries_of_a_real_library() -> None:
    import _ctypes

    assert any(name.startswith(("libc.so", "ld-")) for name in libraries_of(Path(_ctypes.__file__)))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 300, b"#!/bin/sh\n" * 20],
    ids=["empty", "cut", "wild", "text"],
)
def test_what_is_no_library_needs_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(data)
    assert libraries_of(tmp_path / "lib.so") == ()
    assert libraries_of(tmp_path / "absent.so") == ()
