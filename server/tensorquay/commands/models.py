"""`tensorquay models`: what a running server serves, told by its V2 HTTP interface. Knows no part of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx

from tensorquay.commands import optimization, provenance
from tensorquay.commands.output import console, table
from tensorquay.commands.server_options import LOAD_TIMEOUT_S, Server, address_of, server_options
from tensorquay.commands.tls_options import Reaching

_STYLES = {"READY": "green", "UNAVAILABLE": "red", "LOADING": "yellow", "UNLOADING": "yellow"}


def _for_server(command: Callable[..., None]) -> Callable[..., None]:
    """`command(server, …)` as a subcommand that takes the options of `server_options` itself."""

    @wraps(command)
    def call(
        url: str | None,
        timeout_s: float | None,
        headers: Mapping[str, str],
        as_json: bool,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        insecure: bool,
        **rest: Any,
    ) -> None:
        server: Server = click.get_current_context().obj
        command(
            replace(
                server,
                address=url or server.address,
                timeout_s=server.timeout_s if timeout_s is None else timeout_s,
                headers={**server.headers, **headers},
                as_json=as_json or server.as_json,
                tls=Reaching(ca, cert, key, insecure).over(server.tls),
            ),
            **rest,
        )

    return server_options(call)


@click.group(
    invoke_without_command=True,
    short_help="Show, load and unload the models of a running server.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@server_options
@click.pass_context
def models(
    ctx: click.Context,
    url: str | None,
    timeout_s: float | None,
    headers: Mapping[str, str],
    as_json: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
) -> None:
    """Show the models, versions, states and reasons of a running server."""
    transport = ctx.obj if isinstance(ctx.obj, httpx.BaseTransport) else None
    address = address_of(url)
    server = ctx.obj = Server(address, timeout_s, headers, as_json, transport, Reaching(ca, cert, key, insecure))
    if ctx.invoked_subcommand is None:
        index = server.ask("POST", "/v2/repository/index", {})
        if as_json:
            _print_json(index)
            return
        counts = _statistics(server)
        entries = _checked(lambda: [_row(entry, counts) for entry in index], server)
        console().print(
            table(
                "model", "version", "state", "requests", "failed", "mean batch", "reason", rows=entries, styles=_STYLES
            )
        )


@models.command()
@click.argument("name")
@click.option("--version", default="", help="One version instead of the one that is served by default.")
@_for_server
def show(server: Server, name: str, version: str) -> None:
    """Show one model: inputs, outputs, where it runs, its counters, where it comes from, how it was optimised."""
    path = _path(name) + (f"/versions/{quote(version, safe='')}" if version else "")
    metadata = server.ask("GET", path)
    statistics = server.ask("GET", f"{path}/stats")
    records = {name: _record(server, path, name) for name in ("provenance", "optimization")}
    if server.as_json:
        told = {name: record for name, record in records.items() if record}
        _print_json({"metadata": metadata, "statistics": statistics, **told})
        return
    out = console()
    _checked(lambda: _show(out.print, metadata, statistics), server)
    if provenance.rows(records["provenance"]):
        out.print("")
        out.print(provenance.shown(records["provenance"]))
    if records["optimization"]:
        out.print("")
        out.print(optimization.shown(records["optimization"], f"{server.url}{path}/report"))


@models.command()
@click.argument("name")
@click.option("--config", metavar="JSON", help="A model configuration as JSON, instead of the one in the repository.")
@_for_server
def load(server: Server, name: str, config: str | None) -> None:
    """Load or reload a model (explicit control mode)."""
    body: dict[str, Any] = {"parameters": {"config": config}} if config else {}
    server.ask("POST", f"{_path(name, 'repository/models')}/load", body, usual_timeout_s=LOAD_TIMEOUT_S)
    click.echo(f"{name} is loaded")


@models.command()
@click.argument("name")
@_for_server
def unload(server: Server, name: str) -> None:
    """Begin to unload a model (explicit control mode)."""
    server.ask("POST", f"{_path(name, 'repository/models')}/unload", {})
    click.echo(f"{name} is being unloaded; running requests are finished first")


def _path(name: str, room: str = "models") -> str:
    return f"/v2/{room}/{quote(name, safe='')}"


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _checked(make: Callable[[], Any], server: Server) -> Any:
    """`make()`, with an answer that is not V2's told in one sentence."""
    try:
        return make()
    except (TypeError, KeyError, AttributeError, ValueError) as exc:
        raise click.ClickException(f"{server.url} does not answer as a V2 server does") from exc


def _statistics(server: Server) -> dict[tuple[str, str], Any]:
    """Counters by (model, version); empty when the server keeps them closed."""
    try:
        answer = server.ask("GET", "/v2/models/stats")
    except click.ClickException:
        return {}
    return _checked(lambda: {(s["name"], s["version"]): s for s in answer["model_stats"]}, server)  # type: ignore[no-any-return]


def _record(server: Server, path: str, name: str) -> Mapping[str, Any]:
    """What is told of the model beside its metadata; empty when there is nothing, or the server does not tell."""
    try:
        answer = server.ask("GET", f"{path}/{name}")
    except click.ClickException:
        return {}
    return answer if isinstance(answer, dict) else {}


def _row(entry: Mapping[str, Any], counts: Mapping[tuple[str, str], Any]) -> list[str]:
    key = (entry["name"], str(entry.get("version", "")))
    numbers = ["", "", ""]
    if key in counts:
        found = counts[key]
        runs = int(found["execution_count"])
        numbers = [
            str(found["inference_stats"]["success"]["count"]),
            str(found["inference_stats"]["fail"]["count"]),
            f"{int(found['inference_count']) / runs:.1f}" if runs else "",
        ]
    return [key[0], key[1], entry.get("state") or "not loaded", *numbers, entry.get("reason", "")]


def _show(out: Callable[[Any], None], metadata: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
    out(f"{metadata['name']} ({metadata['platform']}), versions {', '.join(metadata['versions'])}")
    for side in ("inputs", "outputs"):
        rows = [[spec["name"], spec["datatype"], str(list(spec["shape"]))] for spec in metadata[side]]
        out("")
        out(table(side.removesuffix("s"), "type", "shape", rows=rows))
    properties = metadata.get("properties") or {}
    if properties:
        out("")
        out(table("property", "value", rows=[[str(key), str(value)] for key, value in properties.items()]))
    rows = [
        [
            each["version"],
            str(each["inference_stats"]["success"]["count"]),
            str(each["inference_stats"]["fail"]["count"]),
            *(
                _mean_ms(each["inference_stats"][stage])
                for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output")
            ),
        ]
        for each in statistics["model_stats"]
    ]
    out("")
    out(table("version", "requests", "failed", "mean ms", "queue", "input", "run", "output", rows=rows))


def _mean_ms(duration: Mapping[str, Any]) -> str:
    count = int(duration["count"])
    return f"{int(duration['ns']) / count / 1e6:.3f}" if count else ""
