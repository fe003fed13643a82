"""What the processor can do, and what that means for models with 8-bit weights."""

from __future__ import annotations

from collections.abc import Iterator

from tensorquay.commands.doctor.findings import Finding, note, ok, warning
from tensorquay.config.machine import CpuFacts


def examine(facts: CpuFacts, machine: str) -> Iterator[Finding]:
    """Findings about the processor. `machine`: as platform.machine() says it."""
    name, has = facts.name or "of unknown name", frozenset(facts.features)
    shown = ", ".join(facts.features) or "none of the features that matter, or the system does not tell"
    yield ok("processor.name", f"processor {name}: {shown}")
    if machine.lower() in {"aarch64", "arm64"}:
        yield ok(
            "processor.int8",
            "INT8 models run well where the processor has dot products (asimd); 'tensorquay optimize' measures it",
        )
    elif "amx_int8" in has:
        yield ok("processor.int8", "INT8 models gain most here: the processor multiplies 8-bit matrices (AMX)")
    elif has & {"avx512_vnni", "avx_vnni"}:
        yield ok("processor.int8", "INT8 models gain much here: the processor has 8-bit dot products (VNNI)")
    elif "avx2" in has:
        yield note(
            "processor.int8",
            "INT8 models gain little here and may lose accuracy: without 8-bit dot products (VNNI, AMX) sums of "
            "products saturate",
            "'tensorquay optimize' measures both, and uses 7-bit weights on such processors",
        )
    elif facts.features:
        yield ok("processor.int8", "nothing is known about INT8 on this processor; 'tensorquay optimize' measures it")
    elif machine.lower() in {"x86_64", "amd64"}:
        yield warning(
            "processor.avx2",
            "this processor has no AVX2, or a virtual machine hides it: models run several times slower than they "
            "could",
            "give the virtual machine the host's processor model (cpu type 'host')",
        )
