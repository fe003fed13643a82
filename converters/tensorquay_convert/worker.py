"""The process that converts: one job, told in events, that leaves a finished folder behind.

It alone meets frameworks, strangers' files and strangers' code. Nothing but the standard library is imported before it
is known that the rest is there, because the interpreter may be another one (`--python`). It publishes nothing.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorquay_convert import worker_process
from tensorquay_convert.errors import CommandFailed, FrameworkMissing
from tensorquay_convert.job import SourceKind
from tensorquay_convert.progress import IMPORT_SHARES, Step, Teller
from tensorquay_convert.request import Request
from tensorquay_convert.worker_process import one_sentence

if TYPE_CHECKING:
    from tensorquay_convert.api import OpenSource

_NEEDED = {"numpy": "numpy", "onnx": "onnx", "onnxruntime": "onnxruntime"}


def main(descriptor: int, parent: int) -> int:
    """See `worker_process.run`."""
    return worker_process.run(descriptor, parent, _import, name="the import", shares=IMPORT_SHARES)


def _import(plain: Mapping[str, Any], teller: Teller) -> Mapping[str, Any]:
    try:
        request = Request.from_json(plain)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CommandFailed(f"the worker got no job it can read on standard input ({one_sentence(exc)})") from exc
    return _told(request, teller)


def _told(request: Request, teller: Teller) -> Mapping[str, Any]:
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ImportError as exc:
            raise FrameworkMissing(
                f"the interpreter {sys.executable} has no {module}, which every import needs ({one_sentence(exc)})",
                remedy=f"{sys.executable} -m pip install {' '.join(_NEEDED.values())}",
            ) from exc
    from tensorquay_convert import registry  # noqa: PLC0415 - needs the packages looked for above

    job = request.job
    if job.kind in {None, SourceKind.TORCH_FACTORY, SourceKind.JAX_FACTORY}:
        # package.module:factory is looked for where the user stands, after everything that is installed.
        sys.path.append(str(Path.cwd()))
    kind = job.kind or registry.factory_kind(job.source)
    teller.step(Step.OPEN, f"opening {request.given}")
    source: OpenSource | None = None
    try:
        source = registry.converter_for(kind).open(job, kind, teller.say)
        from tensorquay_convert.convert import convert  # noqa: PLC0415 - idem

        return convert(source, request, teller)
    except ModuleNotFoundError as exc:
        traceback.print_exc()
        raise registry.missing(kind, exc) from exc
    finally:
        if source is not None:
            source.close()
