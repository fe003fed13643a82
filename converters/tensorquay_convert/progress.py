"""What a command tells while it runs: events as JSON lines from the worker, shown by whoever started it.

Events go over a file descriptor of their own, because frameworks print what they like on standard output and error.
"""

from __future__ import annotations

import enum
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

MAX_LINE_BYTES = 1 << 20
_MAX_TEXT = 2000
_COUNTED = re.compile(r"\b([0-9]{1,6}) of ([0-9]{1,6})\b")


class Step(enum.Enum):
    """The stretches of an import, in order; the value is what is shown."""

    OPEN = "open"
    EXPORT = "export"
    CHECK = "check"
    PROVE = "prove"
    REPORT = "report"
    PUBLISH = "publish"


IMPORT_SHARES: Mapping[str, float] = {
    Step.OPEN.value: 0.15, Step.EXPORT.value: 0.3, Step.CHECK.value: 0.1, Step.PROVE.value: 0.35,
    Step.REPORT.value: 0.05, Step.PUBLISH.value: 0.05,
}  # fmt: skip
"""What share of an import each step takes, in order."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event for people: the step it belongs to, what is happening, and the share of all (0 … 1) that is done.

    `note` True: worth keeping on the screen when the next one comes.
    """

    step: str
    text: str
    overall: float = 0.0
    note: bool = False

    def to_json(self) -> dict[str, Any]:
        """As an event line holds it."""
        return {
            "event": "told",
            "step": self.step,
            "text": self.text,
            "overall": round(self.overall, 3),
            "note": self.note,
        }


Listener = Callable[[Told], None]


Send = Callable[[Mapping[str, Any]], None]
"""Takes any event; the last one of an import is its result."""


def to_descriptor(descriptor: int) -> Send:
    """Sends each event as one JSON line. A lock keeps lines whole should a framework's thread tell something."""
    lock = threading.Lock()

    def send(event: Mapping[str, Any]) -> None:
        # The newline in front ends whatever somebody else may have written to our descriptor.
        line = b"\n" + json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        with lock:
            view = memoryview(line)
            while view:
                view = view[os.write(descriptor, view) :]

    return send


class Teller:
    """The working side: tells steps and what happens in them. Owner: the one thread that works.

    Args: shares: of the whole that each step takes, in order; a step that is not in it takes none.
    """

    def __init__(self, send: Send, shares: Mapping[str, float]) -> None:
        self.send = send
        self._shares = shares
        self._step = next(iter(shares), "")

    def step(self, step: Step | str, text: str) -> None:
        """Begin a step."""
        self._step = step.value if isinstance(step, Step) else step
        self._tell(text, 0.0)

    def say(self, text: str) -> None:
        """Within the running step (`api.Say`). A text that counts ("case 3 of 10") moves the bar."""
        counted = _COUNTED.search(text)
        self._tell(text, (int(counted[1]) - 1) / max(1, int(counted[2])) if counted is not None else 0.0)

    def note(self, text: str) -> None:
        """Something the user should keep."""
        self._tell(text, 0.0, note=True)

    def _tell(self, text: str, fraction: float, *, note: bool = False) -> None:
        names = list(self._shares)
        before = sum(self._shares[each] for each in names[: names.index(self._step)]) if self._step in names else 0.0
        overall = before + self._shares.get(self._step, 0.0) * min(1.0, max(0.0, fraction))
        self.send(Told(self._step, text[:_MAX_TEXT], min(1.0, overall), note).to_json())


def read_event(line: bytes) -> Mapping[str, Any] | None:
    """The event in a line; None for what no worker of ours wrote."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def read_told(event: Mapping[str, Any]) -> Told | None:
    """What a "told" event says; None when it is malformed."""
    try:
        return Told(str(event["step"]), str(event["text"]), float(event["overall"]), bool(event["note"]))
    except (KeyError, ValueError, TypeError):
        return None


class Silence(AbstractContextManager["Silence"]):
    """Shows nothing (`--quiet`)."""

    def __call__(self, told: Told) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Lines(Silence):
    """One line per thing said, for pipes and logs; or one JSON object per line."""

    def __init__(self, stream: IO[str], *, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json

    def __call__(self, told: Told) -> None:
        line = json.dumps(told.to_json()) if self._as_json else f"{told.step}: {told.text}"
        self._stream.write(line + "\n")
        self._stream.flush()


class Bar(Silence):
    """A bar with the running step, for a terminal. Notes stay above it."""

    def __init__(self, stream: IO[str]) -> None:
        # rich is only needed by who looks at a terminal.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[step]:<8}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream, highlight=False, markup=False),
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0, step="")
        self._progress.start()

    def __call__(self, told: Told) -> None:
        if told.note:
            self._progress.console.print(told.text)
            return
        self._progress.update(self._task, completed=told.overall, description=told.text, step=told.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
