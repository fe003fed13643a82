"""The V2 logging extension: read and change the log's settings while the server runs.

Decides what a change may be; all of it is checked before any of it is applied. Source: Triton's logging extension;
the plural names of its documentation's own example are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorquay.config.server import LogFormat
from tensorquay.core.errors import InvalidArgument, Unimplemented
from tensorquay.telemetry.logs import Logs

_SWITCHES = {
    "log_info": "info",
    "log_warning": "warning",
    "log_error": "error",
    "log_infos": "info",
    "log_warnings": "warning",
    "log_errors": "error",
}
_FORMATS = {"default": LogFormat.TEXT, "ISO8601": LogFormat.ISO8601}
_MAX_VERBOSE = 2**32 - 1
_KNOWN = ("log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format")


class LogSettings:
    """The settings of one `Logs`, as the extension shows them. Loop-confined."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def get(self) -> dict[str, bool | int | str]:
        """Every setting: booleans, an unsigned integer and texts, under the extension's names.

        A JSON log shows as "ISO8601", which is how its stamps look.
        """
        state = self._logs.state
        return {
            "log_file": "" if self._logs.file is None else str(self._logs.file),
            "log_info": state.info,
            "log_warning": state.warning,
            "log_error": state.error,
            "log_verbose_level": state.verbose,
            "log_format": "default" if state.format is LogFormat.TEXT else "ISO8601",
        }

    def update(self, changes: Mapping[str, object]) -> dict[str, bool | int | str]:
        """Apply `changes` (setting → value as decoded: bool, int or str) and answer as `get`.

        Raises: Unimplemented for log_file; InvalidArgument for an unknown name, a wrong type or a wrong value.
        Nothing is changed then.
        """
        if "log_file" in changes:
            raise Unimplemented("log file location can not be updated through network protocol")
        accepted: dict[str, bool | int | LogFormat] = {}
        for name, value in changes.items():
            if name in _SWITCHES:
                accepted[_SWITCHES[name]] = _boolean(name, value)
            elif name == "log_verbose_level":
                accepted["verbose"] = _level(value)
            elif name == "log_format":
                accepted["format"] = _format(value)
            else:
                raise InvalidArgument(f"unknown log setting '{name[:60]}', expected one of {', '.join(_KNOWN)}")
        state = self._logs.state
        if state.format is LogFormat.JSON:
            accepted.pop("format", None)  # the choice between JSON and text is made at start, for whoever reads the log
        for name, checked in accepted.items():
            setattr(state, name, checked)
        self._logs.apply()
        return self.get()


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"expect boolean for '{name}', got {_brief(value)}")
    return value


def _level(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_VERBOSE:
        raise InvalidArgument(
            f"expect an integer from 0 to {_MAX_VERBOSE} for 'log_verbose_level', got {_brief(value)}"
        )
    return value


def _format(value: object) -> LogFormat:
    if not isinstance(value, str):
        raise InvalidArgument(f"expect string for 'log_format', got {_brief(value)}")
    if value not in _FORMATS:
        raise InvalidArgument(f"invalid argument for log_format, got: {value[:60]}, expected default or ISO8601")
    return _FORMATS[value]


def _brief(value: object) -> str:
    # Never the text of something huge: only what kind of thing came.
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value) if abs(value) < 10**20 else "a huge number"
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"
