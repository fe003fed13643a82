"""Compile every .proto of the server into the descriptor set (.binpb) that is checked in beside it.

Run after changing a .proto:  python tests/tools/build_protos.py
`--check` compiles to memory and only says what is stale. Needs grpcio-tools (extra `dev`); the server itself does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

PACKAGE = Path(__file__).resolve().parents[2] / "server" / "tensorquay"
INCLUDES = (PACKAGE / "config", PACKAGE / "protocol")


def sources() -> list[Path]:
    """Every .proto of the server, imports before importers."""
    return [path for include in INCLUDES for path in sorted(include.glob("*.proto"))]


def target(source: Path) -> Path:
    """Where the descriptor set of `source` is checked in."""
    return source.with_suffix(".binpb")


def compile_proto(source: Path) -> FileDescriptorSet:
    """The descriptor set of `source` alone: its imports have their own.

    Raises: RuntimeError when protoc refuses it.
    """
    from grpc_tools import protoc

    well_known = resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        arguments = ["protoc", *(f"-I{include}" for include in INCLUDES), f"-I{well_known}"]
        if protoc.main([*arguments, f"--descriptor_set_out={out}", source.name]) != 0:
            raise RuntimeError(f"protoc refused {source.name}")
        return FileDescriptorSet.FromString(out.read_bytes())


def stale(source: Path) -> bool:
    """Whether the checked-in descriptor set says something else than `source`."""
    checked_in = target(source)
    return not checked_in.exists() or FileDescriptorSet.FromString(checked_in.read_bytes()) != compile_proto(source)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, or with `--check` only compare. Exit code 1: something is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a .binpb is stale")
    check: bool = parser.parse_args(arguments).check
    outdated = [source for source in sources() if stale(source)]
    for source in outdated:
        if check:
            print(f"stale: {target(source).relative_to(PACKAGE)}")
        else:
            target(source).write_bytes(compile_proto(source).SerializeToString(deterministic=True))
            print(f"wrote {target(source).relative_to(PACKAGE)}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
