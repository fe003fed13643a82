"""Are the settings right, where do they come from, and can the certificates they name be used?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensorquay.commands.doctor.findings import Finding, listed, note, ok, problem, warning
from tensorquay.config.server import ServerConfig
from tensorquay.config.tls import TlsFiles
from tensorquay.transport import tls_files


def examine(config: ServerConfig, problems: Sequence[str]) -> Iterator[Finding]:
    """Findings about settings.

    Args:
        config: what is in force; the defaults when there are problems.
        problems: why the server would refuse what it was given.
    """
    for sentence in problems:
        yield problem("settings.refused", sentence, "'tensorquay serve --help' names every setting")
    if problems:
        yield note("settings.defaults", "because of that, everything else is looked at with the default settings")
        return
    given = [
        f"{name} ({config.origin(name)})" for name in ServerConfig.model_fields if config.origin(name) != "default"
    ]
    yield ok(
        "settings.given", f"{len(given)} given: {listed(given)}" if given else "none given: all have their defaults"
    )
    for sentence in config.notes:
        yield note("settings.note", sentence.rstrip("."))


def certificates(config: ServerConfig, now_s: int) -> Iterator[Finding]:
    """Findings about TLS; none where every port is plain. `now_s`: the wall clock."""
    for name, files in (("http", config.http_tls), ("grpc", config.grpc_tls)):
        if files is not None:
            yield _certificate(name, files, now_s)


def _certificate(name: str, files: TlsFiles, now_s: int) -> Finding:
    check = f"tls.{name}"
    try:
        material = tls_files.load(files, ())
    except tls_files.TlsProblem as error:
        return problem(check, error.message)
    complaint = material.complaint(now_s)
    if complaint is not None:
        return warning(check, f"--{name}-server-cert: {complaint}", "renew the certificate, or set the clock")
    return ok(check, f"{name}: certificate and key fit, valid until {tls_files.shown(material.last_s)}")
