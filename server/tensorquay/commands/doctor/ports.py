"""Can the configured ports be listened on, and if not, who has them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tensorquay.commands.doctor.findings import Finding, note, ok, problem
from tensorquay.config.resources import read_text
from tensorquay.config.server import ServerConfig
from tensorquay.transport import listen

_LISTENS = "0A"
_MAX_PROCESSES = 50_000
_PROGRAM = "tensorquay"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on a port."""

    pid: int
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        """Its command line, for people."""
        return " ".join(self.words)

    @property
    def is_ours(self) -> bool:
        """Whether it is a server like this one: our program or module, told to serve, or a front end of one."""
        program = [Path(word).name for word in self.words[:2]]
        ours = _PROGRAM in program or any(
            option == "-m" and module == _PROGRAM for option, module in pairwise(self.words[1:])
        )
        return (ours and "serve" in self.words) or any(f"{_PROGRAM}.frontends" in word for word in self.words[1:5])


def try_port(host: str, port: int, what: str) -> None:
    """Take a port as the server does, and give it back at once; nothing ever listens.

    Raises: PortTaken, OSError.
    """
    listen.bind(host, port, what=what).close()


def examine(
    config: ServerConfig, *, root: Path = Path("/"), take: Callable[[str, int, str], None] = try_port
) -> Iterator[Finding]:
    """Findings about the ports that the settings open.

    Args: root: where `proc` is found.
    """
    doors = (
        ("http", "HTTP", config.allow_http, config.http_host, config.http_port),
        ("grpc", "gRPC", config.allow_grpc, config.grpc_host, config.grpc_port),
        ("metrics", "metrics", config.allow_metrics, config.metrics_host, config.metrics_port),
    )
    for name, what, allowed, host, port in doors:
        check = f"ports.{name}"
        if not allowed:
            yield ok(check, f"{what} is off ({config.origin(f'allow_{name}')})")
            continue
        try:
            take(host, port, what)
        except listen.PortTaken as error:
            yield _taken(check, what, name, port, error, holder_of(port, root))
        except OSError as error:
            yield problem(check, f"{what} on {host}: {error.strerror or error}", f"check --{name}-host")
        else:
            where = "any free port" if port == 0 else f"port {port}"
            yield ok(check, f"{what} can listen on {host}, {where}")


def _taken(check: str, what: str, name: str, port: int, error: listen.PortTaken, holder: Holder | None) -> Finding:
    if holder is None:
        sentence, _, remedy = error.message.partition(": ")
        if "another process" in remedy:
            remedy += f"; 'ss -ltnp sport = :{port}' as root says which"
        return problem(check, sentence, remedy)
    who = f"process {holder.pid} ({holder.command[:80]})"
    if holder.is_ours:
        return note(check, f"{what} port {port} is served by {who}", f"another server needs another --{name}-port")
    return problem(
        check,
        f"{what} port {port} is taken by {who}",
        f"stop it, or choose another port with --{name}-port (0: a free one)",
    )


def holder_of(port: int, root: Path) -> Holder | None:
    """Who listens on `port`, if the system tells us: always for our own processes, for root for all of them."""
    wanted = {f"socket:[{inode}]" for file in ("tcp", "tcp6") for inode in _inodes(root / "proc/net" / file, port)}
    if not wanted:
        return None
    try:
        numbers = [each.name for each in (root / "proc").iterdir() if each.name.isdigit()]
    except OSError:
        return None
    for number in numbers[:_MAX_PROCESSES]:
        folder = root / "proc" / number
        try:
            if any(str(each.readlink()) in wanted for each in (folder / "fd").iterdir()):
                return Holder(int(number), _words(folder))
        except OSError:
            continue  # it has ended, or is not ours to look into
    return None


def _inodes(table: Path, port: int) -> Iterator[str]:
    for line in read_text(table).splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENS and fields[1].rpartition(":")[2] == f"{port:04X}":
            yield fields[9]


def _words(folder: Path) -> tuple[str, ...]:
    words = tuple(word for word in read_text(folder / "cmdline").split("\0") if word)
    return words or (read_text(folder / "comm").strip() or "unknown",)
