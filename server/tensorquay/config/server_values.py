"""The values that settings of the server can have beyond plain ones: how they are written, and what they become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

API_CATEGORIES = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)
"""What --http-restricted-api and --grpc-restricted-protocol can close."""

OTLP_URL = "http://localhost:4318/v1/traces"
"""Where a collector on this machine takes spans."""


@dataclass(frozen=True, slots=True)
class RestrictedKey:
    """The header a restricted API demands and the value it must have (kept out of logs)."""

    key: str
    value: str = field(repr=False)


def _restrictions(given: object) -> object:
    """`["health,metadata:x-key=secret", …]` as {category: RestrictedKey}."""
    if isinstance(given, Mapping):
        return given
    entries = [given] if isinstance(given, str) else given
    if not isinstance(entries, list | tuple):
        raise ValueError("expected a list of texts '<api>[,<api>…]:<header>=<value>'")
    found: dict[str, RestrictedKey] = {}
    for entry in entries:
        categories, colon, pair = entry.partition(":") if isinstance(entry, str) else ("", "", "")
        key, equals, value = pair.partition("=")
        if not (colon and equals and value) or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", key):
            # Never the entry itself: it holds a secret.
            raise ValueError("expected '<api>[,<api>…]:<header>=<value>' with a valid header name and a value")
        for category in (name.strip() for name in categories.split(",")):
            if category not in API_CATEGORIES:
                raise ValueError(f"'{category[:40]}' is no API, expected one of {', '.join(API_CATEGORIES)}")
            if category in found:
                raise ValueError(f"'{category}' is restricted twice")
            found[category] = RestrictedKey(key, value)
    return found


def _listed(given: object) -> object:
    """A single value where a list is expected is a list of one."""
    return [given] if isinstance(given, str | Path) else given


def read_log_format(given: object) -> object:
    """A log format's name in any case, and tritonserver's word for one of them."""
    if isinstance(given, str):
        lowered = given.lower()
        return {"default": "text", "iso8601": "ISO8601"}.get(lowered, lowered)
    return given


def _trace_levels(given: object) -> object:
    levels = _listed(given)
    if isinstance(levels, list | tuple):
        upper = [level.upper() if isinstance(level, str) else level for level in levels]
        # MIN and MAX are tritonserver's former names.
        return [{"MIN": "TIMESTAMPS", "MAX": "TIMESTAMPS"}.get(level, level) for level in upper]
    return levels


Port = Annotated[int, Field(ge=0, le=65535)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_listed)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Restrictions = Annotated[dict[str, RestrictedKey], BeforeValidator(_restrictions)]


def read_trace_mode(given: object) -> object:
    """A trace mode in any case."""
    return given.lower() if isinstance(given, str) else given


def endpoint_problem(url: str) -> str | None:
    """What `url` should be and is not, or None when spans can be sent there."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises when it is none
    except ValueError:
        return "a URL such as " + OTLP_URL
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "a URL such as " + OTLP_URL
    if parts.username is not None or parts.password is not None:
        return "no user in the URL; give credentials with OTEL_EXPORTER_OTLP_HEADERS"
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        return "a URL of printable ASCII"
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        return "a name that can be looked up: labels of 1 to 63 characters between its dots"
    return None


def _are_levels(levels: tuple[str, ...]) -> tuple[str, ...]:
    for level in levels:
        if level not in {"OFF", "TIMESTAMPS", "TENSORS"}:
            raise ValueError(f"'{level[:40]}' is no trace level, expected OFF, TIMESTAMPS or TENSORS")
    if not levels or ("OFF" in levels and len(set(levels)) > 1):
        raise ValueError("expected OFF alone, or TIMESTAMPS and TENSORS")
    return tuple(dict.fromkeys(levels))


def _is_endpoint(url: str) -> str:
    problem = endpoint_problem(url) if url else None
    if problem is not None:
        raise ValueError(f"expected {problem}")
    return url


def _are_attributes(attributes: tuple[str, ...]) -> tuple[str, ...]:
    for attribute in attributes:
        if not attribute.partition("=")[0].strip() or "=" not in attribute or len(attribute) > 1024:
            raise ValueError(f"'{attribute[:40]}' is no attribute, expected KEY=VALUE")
    return attributes


TraceLevels = Annotated[tuple[str, ...], BeforeValidator(_trace_levels), AfterValidator(_are_levels)]
Endpoint = Annotated[str, AfterValidator(_is_endpoint)]
Attributes = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_are_attributes)]
