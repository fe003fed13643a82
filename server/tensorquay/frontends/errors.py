"""Errors as they travel between processes: whole, so that a client hears the same words through every door."""

from __future__ import annotations

from typing import Any

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.frontends.records import BrokenLink

_KINDS = {kind.name: kind for kind in ErrorKind}
_IN_ORDER = tuple(ErrorKind)


def document_of(error: ServingError) -> object:
    """Kind, text, facts and pause of `error`."""
    return [error.kind.name, error.message, error.facts, error.retry_after_s]


def error_of(document: Any) -> ServingError:
    """The error that `document_of` described.

    Raises: BrokenLink.
    """
    try:
        kind, message, facts, retry_after_s = document
        return ServingError(message, kind=_KINDS[kind], facts=facts, retry_after_s=retry_after_s)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenLink("an error makes no sense") from error


def number_of(kind: ErrorKind) -> int:
    """`kind` as a number, 1 or more, for a record that says nothing else of an error."""
    return _IN_ORDER.index(kind) + 1


def kind_of(number: int) -> ErrorKind:
    """The kind that `number_of` gave.

    Raises: BrokenLink.
    """
    if not 0 < number <= len(_IN_ORDER):
        raise BrokenLink(f"an error of kind {number}, expected 1 to {len(_IN_ORDER)}")
    return _IN_ORDER[number - 1]
