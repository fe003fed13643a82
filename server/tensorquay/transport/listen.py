"""Listening sockets, bound before anything else starts, so that a taken port is said at once."""

from __future__ import annotations

import errno
import socket

from tensorquay.core.errors import ServingError

BACKLOG = 2048
"""Connections the kernel holds until we accept them; it caps this itself (net.core.somaxconn)."""


class PortTaken(ServingError):
    """A port cannot be listened on."""


def bind(host: str, port: int, *, what: str, shared: bool = False) -> socket.socket:
    """A bound TCP socket, not yet listening. Port 0 takes a free one.

    Args:
        what: "HTTP", for the error's text, with the flag's name in lower case (`--http-port`).
        shared: also when other sockets of this user that are shared listen there; the kernel spreads connections.
    Raises: PortTaken saying which port, why, and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        flag = f"--{what.lower()}-port"
        if error.errno == errno.EADDRINUSE:
            remedy = f"another process listens there; stop it or choose another port with {flag} (0 takes a free one)"
        elif error.errno == errno.EACCES:
            remedy = f"ports below 1024 need privileges; choose another with {flag}"
        else:
            remedy = f"{error.strerror or error}; check --{what.lower()}-host and {flag}"
        raise PortTaken(f"cannot listen for {what} on {host} port {port}: {remedy}") from error
    return bound


def reserve(host: str, port: int, *, what: str) -> socket.socket:
    """As `bind`, for a port that other processes of this user shall listen on, and nobody else.

    The socket itself never listens. It is bound alone, so a taken port is found out; only then is it opened to sockets
    that are `shared`. While it is there nobody can take the port, even if none of those listens.
    """
    bound = bind(host, port, what=what)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Two sockets that both reuse addresses may share a port on which none listens.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return bound


def port_of(bound: socket.socket) -> int:
    """The port `bound` has, also when 0 was asked for."""
    return int(bound.getsockname()[1])
