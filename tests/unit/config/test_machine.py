"""The processor of a machine, by what its kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorquay.config.machine import CPU_FEATURES, CpuFacts, cpu_facts
from tensorquay_convert import provenance

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse avx avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 243\nFeatures\t: fp asimd sve sve2\n"


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (X86, ("avx2", "avx512f", "avx512_vnni", "amx_int8")),
        (ARM, ("asimd", "sve")),
        ("", ()),
        ("flags: avx2_not avx512\n", ()),
        ("\x00\xff: no: text", ()),
    ],
)
def test_features_are_those_of_the_first_processor(tmp_path: Path, text: str, features: tuple[str, ...]) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    found = cpu_facts(tmp_path)
    assert found.features == features
    if text is X86:
        assert found.name == "Intel(R) Xeon(R) Platinum 8480+"


def test_a_system_that_does_not_tell_has_no_features(tmp_path: Path) -> None:
    assert cpu_facts(tmp_path).features == ()


def test_server_and_converters_call_the_same_processor_the_same() -> None:
    """They are strangers and compare what they wrote down."""
    assert CPU_FEATURES == provenance._CPU_FLAGS
    name, features = provenance.processor()
    assert cpu_facts() == CpuFacts(name, tuple(features))
