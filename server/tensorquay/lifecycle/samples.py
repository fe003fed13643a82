"""Make the tensors of warm-up runs: those a configuration describes, and zeros for the rest.

Pure apart from reading warm-up files. Sizes are checked before anything is allocated: a configuration that asks for
2^40 elements is refused, not tried.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tensorquay.config.model import WarmupData, WarmupInput, WarmupSample
from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.core.tensors import Tensor, element_count, from_buffer
from tensorquay.repository.files import UnusableFile, read_inside

MAX_SAMPLE_BYTES = 1 << 30
"""Most bytes of one configured sample."""

MAX_STRINGS = 1 << 20
"""Most BYTES elements of one configured sample: each is a Python object."""

_SEED = 20_250_101
"""Random warm-up data is the same at every load."""


def configured(sample: WarmupSample, signature: Signature, folder: Path) -> list[Tensor]:
    """The inputs of `sample`.

    Args: folder: the model's folder; files are in its `warmup/`.
    Raises: ModelFailed naming sample and input when it does not fit the signature, is too large, or its file is bad.
    """
    where = f"model_warmup '{sample.name}'"
    if signature.batches and not 1 <= sample.batch_size <= signature.max_batch_size:
        raise ModelFailed(
            f"{where}: batch_size: expected 1 to {signature.max_batch_size} (max_batch_size), got {sample.batch_size}"
        )
    if not signature.batches and sample.batch_size > 1:
        raise ModelFailed(f"{where}: batch_size: expected 0 or 1, the model does not batch, got {sample.batch_size}")
    lead = (sample.batch_size,) if signature.batches else ()
    total = 0
    tensors: list[Tensor] = []
    random = np.random.default_rng(_SEED)
    for name, given in sample.inputs.items():
        try:
            count = element_count(name, (*lead, *given.dims))
        except InvalidArgument as exc:
            raise ModelFailed(f"{where}: {exc.message}") from exc
        strings = given.datatype is DataType.BYTES
        total += count * (given.datatype.item_bytes or 8)
        if total > MAX_SAMPLE_BYTES or (strings and count > MAX_STRINGS):
            raise ModelFailed(
                f"{where}: input '{name}' makes it larger than a warm-up may be ({MAX_SAMPLE_BYTES} bytes)"
            )
        shape = (*lead, *given.dims)
        match given.data:
            case WarmupData.ZERO:
                array = _zeros(given.datatype, shape)
            case WarmupData.RANDOM:
                array = _random(given.datatype, shape, random)
            case WarmupData.FILE:
                one = _from_file(where, name, given, folder)
                # Triton's rule: the file holds one batch element, the same for the whole batch.
                array = np.ascontiguousarray(np.broadcast_to(one, shape))
        tensors.append(Tensor(name, given.datatype, array))
    return tensors


def check_files(sample: WarmupSample, folder: Path) -> None:
    """Read the files of `sample` as a load will.

    Args: folder: the model's folder; files are in its `warmup/`.
    Raises: ModelFailed naming sample, input and file when one is not there or does not hold what the sample says.
    """
    for name, given in sample.inputs.items():
        if given.data is WarmupData.FILE:
            _from_file(f"model_warmup '{sample.name}'", name, given, folder)


def zeros(signature: Signature, rows: int, variable: int) -> list[Tensor]:
    """Zeros for every required input: `rows` batch elements (when it batches), `variable` for each unknown size."""
    return [
        Tensor(spec.name, spec.datatype, _zeros(spec.datatype, shape_of(spec, signature, rows, variable)))
        for spec in signature.inputs
        if not spec.optional
    ]


def shape_of(spec: TensorSpec, signature: Signature, rows: int, variable: int) -> tuple[int, ...]:
    """A concrete wire shape for `spec`."""
    shape = [variable if size < 0 else size for size in spec.shape]
    if signature.batches:
        shape[0] = rows
    return tuple(shape)


def zeros_bytes(signature: Signature, rows: int, variable: int) -> int:
    """What `zeros` would allocate, in bytes, without doing so."""
    total = 0
    for spec in signature.inputs:
        count = 1
        for size in shape_of(spec, signature, rows, variable):
            count *= size
        total += count * (spec.datatype.item_bytes or 8)
    return total


def has_variable_axes(signature: Signature) -> bool:
    """Whether the cost of a run depends on more than its rows."""
    skip = 1 if signature.batches else 0
    return any(size < 0 for spec in signature.inputs for size in spec.shape[skip:])


def _zeros(datatype: DataType, shape: tuple[int, ...]) -> Array:
    if datatype is DataType.BYTES:
        array = np.empty(shape, dtype=np.object_)
        array.fill(b"")
        return array
    return np.zeros(shape, dtype=datatype.numpy)


def _random(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if datatype is DataType.BYTES:
        array = np.empty(shape, dtype=np.object_)
        flat = array.reshape(-1)
        for index, number in enumerate(random.integers(0, 2**32, size=flat.size)):
            flat[index] = b"%08x" % int(number)
        return array
    if datatype is DataType.BF16:
        # The upper half of a float32 is the bfloat16 of it.
        return (random.random(shape, dtype=np.float32).view(np.uint32) >> 16).astype(datatype.numpy)
    if datatype.is_float:
        return random.random(shape).astype(datatype.numpy)
    # Small and not negative: such numbers are often indices into a table.
    return random.integers(0, 2, size=shape).astype(datatype.numpy)


def _from_file(where: str, name: str, given: WarmupInput, folder: Path) -> Array:
    if "/" in given.file or "\\" in given.file or "\x00" in given.file or given.file in {"", ".", ".."}:
        raise ModelFailed(f"{where}: input '{name}': '{given.file[:64]}' is not the name of a file in 'warmup/'")
    try:
        data = read_inside(folder / "warmup" / given.file, f"warmup/{given.file}", folder.resolve(), MAX_SAMPLE_BYTES)
        return from_buffer(name, given.datatype, given.dims, data).array
    except UnusableFile as exc:
        raise ModelFailed(f"{where}: input '{name}': {exc}") from exc
    except InvalidArgument as exc:
        raise ModelFailed(f"{where}: 'warmup/{given.file}': {exc.message}") from exc
