"""Picture files → arrays as a model's image input wants them. Pure but for reading the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tensorquay_client.casting import cast
from tensorquay_client.errors import InvalidArgument
from tensorquay_client.messages import TensorMetadata
from tensorquay_client.tensors import Array, Tensor

if TYPE_CHECKING:
    from PIL import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FLOATS = ("FP16", "BF16", "FP32", "FP64")


@dataclass(frozen=True, slots=True)
class Layout:
    """What the axes of an image input are. `height` and `width` -1: those of the picture."""

    channels: int
    height: int
    width: int
    channels_first: bool
    batched: bool


def layout_of(spec: TensorMetadata) -> Layout | None:
    """The axes of `spec` if it takes images: [N,C,H,W], [N,H,W,C] or without N, C one of 1, 3, 4; else None."""
    batched = len(spec.shape) == 4
    if len(spec.shape) not in (3, 4) or spec.datatype in ("BYTES", "BOOL"):
        return None
    if batched and spec.shape[0] not in (-1, 1):
        return None
    axes = spec.shape[-3:]
    if axes[0] in _MODES:
        return Layout(axes[0], axes[1], axes[2], channels_first=True, batched=batched)
    if axes[2] in _MODES:
        return Layout(axes[2], axes[0], axes[1], channels_first=False, batched=batched)
    return None


def image_tensor(
    paths: Sequence[Path], spec: TensorMetadata, *, darkest: float, brightest: float, invert: bool
) -> Tensor:
    """The pictures as one tensor for `spec`, a row each.

    Args: darkest, brightest: the values that black and white become. invert: swap black and white first.
    Raises: InvalidArgument if the input takes no images or not that many, or a file is no picture.
    """
    layout = layout_of(spec)
    if layout is None:
        raise InvalidArgument(
            f"input '{spec.name}' {spec.datatype} {list(spec.shape)} takes no images: expected [N,C,H,W] or [N,H,W,C] "
            "with 1, 3 or 4 channels; send an array with --input"
        )
    if len(paths) > 1 and (not layout.batched or spec.shape[0] == 1):
        raise InvalidArgument(f"input '{spec.name}' {list(spec.shape)} takes one image at a time, got {len(paths)}")
    pixels = [_pixels(path, layout) for path in paths]
    if len({array.shape for array in pixels}) > 1:
        raise InvalidArgument(f"input '{spec.name}' takes images of any size, but all of one request must be equal")
    rows = np.stack(pixels).astype(np.float64) / 255.0
    values = darkest + (1.0 - rows if invert else rows) * (brightest - darkest)
    if spec.datatype not in _FLOATS:
        values = np.rint(values)
    return cast(spec.name, values if layout.batched else values[0], spec.datatype)


def value_range(text: str) -> tuple[float, float]:
    """ "0..16" or "0,16" as two numbers.

    Raises: ValueError if it is neither.
    """
    low, separator, high = text.partition(".." if ".." in text else ",")
    result = (float(low), float(high) if separator else float("nan"))
    if not np.isfinite(result).all() or result[0] == result[1]:
        raise ValueError(f"'{text}' is no range: expected LOW..HIGH, such as 0..1 or -1..1")
    return result


def default_range(spec: TensorMetadata) -> tuple[float, float]:
    """What nobody said: 0..1 for floats, 0..255 for integers."""
    return (0.0, 1.0) if spec.datatype in _FLOATS else (0.0, 255.0)


def _pixels(path: Path, layout: Layout) -> Array:
    """One picture, uint8, axes as in `layout`."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - only pictures need it

    try:
        with Image.open(path) as opened:
            image = _flat(ImageOps.exif_transpose(opened), layout.channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise InvalidArgument(f"'{path}' cannot be read as a picture: {exc}") from exc
    width, height = (
        wanted if wanted > 0 else own for wanted, own in zip((layout.width, layout.height), image.size, strict=True)
    )
    if (width, height) != image.size:
        shrinks = width <= image.size[0] and height <= image.size[1]
        # Averaging keeps thin strokes that sampling would lose; it cannot invent pixels, so growing interpolates.
        image = image.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    array = np.asarray(image).reshape(height, width, layout.channels)
    return np.moveaxis(array, 2, 0) if layout.channels_first else array


def _flat(image: Image.Image, channels: int) -> Image.Image:
    """`image` in the mode of that many channels: 16 bits reduced to 8, transparency laid on white."""
    from PIL import Image as Images  # noqa: PLC0415

    if image.mode.startswith("I"):
        image = Images.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if channels != 4 and image.has_transparency_data:
        paper = Images.new("RGBA", image.size, "white")
        image = Images.alpha_composite(paper, image.convert("RGBA"))
    return image.convert(_MODES[channels])
