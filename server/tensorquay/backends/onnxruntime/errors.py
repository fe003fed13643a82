"""ONNX Runtime's exceptions as ours: the useful part of the text, never a path, a source line or a C++ signature."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tensorquay.core.errors import InvalidArgument, ModelFailed, ServingError

_MAX_INPUT = 8192
_MAX_TEXT = 600
_STATUS = re.compile(r"\[ONNXRuntimeError\] : (\d+) : [A-Z_]+ : ")
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ")
_SOURCE = re.compile(r"[^\s'\"()]{0,512}\b[\w.-]{1,128}\.(?:cc|cpp|cxx|cu|cuh|h|hpp):\d{1,7},? ?")
_LIBRARY = re.compile(r"(?:/[\w.+-]{1,255})+/([\w.+-]{1,255}\.so[\w.]{0,32})")
_LOADING = re.compile(r"^Load model from [^/\s]{1,255} (?:failed: ?)?")
_ADVICE = "Please fix either the inputs/outputs or the model."
_INVALID_ARGUMENT = "2"


def translate_run(exc: Exception, secrets: Sequence[str] = ()) -> ServingError:
    """What a failed run means to its caller.

    Args: secrets: texts to cut out, longest first (the model's folder).
    Returns: InvalidArgument when the runtime blames the inputs, ModelFailed otherwise.
    """
    raw = str(exc)
    text = clean(raw, secrets)
    status = _STATUS.search(raw[:_MAX_INPUT])
    blames_inputs = (status is not None and status.start() == 0 and status[1] == _INVALID_ARGUMENT) or (
        # The binding's own check, before anything native runs.
        isinstance(exc, ValueError) and raw.startswith("Required inputs")
    )
    if blames_inputs:
        return InvalidArgument(f"the model refused the inputs: {text}")
    if isinstance(exc, MemoryError):
        return ModelFailed("the model failed: not enough memory for this run")
    return ModelFailed(f"the model failed: {text}")


def clean(raw: str, secrets: Sequence[str] = ()) -> str:
    """The part of an ONNX Runtime message that helps its reader, on one line, at most 600 characters."""
    text = raw[:_MAX_INPUT]
    for secret in secrets:
        text = text.replace(secret, "")
    text = _NODE.sub(lambda match: f"{match[1]} node '{match[2]}': ", _STATUS.sub("", text))
    text = _without_sources(text)
    text = _LIBRARY.sub(r"\1", text).replace(_ADVICE, "")
    text = _LOADING.sub("", " ".join(text.split()))
    if len(text) > _MAX_TEXT:
        text = text[: _MAX_TEXT - 1] + "…"
    return text or "the runtime gave no reason"


def _without_sources(text: str) -> str:
    """`text` without "file.cc:12 signature(…) condition was false." in front of what was meant for people."""
    while (match := _SOURCE.search(text)) is not None:
        rest = _without_signature(text[match.end() :])
        _, was_false, meant = rest.partition(" was false. ")
        text = text[: match.start()] + (meant if was_false and meant.strip() else rest)
    return text


def _without_signature(text: str) -> str:
    """`text` without the C++ function signature it starts with, if it does."""
    opening = text.find("(")
    # A signature is qualified; prose with a parenthesis is not.
    if opening < 0 or "::" not in text[:opening]:
        return text
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            rest = text[index + 1 :]
            # A lambda or a const method carries more: "::<lambda(int)> ", " const ", " [with T = float] ".
            rest = re.sub(r"^::<lambda[^>]{0,2000}> ?", "", rest).lstrip()
            return re.sub(r"^(?:const )?(?:\[with [^\]]{0,2000}\] ?)?", "", rest)
    return text
