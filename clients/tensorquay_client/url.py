"""What `url` means: host and port, with or without a scheme."""

from __future__ import annotations

from urllib.parse import urlsplit

from tensorquay_client.errors import InvalidArgument


def http_base(url: str) -> str:
    """`url` as a base for paths: "http://host:port[/prefix]", no trailing slash.

    Raises: InvalidArgument for anything that is not an HTTP address.
    """
    full = url if "://" in url else f"http://{url}"
    scheme, host = _checked(url, full, ("http", "https"))
    return f"{scheme}://{host}{urlsplit(full).path.rstrip('/')}"


def grpc_target(url: str) -> tuple[str, bool]:
    """gRPC's target in `url` and whether it asks for TLS ("grpcs://" or "https://").

    Raises: InvalidArgument for anything that is not host and port. "unix:…" and "dns:…" targets pass as they are.
    """
    if url.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return url, False
    full = url if "://" in url else f"grpc://{url}"
    scheme, host = _checked(url, full, ("grpc", "grpcs", "http", "https"))
    if urlsplit(full).port is None:  # gRPC would silently take 443
        raise InvalidArgument(f"'{url}' names no port: gRPC usually listens on {host}:8001")
    return host, scheme in ("grpcs", "https")


def _checked(url: str, full: str, schemes: tuple[str, ...]) -> tuple[str, str]:
    try:
        parts = urlsplit(full)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError as exc:
        raise InvalidArgument(f"'{url}' is no server address: {exc}") from exc
    if parts.scheme not in schemes or not parts.hostname or not port_is_valid:
        raise InvalidArgument(f"'{url}' is no server address: expected host:port, or {schemes[0]}://host:port")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidArgument("a server address is a host and a port; send credentials with `headers`")
    return parts.scheme, parts.netloc
