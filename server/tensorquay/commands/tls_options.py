"""Command-line options about TLS: how commands reach a server, and which files `check` looks at."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tensorquay.config.tls import TlsFiles
from tensorquay.core.clock import SystemClock
from tensorquay.transport import tls_files

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Reaching:
    """Whom to trust and who to be. Two of them add up: what is given later wins."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def over(self, before: Reaching) -> Reaching:
        """This, and what stands in `before` where this says nothing."""
        return Reaching(
            self.ca or before.ca,
            self.certificate or before.certificate,
            self.key or before.key,
            self.insecure or before.insecure,
        )

    def context(self) -> ssl.SSLContext | bool:
        """As httpx takes it.

        Raises: ClickException naming the file that cannot be used.
        """
        if self == Reaching():
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate is not None:
                # A password of ours, lest OpenSSL ask the terminal for one.
                context.load_cert_chain(self.certificate, self.key, password="")
        except OSError as exc:
            found = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
            reason = (found or "it is no PEM").replace("_", " ").lower()
            given = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path is not None)
            raise click.ClickException(f"TLS: cannot use {given}: {reason}") from exc
        return context


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `Reaching`, as parameters ca, cert, key and insecure."""
    for option in (
        click.option("--insecure", is_flag=True, help="https: believe any server; for trials only."),
        click.option("--key", type=_FILE, metavar="FILE", help="The key of --cert, if it is in a file of its own."),
        click.option("--cert", type=_FILE, metavar="FILE", help="https: our own certificate, in PEM."),
        click.option("--ca", type=_FILE, metavar="FILE", help="https: whom to trust instead of the usual, in PEM."),
    ):
        command = option(command)
    return command


def checked_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """The file options of `serve` for `check`, as parameters <port>_server_cert and so on."""
    texts = {
        "root-cert": "The authorities of clients' certificates, to be checked too.",
        "server-key": "The key of that certificate.",
        "server-cert": "Check this certificate, as 'serve' would take it.",
    }
    for port in ("grpc", "http"):
        for file, text in texts.items():
            command = click.option(f"--{port}-{file}", type=_FILE, metavar="FILE", help=text)(command)
    return command


def check_files(given: dict[str, Path | None]) -> tuple[list[str], list[str]]:
    """Sentences about the files of `checked_files`: those that are good, and the problems.

    A certificate that is not valid today is a problem here, and only a warning when it is served.
    """
    good: list[str] = []
    problems: list[str] = []
    for port in ("http", "grpc"):
        certificate, key, roots = (given[f"{port}_{file}"] for file in ("server_cert", "server_key", "root_cert"))
        if certificate is None and key is None and roots is None:
            continue
        if certificate is None or key is None:
            absent = "cert" if certificate is None else "key"
            problems.append(f"--{port}-server-{absent} is needed too: certificate and key are checked together")
            continue
        try:
            material = tls_files.load(TlsFiles(port, certificate, key, roots), ())
        except tls_files.TlsProblem as problem:
            problems.append(problem.message)
            continue
        complaint = material.complaint(SystemClock().wall_ms() // 1000)
        if complaint is not None:
            problems.append(f"--{port}-server-cert: {complaint}")
        else:
            demand = "" if roots is None else ", client certificates are demanded"
            good.append(f"{port} TLS: certificate and key fit, valid until {tls_files.shown(material.last_s)}{demand}")
    return good, problems
