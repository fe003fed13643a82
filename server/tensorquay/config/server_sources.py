"""Gather the server's settings: file < environment < command line.

Decides which source wins and names it in every error; what a setting means is `server.py`'s. Reads one file and the
mapping it is given as environment, and nothing else.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tensorquay.config.refusal import brief
from tensorquay.config.server import Flag, InvalidServerConfig, ServerConfig
from tensorquay.config.toml_lines import line_of, syntax_problem

PREFIX = "TENSORQUAY_"
MAX_FILE_BYTES = 2**20
"""Far more than all settings; a wrong path to a big file must not fill the memory."""

NOT_SETTINGS: Mapping[str, str] = {
    "TENSORQUAY_CONFIG": "The settings file of `serve` and `health` that are given no `--config`.",
    "TENSORQUAY_URL": "The HTTP address that commands ask which are given no `--url`.",
    "TENSORQUAY_GRPC_URL": "The gRPC address that `infer --grpc` asks when given no `--url`.",
    "TENSORQUAY_KEY": "The value that opens a closed API, in the commands that the console shows.",
}
"""Variables that are no settings of a server, and what they are. What any of our programs reads is here or a field."""

_LIST_FIELDS = frozenset(
    {
        "model_repository",
        "load_model",
        "http_restricted_api",
        "http_own_name",
        "grpc_restricted_protocol",
        "trace_level",
        "otel_resource",
    }
)
_PATH_FIELDS = frozenset(
    {"model_repository", "log_file", "trace_file"}
    | {f"{port}_{file}" for port in ("http", "grpc") for file in ("server_cert", "server_key", "root_cert")}
)

# Kubernetes puts variables of these shapes into every pod beside a Service called "tensorquay" or "tensorquay-…";
# they are no settings, and TENSORQUAY_HTTP_PORT=tcp://10.0.0.7:80 must not stop the server.
_SERVICE_LINK = re.compile(
    r"TENSORQUAY(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def flag_of(name: str) -> Flag:
    """The command-line side of field `name`."""
    for item in ServerConfig.model_fields[name].metadata:
        if isinstance(item, Flag):
            return item
    raise LookupError(name)


def is_list(name: str) -> bool:
    """Whether field `name` takes several values (a repeatable flag)."""
    return name in _LIST_FIELDS


def load(
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
    command_line: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> ServerConfig:
    """The configuration made of all three sources.

    Args:
        file: a TOML file whose keys are field names; its relative paths start at its own folder.
        environment: the process's variables; only TENSORQUAY_* are looked at.
        command_line: field name → text, or list of texts for a repeatable flag.
        notes: kept for the operator (`ServerConfig.notes`).
    Raises: InvalidServerConfig with every problem found, each naming its source.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    labels: dict[str, str] = {}
    problems: list[str] = []

    content = ""
    if file is not None:
        content, written = _read(file)
        for name, value in written.items():
            if name not in ServerConfig.model_fields:
                where = _where(file.name, content, name)
                problems.append(f"{where}: unknown setting '{name[:60]}'{_unknown(name, value)}")
                continue
            values[name] = _from_folder(file.parent, name, value)
            origins[name] = labels[name] = file.name
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or _is_service_link(variable, text):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in ServerConfig.model_fields or variable != PREFIX + name.upper():
            problems.append(f"environment: unknown variable {variable[:80]}{_suggestion(name, PREFIX)}")
            continue
        values[name] = _split(name, text)
        origins[name] = labels[name] = variable
    for name, value in command_line.items():
        values[name] = value
        origins[name] = "command line"
        labels[name] = "--" + name.replace("_", "-")
    if "metrics_host" not in values and "http_host" in values:
        origins["metrics_host"] = origins["http_host"]

    config: ServerConfig | None = None
    try:
        config = ServerConfig.model_validate(values)
    except ValidationError as exc:
        with_lines = {
            name: _where(label, content, name) if file is not None and label == file.name else label
            for name, label in labels.items()
        }
        problems.extend(_sentences(exc, with_lines))
    if problems or config is None:
        raise InvalidServerConfig(problems)
    return config.with_sources(origins, notes)


def _where(file: str, content: str, name: str) -> str:
    """The file, with the line of setting `name` in it."""
    line = line_of(content, name)
    return file if line is None else f"{file} line {line}"


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """The text and what it says."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise InvalidServerConfig([f"cannot read the configuration file {file}: {exc.strerror or exc}"]) from exc
    if len(raw) > MAX_FILE_BYTES:
        raise InvalidServerConfig([f"{file} is larger than {MAX_FILE_BYTES} bytes: that is no configuration file"])
    try:
        text = raw.decode("utf-8-sig")  # editors of Windows begin UTF-8 with a mark, and it says nothing
        return text, tomllib.loads(text)
    except UnicodeDecodeError as exc:
        line, byte = raw.count(b"\n", 0, exc.start) + 1, raw[exc.start]
        told = f"{file} line {line}: it is not UTF-8 text, got byte 0x{byte:02x}; save the file as UTF-8"
        raise InvalidServerConfig([told]) from exc
    except (ValueError, RecursionError) as exc:
        rule, hint, at = syntax_problem(exc)
        told = f"{file}{'' if at is None else f' line {at}'}: {rule}{'; ' + hint if hint else ''}"
        raise InvalidServerConfig([told]) from exc


def _from_folder(folder: Path, name: str, value: Any) -> Any:
    if name not in _PATH_FIELDS:
        return value
    if isinstance(value, list):
        return [folder / item if isinstance(item, str) else item for item in value]
    return folder / value if isinstance(value, str) else value


def _split(name: str, text: str) -> Any:
    if not is_list(name):
        return text
    return [part.strip() for part in text.split(flag_of(name).separator) if part.strip()]


def _is_service_link(variable: str, text: str) -> bool:
    return _SERVICE_LINK.fullmatch(variable) is not None or (
        variable.endswith("_PORT") and _SERVICE_URL.match(text) is not None
    )


def _unknown(name: str, value: object) -> str:
    if isinstance(value, dict):
        return "; settings stand in no [table], but one below the other: http_port = 8000"
    return _suggestion(name)


def _suggestion(name: str, prefix: str = "") -> str:
    close = difflib.get_close_matches(name.lower(), ServerConfig.model_fields, n=1)
    if not close:
        return ""
    return f", did you mean {prefix + close[0].upper() if prefix else repr(close[0])}?"


def _sentences(error: ValidationError, labels: Mapping[str, str]) -> list[str]:
    """One sentence per problem: the setting, where it was given, and the rule; never the value of a secret."""
    sentences = []
    for item in error.errors(include_url=False, include_context=False):
        text = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected").rstrip(".")
        text = text.replace("a valid tuple", "a list of texts")
        if not item["loc"]:
            sentences.append(text)
            continue
        name = str(item["loc"][0])
        label = labels.get(name, name)
        where = label if label.startswith("--") or label == name else f"{name} ({label})"
        given = item.get("input")
        secret = "restricted" in name or name == "otlp_endpoint"  # a URL may hold a password
        shown = f", got {brief(given)}" if isinstance(given, str | int | float) and not secret else ""
        sentences.append(f"{where}: {text}{shown}")
    return sentences
