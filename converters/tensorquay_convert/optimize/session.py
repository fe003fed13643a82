"""An ONNX Runtime session as the server makes it for the same settings: what is measured is what will serve.

Options and providers are the server's (`backends/onnxruntime/options.py`, `providers.py`), which this package does not
import; a test compares the two. No silent fallback: a provider that does not attach fails, with cause and remedy.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.proof.values import BFLOAT16, bits, is_tensor, texts_in, texts_out, value
from tensorquay_convert.surroundings import usable_cpus
from tensorquay_convert.tensors import Array, Arrays

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
PROVIDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"cpu": (CPU,), "cuda": (CUDA, CPU), "tensorrt": (TENSORRT, CUDA, CPU)}
)
"""What settings say → ONNX Runtime's names in order of preference. What TensorRT cannot run belongs on the same GPU."""

_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_MAX_THREADS = 1024
_FATAL = 4
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
_NAMES_FILES = ("path", "file", "folder", "directory")
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE = re.compile(r"[^\s'\"()]{0,512}\b[\w.-]{1,128}\.(?:cc|cpp|cxx|cu|cuh|h|hpp):\d{1,7},? ?")
_SIGNATURE = re.compile(r"^[^()]{0,500}::[^()]{0,500}\([^()]{0,1000}\)(?: const)? ?")
_FAILED_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ")
_LOADING = re.compile(r"^Load model from \S{1,255} (?:failed: ?)?")
_ADVICE = "Please fix either the inputs/outputs or the model."
_MAX_TEXT = 400


class DoesNotRun(BadSource):
    """ONNX Runtime does not load or run the model. `node` and `operator`: where, as far as it says; else empty."""

    def __init__(self, sentence: str, *, node: str = "", operator: str = "", remedy: str = "") -> None:
        self.node, self.operator = node, operator
        super().__init__(sentence, remedy=remedy)


class Opened:
    """One loaded model; made by `open_session`. Not for several threads.

    `load_seconds` is what making the session took, its graph optimizations included.
    """

    def __init__(self, session: Any, load_seconds: float, folder: Path) -> None:
        self.load_seconds = load_seconds
        self._session: Any | None = session
        self._folder = folder
        self._outputs = {each.name: str(each.type) for each in session.get_outputs()}
        self._inputs = {each.name: str(each.type) for each in session.get_inputs()}
        self._inputs |= {each.name: str(each.type) for each in session.get_overridable_initializers()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, in the graph's order."""
        return tuple(self._outputs)

    @property
    def bfloat16(self) -> frozenset[str]:
        """Outputs whose arrays hold bfloat16 bits."""
        return frozenset(name for name, kind in self._outputs.items() if kind == BFLOAT16)

    @property
    def providers(self) -> tuple[str, ...]:
        """The attached providers by ONNX Runtime's names, the preferred first."""
        return tuple(self._open().get_providers())

    @property
    def nodes(self) -> Mapping[str, int]:
        """Nodes by provider as assigned after basic optimisation; empty where the runtime cannot say (before 1.24)."""
        ask = getattr(self._open(), "get_provider_graph_assignment_info", None)
        if ask is None:
            return {}
        counts: Counter[str] = Counter()
        try:
            for part in ask():
                counts[str(part.ep_name)] += len(part.get_nodes())
        except Exception:  # noqa: BLE001 - the runtime's errors share no base class; not knowing is a valid answer here
            return {}
        return dict(counts)

    def run(self, inputs: Arrays) -> Arrays:
        """All outputs, for those of `inputs` that the model has.

        Texts are `bytes` in arrays of object, bfloat16 is uint16 bits; values that are no tensors are left out.
        Raises: DoesNotRun.
        """
        names, call = list(self._outputs), self._call(inputs)
        try:
            found = call()
            if self._by_values(inputs):
                found = [bits(each) for each in found]
        except Exception as exc:
            raise self._failed(exc) from exc
        return {name: texts_out(each) for name, each in zip(names, found, strict=True) if is_tensor(each)}

    def prepared(self, inputs: Arrays) -> Callable[[], None]:
        """A call that runs once with `inputs` and does nothing else, for timing; it has run once already.

        It enters ONNX Runtime where the server does, with arrays in main memory and outputs in main memory when it
        returns: on a GPU both copies are inside, as a request pays for them. (With `IOBinding` the inputs would be
        copied when they are bound, outside of what is timed.)
        Raises: DoesNotRun, from here only: what the call raises is the runtime's own.
        """
        call = self._call(inputs)
        try:
            call()
        except Exception as exc:
            raise self._failed(exc) from exc
        return call

    def end_trace(self) -> Path:
        """Finish what was begun with `open_session(…, trace=…)`: the file, in Chrome's trace format."""
        return Path(self._open().end_profiling())

    def close(self) -> None:
        """Give its memory back, once what `prepared` made is gone as well."""
        self._session = None

    def _call(self, inputs: Arrays) -> Callable[[], Any]:
        session, names = self._open(), list(self._outputs)
        # "all" would be what an empty list means.
        fed = {name: each for name, each in inputs.items() if name in self._inputs}
        if self._by_values(inputs):
            values = {name: value(each, self._inputs[name]) for name, each in fed.items()}
            return lambda: session.run_with_ort_values(names, values)
        arrays = {name: _usable(texts_in(each)) for name, each in fed.items()}
        missing = [each.name for each in session.get_inputs() if each.name not in arrays]
        if missing:
            raise DoesNotRun(f"the model has an input '{missing[0]}' and the samples have none of that name")
        # The binding under the public method, as the server calls it: the wrapper costs 1.2 us of a 6 us call.
        run = getattr(getattr(session, "_sess", None), "run", session.run)
        return lambda: run(names, arrays, None)

    def _by_values(self, inputs: Arrays) -> bool:
        """Whether bfloat16 goes in or comes out, which no array can hold."""
        return BFLOAT16 in self._outputs.values() or any(self._inputs.get(name) == BFLOAT16 for name in inputs)

    def _open(self) -> Any:
        assert self._session is not None, "used after close"
        return self._session

    def _failed(self, exc: Exception) -> DoesNotRun:
        found = _FAILED_NODE.search(str(exc))
        return DoesNotRun(
            f"ONNX Runtime does not run the model: {clean(str(exc), self._folder)}",
            node="" if found is None else found[2],
            operator="" if found is None else found[1],
        )


def open_session(model: Path, settings: Settings, *, trace: Path | None = None) -> Opened:
    """Load `model` as a server with these settings does.

    Args: trace: how the name of a file begins that the runtime's own profiling writes; see `Opened.end_trace`.
    Raises: Unsupported when a provider cannot be had here; BadSource for settings that no server takes;
        DoesNotRun with the runtime's reason.
    """
    wanted = _providers(settings)
    options = session_options(settings)
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    begun = time.perf_counter()
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=wanted, enable_fallback=0,
            # As the server: a model file must not set options of the process that serves it.
            read_config_from_model=0,
        )  # fmt: skip
    except Exception as exc:
        raise DoesNotRun(f"ONNX Runtime does not load the model: {clean(str(exc), model.parent)}") from exc
    session.disable_fallback()
    seconds = time.perf_counter() - begun
    for name, _ in wanted:
        if name not in session.get_providers():
            libraries = "CUDA, cuDNN and TensorRT" if name == TENSORRT else "CUDA and cuDNN"
            raise _unavailable(
                name,
                "it is in this build of ONNX Runtime and did not attach",
                "this process has to see an NVIDIA GPU (driver, container, CUDA_VISIBLE_DEVICES), and "
                f"{libraries} have to be of the versions that this build needs",
            )
    return Opened(session, seconds, model.parent)


def session_options(settings: Settings) -> Any:
    """An `onnxruntime.SessionOptions` like the server's. Raises: BadSource naming the setting that is wrong."""
    intra = settings.intra_op_threads or usable_cpus()
    inter = (settings.inter_op_threads or usable_cpus()) if settings.parallel else 1
    for field, threads in (("intra_op_threads", intra), ("inter_op_threads", inter)):
        if not 1 <= threads <= _MAX_THREADS:
            raise BadSource(f"{field} is {threads}, expected 1 to {_MAX_THREADS}")
    level = _LEVELS.get(settings.graph_optimization)
    if level is None:
        raise BadSource(f"graph_optimization is '{settings.graph_optimization}', expected {', '.join(_LEVELS)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = intra
    options.inter_op_num_threads = inter
    if settings.parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    spin = "1" if settings.spinning else "0"
    entries = {"session.intra_op.allow_spinning": spin, "session.inter_op.allow_spinning": spin}
    for key, text in {**entries, **settings.session_options, _RECORD_PLACEMENT: "1"}.items():
        if any(word in key.lower() for word in _NAMES_FILES):
            raise BadSource(f"session option '{key}' names files; a server takes none of those from a configuration")
        try:
            options.add_session_config_entry(key, text)
        except (RuntimeError, TypeError) as exc:
            raise BadSource(f"session option '{key[:120]}' was refused: too long, or not text") from exc
    return options


def clean(raw: str, folder: Path) -> str:
    """The part of an ONNX Runtime message that helps its reader: on one line, no paths, at most 400 characters.

    Args: folder: whose name is cut out. Nodes have names that look like paths, so that only this one can be.
    """
    text = " ".join(raw[:8192].replace(_ADVICE, "").split())
    for prefix in sorted({f"{folder}/", f"{folder.absolute()}/", f"{folder.resolve()}/"}, key=len, reverse=True):
        if prefix not in {"/", "./"}:
            text = text.replace(prefix, "")
    text = _FAILED_NODE.sub(r"\1 node '\2': ", _STATUS.sub("", text))
    while (found := _SOURCE.search(text)) is not None:
        rest = _SIGNATURE.sub("", text[found.end() :])
        _, was_false, meant = rest.partition(" was false. ")
        text = text[: found.start()] + (meant if was_false and meant.strip() else rest)
    text = _LOADING.sub("", text.strip())
    return (text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…") or "the runtime gave no reason"


def _providers(settings: Settings) -> list[tuple[str, dict[str, str]]]:
    """Names and options in order. Raises: Unsupported, BadSource."""
    names = PROVIDERS.get(settings.provider)
    if names is None:
        raise BadSource(f"the provider is '{settings.provider}', expected {', '.join(PROVIDERS)}")
    if CUDA in names:
        _preload()
    available = onnxruntime.get_available_providers()
    for name in names:
        if name not in available:
            has = ", ".join(_short(each) for each in available)
            raise _unavailable(
                name,
                f"it is not in this build of ONNX Runtime, which has {has}",
                "install the GPU build: pip uninstall onnxruntime; pip install 'tensorquay[gpu]'",
            )
    own = dict(settings.provider_options)
    device = {"device_id": own.get("device_id", "0")}
    options = {names[0]: own if names[0] == CPU else {**device, **own}}
    return [(name, options.get(name, {} if name == CPU else device)) for name in names]


def _unavailable(name: str, cause: str, remedy: str) -> Unsupported:
    short = _short(name)
    return Unsupported(
        f"execution provider '{short}' cannot be had here: {cause}", remedy=remedy, facts={"provider": short}
    )


def _short(name: str) -> str:
    known = {CPU: "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}
    return known.get(name, name)


def _preload() -> None:
    """Load the CUDA libraries that come as Python packages, so that the provider finds them."""
    loader = getattr(onnxruntime, "preload_dlls", None)
    if loader is not None:
        # It prints its troubles; that a library is missing shows when the provider does not attach.
        with contextlib.redirect_stdout(io.StringIO()):
            loader()


def _usable(array: Array) -> Array:
    return np.require(array, requirements=["C", "A"]) if array.dtype.kind != "O" else array
