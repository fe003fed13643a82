"""The ONNX Runtime backend: inspects ONNX files and makes sessions of them.

Owns the runtime module and a small memory of inspections, so that a file inspected and then loaded is parsed once.
Thread-safe. Never lets a provider fall back silently (`providers.py`), never reads outside a model's folder
(`external_data.py`).
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

from tensorquay.backends.api import GraphSignature, LoadRequest, Placement, RuntimeFacts
from tensorquay.backends.onnxruntime import external_data, providers
from tensorquay.backends.onnxruntime.errors import clean
from tensorquay.backends.onnxruntime.exchange import Exchange
from tensorquay.backends.onnxruntime.graph import Inspection, inspect_file
from tensorquay.backends.onnxruntime.model_file import find_model
from tensorquay.backends.onnxruntime.options import Threads, plan_threads, run_options, session_options
from tensorquay.backends.onnxruntime.providers import ON_NVIDIA, Choice, Provider
from tensorquay.backends.onnxruntime.runtime import (
    CPU,
    Machine,
    import_runtime,
    preload,
    survey,
    why_not_attached,
)
from tensorquay.backends.onnxruntime.session import Native, OnnxSession
from tensorquay.config.model import InstanceKind
from tensorquay.core.errors import ModelFailed

_REMEMBERED = 64


class OnnxRuntimeBackend:
    """See `backends.api.Backend`.

    Args:
        runtime: the `onnxruntime` module; imported when None. Making a backend may take 0.3 s for that.
        machine: what it offers here; asked from the machine when None.
    Raises: ModelFailed when ONNX Runtime is not installed, naming what to install.
    """

    def __init__(self, runtime: ModuleType | None = None, machine: Machine | None = None) -> None:
        self._runtime = runtime if runtime is not None else import_runtime()
        self._machine = machine if machine is not None else survey(self._runtime)
        self._exchange: Exchange | None = None
        self._preloaded = False
        self._lock = threading.Lock()
        self._inspections: OrderedDict[tuple[object, ...], Inspection] = OrderedDict()

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return "onnxruntime"

    @property
    def machine(self) -> Machine:
        """Providers of this build, GPUs, installed distributions: for start-up notices and `doctor`."""
        return self._machine

    @property
    def gpus(self) -> tuple[int, ...]:
        """See `Backend.gpus`."""
        return tuple(range(self._machine.gpus))

    @property
    def no_gpu_because(self) -> str:
        """See `Backend.no_gpu_because`."""
        return providers.why_no_gpu(self._machine)

    @property
    def version(self) -> str:
        """The runtime's version."""
        return str(self._runtime.__version__)

    def facts(self) -> RuntimeFacts:
        """See `TellsFacts.facts`."""
        short = tuple(providers.short_name(name) for name in self._machine.available)
        return RuntimeFacts(self.version, short, self._machine.gpu_name)

    def inspect(self, model_path: Path) -> GraphSignature:
        """See `Backend.inspect`."""
        return self._inspect(find_model(model_path)).signature

    def load(self, request: LoadRequest) -> OnnxSession:
        """See `Backend.load`."""
        path = find_model(request.model_path)
        inspection = self._inspect(path)
        choice = providers.choose(request, self._machine)
        threads = plan_threads(request.execution, request.thread_budget)
        secrets = _secrets(path)
        session, notes = self._open(path, request, choice, threads, secrets)
        _refuse_other_signature(inspection.signature, session)
        size = _file_bytes(path, inspection)
        placement = self._placement(session, threads, (*choice.notes, *notes), size, request.device_id)
        native = Native(session, run_options(self._runtime, request.execution), self._exchanger(), secrets)
        return OnnxSession(native, inspection.signature, placement)

    def _inspect(self, path: Path) -> Inspection:
        """The file's inspection, remembered while the file stays the same; external data is checked every time."""
        try:
            info = path.stat()
            key: tuple[object, ...] = (str(path), info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
        except (OSError, ValueError):
            return inspect_file(path)  # which says in words what is wrong
        with self._lock:
            known = self._inspections.get(key)
        if known is not None:
            external_data.check(path.parent, known.external)
            return known
        found = inspect_file(path)
        with self._lock:
            self._inspections[key] = found
            while len(self._inspections) > _REMEMBERED:
                self._inspections.popitem(last=False)
        return found

    def _exchanger(self) -> Exchange:
        with self._lock:
            if self._exchange is None:
                self._exchange = Exchange(self._runtime)
            return self._exchange

    def _open(
        self, path: Path, request: LoadRequest, choice: Choice, threads: Threads, secrets: tuple[str, ...]
    ) -> tuple[Any, list[str]]:
        """A native session with the providers of `choice`, or with the CPU alone and a note where that is allowed."""
        if any(provider.name in ON_NVIDIA for provider in choice.providers):
            with self._lock:
                if not self._preloaded:
                    preload(self._runtime)
                    self._preloaded = True
        only_cpu = Choice(tuple(provider for provider in choice.providers if provider.name == CPU))
        alone = len(only_cpu.providers) == len(choice.providers)
        options = session_options(self._runtime, request, threads)
        try:
            session = self._native(path, options, choice.providers)
        except Exception as exc:
            trouble = clean(str(exc), secrets)
            if alone or not request.execution.allow_fallback:
                raise ModelFailed(f"ONNX Runtime cannot load '{path.name}': {trouble}") from exc
            asked = ", ".join(providers.short_name(p.name) for p in choice.providers if p.name != CPU)
            note = f"execution provider {asked} failed ({trouble}); fell back to the CPU, as the configuration allows"
            options = session_options(self._runtime, request, threads)
            try:
                return self._native(path, options, only_cpu.providers), [note]
            except Exception as again:
                raise ModelFailed(f"ONNX Runtime cannot load '{path.name}': {clean(str(again), secrets)}") from again
        notes = []
        for name in providers.missing(choice, session.get_providers()):
            cause = why_not_attached(self._runtime, name, self._machine)
            trouble = f"execution provider '{providers.short_name(name)}' was asked for and did not attach: {cause}"
            if not request.execution.allow_fallback:
                raise providers.refusal(trouble)
            notes.append(f"{trouble}; fell back, as the configuration allows")
        return session, notes

    def _native(self, path: Path, options: Any, wanted: tuple[Provider, ...]) -> Any:
        session = self._runtime.InferenceSession(
            str(path),
            options,
            providers=[(provider.name, dict(provider.options)) for provider in wanted],
            enable_fallback=0,
            # A model file must not set options of the process that serves it.
            read_config_from_model=0,
        )
        session.disable_fallback()
        return session

    def _placement(
        self, session: Any, threads: Threads, notes: tuple[str, ...], file_bytes: int, device_id: int
    ) -> Placement:
        nodes = _count_nodes(session)
        attached = tuple(session.get_providers())
        for name in attached:
            if name != CPU and nodes and not nodes.get(name):
                notes += (f"{providers.short_name(name)} attached and took none of the {sum(nodes.values())} nodes",)
        if len(self._machine.wheels) > 1:
            notes += (f"{' and '.join(self._machine.wheels)} are both installed and overwrite each other: keep one",)
        kind = InstanceKind.GPU if ON_NVIDIA.intersection(attached) else InstanceKind.CPU
        gpu = device_id if kind is InstanceKind.GPU else None
        return Placement(attached, threads.intra_op, threads.inter_op, nodes, notes, kind, file_bytes, gpu)


def _count_nodes(session: Any) -> dict[str, int]:
    """Nodes per provider as assigned after basic optimisation; empty for runtimes that cannot say (before 1.24)."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return {}
    counts: Counter[str] = Counter()
    try:
        for part in ask():
            counts[str(part.ep_name)] += len(part.get_nodes())
    except Exception:  # noqa: BLE001 - the runtime's errors share no base class; not knowing is a valid answer here
        return {}
    return dict(counts)


def _file_bytes(path: Path, inspection: Inspection) -> int:
    """The model file and the files its weights are in."""
    try:
        size = path.stat().st_size
    except OSError as exc:
        raise ModelFailed(f"'{path.name}' went away while it was being loaded: {exc.strerror}") from exc
    return size + external_data.check(path.parent, inspection.external)


def _refuse_other_signature(expected: GraphSignature, session: Any) -> None:
    """A file swapped between inspection and load must not be served under the other's signature."""
    given = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    named = {spec.name for spec in expected.inputs}
    outputs = [value.name for value in session.get_outputs()]
    if not named <= given or outputs != [spec.name for spec in expected.outputs]:
        raise ModelFailed("the model file changed while it was being loaded: its inputs or outputs are not the same")


def _secrets(path: Path) -> tuple[str, ...]:
    """Folder names to cut out of texts, the longest first."""
    folders = {str(path.parent), str(path.parent.absolute()), os.path.realpath(path.parent)}
    return tuple(sorted((f"{folder}/" for folder in folders if folder not in {"", ".", "/"}), key=len, reverse=True))
