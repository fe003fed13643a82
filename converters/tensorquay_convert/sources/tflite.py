"""TFLite files, float and quantized, run by TensorFlow's own interpreter and converted by tf2onnx.

A file may hold any TensorFlow operator ("Flex"), which the interpreter would run: operators are read and refused
first. Most files are fixed at batch 1; the interpreter resizes, and where rows stay the same the batch is dynamic.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tensorquay_convert.api import Exported, OpenSource, Say, SourceFacts
from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import tensorflow_batch, tensorflow_export, tensorflow_graph
from tensorquay_convert.sources.tensorflow_axes import Port, settle
from tensorquay_convert.sources.tensorflow_ops import is_text_operator, reach_of
from tensorquay_convert.sources.tensorflow_source import layout_notes
from tensorquay_convert.tensors import DTYPES, Arrays

_DEFAULT = "serving_default"
_IDENTIFIER = b"TFL3"
_FLEX = "Flex"
_UNREADABLE = (struct.error, ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError, AttributeError)
_QUANTIZED = (
    "the file is quantized: TFLite rounds after every operator, so single answers may be off by a few steps of the "
    "output's scale; if the proof says so, judge by top-1 agreement and set --atol to two or three steps"
)


@dataclass(frozen=True, slots=True)
class _Ends:
    """One signature's inputs and outputs (ports name the file's tensors), and their numbers in the interpreter."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    numbers: Mapping[str, int]
    notes: tuple[str, ...]


class TfliteConverter:
    """Opens `.tflite` files."""

    kinds = (SourceKind.TFLITE,)
    extra = "tensorflow"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `Converter`."""
        path = Path(job.source)
        tensorflow = tensorflow_graph.load_tensorflow(kind)
        say("reading the TFLite file")
        content = _read(path)
        with tensorflow_graph.quiet():
            operators = _operators(content, path)
            _refuse(operators, path)
            interpreter = _interpreter(tensorflow, content, operators, path)
            return TfliteSource(job, path, interpreter, _ends(interpreter, job.signature, path), len(operators))


class TfliteSource:
    """An OpenSource over a TFLite interpreter.

    Raises: Unsupported when the batch axis is fixed and cannot be freed, and `job` does not say `static`.
    """

    def __init__(self, job: ImportJob, path: Path, interpreter: Any, ends: _Ends, operators: int) -> None:
        self._job, self._path, self._interpreter, self._numbers = job, path, interpreter, ends.numbers
        what = f"the TFLite file '{path.name}'"
        tried = tensorflow_graph.attempt(self.run)
        quantized = any(each["quantization"][0] for each in interpreter.get_tensor_details())
        self._inputs, self._outputs = ends.inputs, ends.outputs
        frozen = tensorflow_batch.chosen(tensorflow_graph.Frozen(None, ends.inputs, ends.outputs), job)
        wanted, batch = tensorflow_batch.wanted_shapes(job, frozen, what)
        if batch is not None:
            problem = tensorflow_batch.rows_mix(frozen.inputs, batch, tried, tried)
            if problem:
                raise tensorflow_batch.not_free(what, batch, problem)
        self._inputs = tuple(replace(each, shape=tuple(wanted[each.name])) for each in frozen.inputs)
        self._outputs = frozen.outputs
        interface, unsure = settle(self._inputs, self._outputs, tensorflow_batch.axis_names(job), tried)
        freed = () if batch is None else (tensorflow_batch.freed_note(batch),)
        self._facts = SourceFacts(
            kind=SourceKind.TFLITE,
            shown=f"a {'quantized ' if quantized else ''}TFLite model, {operators} operators, "
            f"{tensorflow_graph.counted(frozen, None)}",
            interface=interface,
            files=(path,),
            versions=tensorflow_graph.versions(),
            notes=(
                *ends.notes,
                *freed,
                *unsure,
                *((_QUANTIZED,) if quantized else ()),
                *layout_notes(interface.inputs),
            ),
        )

    @property
    def facts(self) -> SourceFacts:
        """See `OpenSource`."""
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        """See `OpenSource`. The interpreter is resized to what comes."""
        for each in self._inputs:
            self._interpreter.resize_tensor_input(self._numbers[each.name], inputs[each.name].shape)
        self._interpreter.allocate_tensors()
        for each in self._inputs:
            self._interpreter.set_tensor(self._numbers[each.name], inputs[each.name])
        self._interpreter.invoke()
        # `get_tensor` copies; a view would pin the interpreter's memory.
        return {each.name: np.asarray(self._interpreter.get_tensor(self._numbers[each.name])) for each in self._outputs}

    def export(self, target: Path, say: Say) -> Exported:
        """See `OpenSource`. Quantization is kept, as pairs of QuantizeLinear and DequantizeLinear."""
        opset = tensorflow_export.opset_of(self._job.opset)
        size = self._path.stat().st_size
        say(f"converting with tf2onnx, opset {opset}")
        wanted = tensorflow_export.Wanted(
            arguments={
                "tflite_path": str(self._path),
                "input_names": [each.tensor for each in self._inputs],
                "output_names": [each.tensor for each in self._outputs],
            },
            renamed={each.tensor: each.name for each in (*self._inputs, *self._outputs)},
            weights_bytes=size,
            what=self._facts.shown,
        )
        with tensorflow_graph.quiet():
            model = tensorflow_export.convert(None, wanted, opset)
            tensorflow_export.write(model, self._facts.interface, target, size)
        return tensorflow_export.exported(opset)

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:  # noqa: ARG002
        """Nothing: the interpreter reuses the memory of tensors between operators."""
        return {}

    def close(self) -> None:
        """See `OpenSource`."""
        self._interpreter = None


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadSource(f"'{path.name}' cannot be read ({error.strerror})") from error
    if content[4:8] != _IDENTIFIER:
        raise BadSource(f"'{path.name}' is no TFLite file: it does not say TFL3 in bytes 4 to 7")
    return content


def _damaged(path: Path, error: Exception) -> BadSource:
    return BadSource(
        f"'{path.name}' is damaged or cut off ({' '.join(str(error).split())[:200]})", remedy="copy or convert it again"
    )


def _operators(content: bytes, path: Path) -> list[str]:
    """Every operator of the file by name, read from its tables alone."""
    from tf2onnx.tflite.Model import Model  # noqa: PLC0415
    from tf2onnx.tflite_utils import lookup_enum  # noqa: PLC0415

    try:
        model = Model.GetRootAsModel(bytearray(content), 0)
        codes = []
        for index in range(model.OperatorCodesLength()):
            code = model.OperatorCodes(index)
            # Operators above 127 have their number in a second field, under a first that says so.
            number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
            name = lookup_enum(number, "BuiltinOperator")
            codes.append(code.CustomCode().decode() if name == "CUSTOM" else name)
        return [
            codes[graph.Operators(index).OpcodeIndex()]
            for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
            for index in range(graph.OperatorsLength())
        ]
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _refuse(operators: Sequence[str], path: Path) -> None:
    for operator in operators:
        plain = operator.removeprefix(_FLEX)
        why = reach_of(plain)
        if why:
            raise BadSource(
                f"the TFLite file '{path.name}' has an operator that {why}: {operator}; it is not loaded",
                remedy="convert the model again without it; Tensorquay never runs such operators",
                facts={"operator": operator},
            )
        if is_text_operator(plain) or operator.startswith("HASHTABLE"):
            raise Unsupported(
                f"the TFLite file '{path.name}' works on texts or tables, which have no ONNX: {operator}, "
                f"{operators.count(operator)} nodes",
                remedy="convert the part of the model that takes numbers, and do the rest in the client",
                facts={"operator": operator},
            )


def _interpreter(tensorflow: Any, content: bytes, operators: Sequence[str], path: Path) -> Any:
    try:
        interpreter = tensorflow.lite.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, TypeError) as error:
        # TensorFlow's interpreter has no Flex in every build; what it lacks it only tells in prose.
        flex = sorted({each for each in operators if each.startswith(_FLEX)})
        if flex or "custom op" in str(error) or "unresolved" in str(error):
            named = ", ".join(flex) or " ".join(str(error).split())[:200]
            raise Unsupported(
                f"the TFLite interpreter cannot run what '{path.name}' needs: {named}",
                remedy="convert the model again with built-in operators only, or import what it was made from",
                facts={"operator": flex[0] if flex else None},
            ) from error
        raise _damaged(path, error) from error
    return interpreter


def _ends(interpreter: Any, asked: str, path: Path) -> _Ends:
    """The signature's inputs and outputs; a file without signatures has its tensors' own names."""
    entered = {each["index"]: each for each in interpreter.get_input_details()}
    left = {each["index"]: each for each in interpreter.get_output_details()}
    signatures = interpreter.get_signature_list()
    notes: tuple[str, ...] = ()
    if not signatures:
        if asked:
            raise BadSource(
                f"'{path.name}' has no signatures, so none called '{asked}'", remedy="leave --signature out"
            )
        inputs = {each["name"].removesuffix(":0"): each for each in entered.values()}
        outputs = {each["name"].removesuffix(":0"): each for each in left.values()}
    else:
        chosen = asked or (_DEFAULT if _DEFAULT in signatures else next(iter(signatures)))
        if chosen not in signatures or (not asked and chosen != _DEFAULT and len(signatures) > 1):
            there = ", ".join(f"'{name}'" for name in signatures)
            lacks = f"no signature '{asked}'" if asked else "several signatures"
            raise BadSource(
                f"'{path.name}' has {lacks}; there are {there}",
                remedy="name one of them with --signature",
                facts={"signature": asked},
            )
        runner = interpreter.get_signature_runner(chosen)
        inputs, outputs = dict(runner.get_input_details()), dict(runner.get_output_details())
        indices = {each["index"] for each in inputs.values()}, {each["index"] for each in outputs.values()}
        if not (indices[0] <= entered.keys() and indices[1] <= left.keys()):
            raise Unsupported(
                f"signature '{chosen}' of '{path.name}' is not the file's main graph, the only one tf2onnx converts",
                remedy="convert a file that has this signature only",
            )
        if len(signatures) > 1:
            others = ", ".join(name for name in signatures if name != chosen)
            notes = (f"signature '{chosen}' was chosen; also there: {others}",)
    numbers = {name: each["index"] for name, each in [*inputs.items(), *outputs.items()]}
    return _Ends(_ports(inputs, path), _ports(outputs, path), numbers, notes)


def _ports(details: Mapping[str, Any], path: Path) -> tuple[Port, ...]:
    ports = []
    for name, each in details.items():
        dtype = np.dtype(each["dtype"]).name
        if dtype not in DTYPES:
            raise Unsupported(f"'{path.name}' has tensor '{name}' of dtype {dtype}, which has no ONNX")
        signature = each["shape_signature"] if len(each["shape_signature"]) else each["shape"]
        shape = tuple(None if size < 0 else int(size) for size in signature)
        ports.append(Port(name, dtype, shape, tensor=each["name"]))
    return tuple(ports)
