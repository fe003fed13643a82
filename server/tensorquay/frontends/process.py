"""One front-end process: started with exactly the descriptors it is given, watched without a thread or a signal.

Not by the event loop's own subprocesses: uvloop's leave copies of the standard streams open in the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from tensorquay.frontends.worker import main; sys.exit(main())"


class FrontEndProcess:
    """See the module. Loop-confined; owner: the supervisor.

    Args:
        descriptors: those it inherits, under the same numbers.
        told: what it reads from its standard input; less than a pipe holds.
    Raises: OSError.
    """

    def __init__(self, descriptors: Sequence[int], told: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            # Nothing of the working directory may be imported.
            [sys.executable, "-P", "-c", _PROGRAM, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=descriptors,
            # Not in the terminal's foreground group: Ctrl-C is the owner's to hear.
            start_new_session=True,
        )
        self.ended: asyncio.Future[int] = self._loop.create_future()
        """Its exit status, negative for a signal."""
        self._watched = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._watched, self._reap)
        assert self._process.stdin is not None
        # A process that has ended already is found out by its end.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(told)
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def _reap(self) -> None:
        self._loop.remove_reader(self._watched)
        os.close(self._watched)
        self.ended.set_result(self._process.wait())


def in_words(code: int) -> str:
    """How a process with exit status `code` ended."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
