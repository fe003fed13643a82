"""Inputs that once broke their target, kept so that they never do again. Each says what was wrong."""

from __future__ import annotations

from tests.support import graphs


def _onnx(**texts: bytes) -> bytes:
    """A graph in which texts are replaced by others of the same length."""
    data = graphs.identity("FP32", ["batch", 3]).SerializeToString()
    for old, new in texts.items():
        data = data.replace(old.encode(), new)
    return data


FOUND: dict[str, tuple[bytes, ...]] = {
    # protobuf gives texts that are not UTF-8 as bytes: an AttributeError for a name, an axis that no JSON can hold.
    "onnx": (_onnx(x=b"\xde"), _onnx(y=b"\xff"), _onnx(batch=b"bat\xe1h")),
    # Two empty groups: the library takes them, the scan that plans are made with does not.
    "proto": (b"34",),
}
