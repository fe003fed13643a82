"""How commands reach a running server over HTTP: the options they share, and one request at a time.

Knows no part of the server: only its V2 HTTP interface, as any client does.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import httpx

from tensorquay.commands.tls_options import Reaching, reaching

DEFAULT_URL = "http://127.0.0.1:8000"
LOAD_TIMEOUT_S = 600.0
_TIMEOUT_S = 10.0
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([\t\x20-\x7e]*)")


@dataclass(frozen=True, slots=True)
class Server:
    """A server by its address, and how it is asked.

    Args: timeout_s: None for the usual one of each request. transport: replaces the network in tests.
    """

    address: str
    timeout_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    as_json: bool = False
    transport: httpx.BaseTransport | None = None
    tls: Reaching = field(default_factory=Reaching)

    @property
    def url(self) -> str:
        """Base URL."""
        return (self.address if "://" in self.address else f"http://{self.address}").rstrip("/")

    def ask(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, *, usual_timeout_s: float = _TIMEOUT_S
    ) -> Any:
        """The decoded answer, or None when it is empty.

        Raises: ClickException in one sentence when there is no server, or it refuses.
        """
        timeout_s = usual_timeout_s if self.timeout_s is None else self.timeout_s
        try:
            with httpx.Client(
                timeout=timeout_s, transport=self.transport, headers=dict(self.headers), verify=self.verify()
            ) as client:
                answer = client.request(verb, self.url + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise click.ClickException(f"no answer from {self.url}: {exc or type(exc).__name__}") from exc
        try:
            decoded = answer.json() if answer.content else None
        except ValueError as exc:
            raise click.ClickException(
                f"{self.url} answered {answer.status_code} with something else than JSON"
            ) from exc
        if answer.is_error:
            text = decoded.get("error") if isinstance(decoded, dict) else None
            raise click.ClickException(f"{self.url} answered {answer.status_code}: {text or answer.reason_phrase}")
        return decoded

    def verify(self) -> ssl.SSLContext | bool:
        """Whom to believe, as httpx takes it.

        Raises: ClickException for files that cannot be used, or that this address does not need.
        """
        verify = self.tls.context()
        if verify is not True and not self.url.startswith("https://"):
            raise click.ClickException(f"--ca, --cert, --key and --insecure are for https:// addresses, not {self.url}")
        return verify


def address_of(url: str | None) -> str:
    """The server to ask when `--url` says `url`."""
    return url or os.environ.get("TENSORQUAY_URL") or DEFAULT_URL


def _read_headers(_ctx: click.Context, _parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in given:
        found = _HEADER.fullmatch(text)
        if found is None:
            # The value may be a secret, so it is not repeated.
            raise click.BadParameter("expected NAME=VALUE, a header's name and its value in printable ASCII")
        headers[found[1]] = found[2]
    return headers


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options on how to reach the server: understood before the subcommand and after it, where they win."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the server's own JSON instead of tables."),
        click.option(
            "--header",
            "headers",
            multiple=True,
            metavar="NAME=VALUE",
            callback=_read_headers,
            help="A header for every request, for a server that keeps APIs closed; repeatable.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0.001),
            metavar="SECONDS",
            help=f"Longest wait for each answer; {_TIMEOUT_S:g} unless given, {LOAD_TIMEOUT_S:g} for 'load'.",
        ),
        click.option(
            "--url", metavar="URL", help=f"The server's HTTP address; else TENSORQUAY_URL, else {DEFAULT_URL}."
        ),
    ):
        command = option(command)
    return reaching(command)
