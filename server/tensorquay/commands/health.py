"""`tensorquay health`: one question to a running server, answered by the exit status; for containers' health checks.

Without an address it asks the server that the settings of this environment (TENSORQUAY_*, TENSORQUAY_CONFIG) describe,
on this machine: in a container that is the server it was started for. Flags of `serve` are not seen. Changes nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click

from tensorquay.commands.tls_options import Reaching, reaching
from tensorquay.config.server import InvalidServerConfig, ServerConfig
from tensorquay.config.server_sources import load
from tensorquay.config.server_values import RestrictedKey

_TIMEOUT_S = 3.0
_GRPC_KEY = "triton-grpc-protocol-"


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask, and how.

    Args:
        address: an HTTP URL without a path, or "host:port" for gRPC.
        key: what a server demands that keeps its health closed to strangers.
        ourselves: the address is this very machine's, found in our own settings: whoever answers there is believed.
    """

    address: str
    grpc: bool = False
    key: RestrictedKey | None = None
    ourselves: bool = False


@click.command(
    short_help="Ask a running server whether it is ready.", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--http", "url", metavar="URL", help="Its HTTP address, e.g. http://127.0.0.1:8000.")
@click.option("--grpc", "address", metavar="HOST:PORT", help="Its gRPC address, to ask grpc.health.v1 instead.")
@click.option("--live", is_flag=True, help="Ask whether it runs, not whether it is ready for predictions.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.001, max=3600),
    default=_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for the answer.",
)
@reaching
def health(
    url: str | None,
    address: str | None,
    live: bool,
    timeout_s: float,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
) -> None:
    """Ask a running server whether it is ready. Exit code 0: yes; 1: no, or no answer.

    Without --http or --grpc the address is the one that TENSORQUAY_HTTP_PORT and its kind name, as for 'serve'.
    """
    if url and address:
        raise click.UsageError("--http and --grpc are two ways to ask: give one")
    if url:
        asked = Asked(url if "://" in url else f"http://{url}")
    else:
        asked = Asked(address, grpc=True) if address else from_settings(_settings())
    tls = Reaching(ca, cert, key, insecure)
    well = (_over_grpc if asked.grpc else _over_http)(asked, tls, live, timeout_s)
    word = "live" if live else "ready"
    if not well:
        raise click.ClickException(f"{asked.address} is not {word}")
    click.echo(word)


def _settings() -> ServerConfig:
    path = os.environ.get("TENSORQUAY_CONFIG")
    try:
        return load(file=Path(path) if path else None, environment=os.environ, command_line={})
    except InvalidServerConfig as exc:
        raise click.ClickException("; ".join(exc.problems)) from exc


def from_settings(config: ServerConfig) -> Asked:
    """Where a server with these settings answers strangers on this machine: HTTP if it can, else gRPC.

    Raises: ClickException when it has no door that can be asked without a certificate, or its port is not known.
    """
    # Nobody but a trusted client gets through to a port with mutual TLS; gRPC over TLS must know whom to trust.
    if config.allow_http and (config.http_tls is None or config.http_tls.roots is None):
        scheme = "http" if config.http_tls is None else "https"
        place = _here(config.http_host, config.http_port, "http_port")
        return Asked(f"{scheme}://{place}", key=config.http_restricted_api.get("health"), ourselves=True)
    if config.allow_grpc and config.grpc_tls is None:
        place = _here(config.grpc_host, config.grpc_port, "grpc_port")
        return Asked(place, grpc=True, key=config.grpc_restricted_protocol.get("health"), ourselves=True)
    raise click.ClickException(
        "the settings leave no port that can be asked without certificates: say --http=URL or --grpc=HOST:PORT, "
        "with --ca, --cert and --key"
    )


def _here(host: str, port: int, setting: str) -> str:
    """`host:port` as reached from this machine: an address that means all of them is the loopback one."""
    if port == 0:
        raise click.ClickException(
            f"{setting} is 0, any free port, so nobody can know it: say --http=URL or --grpc=HOST:PORT"
        )
    try:
        given = ipaddress.ip_address(host)
    except ValueError:
        return f"{host}:{port}"
    if given.is_unspecified:
        return f"127.0.0.1:{port}" if given.version == 4 else f"[::1]:{port}"
    return f"{host}:{port}" if given.version == 4 else f"[{host}]:{port}"


def _over_http(asked: Asked, tls: Reaching, live: bool, timeout_s: float) -> bool:
    connection = _connection(asked, tls)(timeout_s)
    headers = {} if asked.key is None else {asked.key.key: asked.key.value}
    try:
        connection.request("GET", f"/v2/health/{'live' if live else 'ready'}", headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else "") or str(exc) or type(exc).__name__
        raise click.ClickException(f"no answer from {asked.address}: {why}") from exc
    finally:
        connection.close()
    if status not in {200, 400, 503}:
        raise click.ClickException(f"{asked.address} answered {status} to a question about its health")
    return status == 200


def _connection(asked: Asked, tls: Reaching) -> Callable[[float], http.client.HTTPConnection]:
    """Makes the connection to an HTTP server, given the timeout in seconds. Nothing is sent yet."""
    parts = urlsplit(asked.address)
    host, port = _host_and_port(parts, asked.address)
    if parts.scheme == "http":
        if tls != Reaching():
            raise click.ClickException(
                f"--ca, --cert, --key and --insecure are for https:// addresses, not {asked.address}"
            )
        return lambda timeout_s: http.client.HTTPConnection(host, port, timeout=timeout_s)
    if asked.ourselves and tls == Reaching():
        tls = Reaching(insecure=True)
    made = tls.context()
    context = made if isinstance(made, ssl.SSLContext) else ssl.create_default_context()
    return lambda timeout_s: http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _host_and_port(parts: SplitResult, address: str) -> tuple[str, int | None]:
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise click.ClickException(f"--http={address}: {exc}") from exc
    if parts.scheme not in {"http", "https"} or not host or parts.path not in {"", "/"} or parts.query:
        raise click.ClickException(f"--http={address}: expected http://HOST:PORT or https://HOST:PORT")
    return host, port


def _over_grpc(asked: Asked, tls: Reaching, live: bool, timeout_s: float) -> bool:
    if tls.insecure:
        raise click.ClickException("--insecure is for --http: over gRPC a server is known by --ca")
    from tensorquay.grpc_api.probe import NoHealthAnswer, ask  # noqa: PLC0415 - gRPC takes longer to import than to ask

    metadata = [] if asked.key is None else [((_GRPC_KEY + asked.key.key).lower(), asked.key.value)]
    files = None if tls == Reaching() else (tls.ca, tls.certificate, tls.key)
    try:
        return ask(asked.address, live=live, timeout_s=timeout_s, metadata=metadata, tls=files)
    except NoHealthAnswer as exc:
        raise click.ClickException(f"no answer from {asked.address}: {exc}") from exc
    except OSError as exc:
        raise click.ClickException(f"TLS: cannot read {exc.filename}: {exc.strerror}") from exc
