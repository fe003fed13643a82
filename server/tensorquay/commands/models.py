"""`tensorquay models`: what a running server serves, told by its V2 HTTP interface. Knows no part of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import click
import httpx

from tensorquay.commands.output import console, table

DEFAULT_URL = "http://127.0.0.1:8000"
_STYLES = {"READY": "green", "UNAVAILABLE": "red", "LOADING": "yellow", "UNLOADING": "yellow"}
_LOAD_TIMEOUT_S = 600.0


class Server:
    """A server by its URL.

    Args: transport: replaces the network in tests.
    """

    def __init__(self, url: str, timeout_s: float, transport: httpx.BaseTransport | None = None) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._timeout_s = timeout_s
        self._transport = transport

    def ask(self, verb: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 0.0) -> Any:
        """The decoded answer, or None when it is empty.

        Raises: ClickException in one sentence when there is no server, or it refuses.
        """
        try:
            with httpx.Client(timeout=timeout_s or self._timeout_s, transport=self._transport) as client:
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


@click.group(
    invoke_without_command=True,
    short_help="Show, load and unload the models of a running server.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--url", envvar="TENSORQUAY_URL", default=DEFAULT_URL, show_default=True, help="The server's HTTP address."
)
@click.option(
    "--timeout", "timeout_s", default=10.0, show_default=True, type=click.FloatRange(min=0.001), help="Seconds."
)
@click.option("--json", "as_json", is_flag=True, help="The server's own words instead of a table.")
@click.pass_context
def models(ctx: click.Context, url: str, timeout_s: float, as_json: bool) -> None:
    """Show the models, versions, states and reasons of a running server."""
    server = ctx.obj = Server(url, timeout_s, ctx.obj if isinstance(ctx.obj, httpx.BaseTransport) else None)
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
@click.option("--json", "as_json", is_flag=True, help="The server's own words.")
@click.pass_obj
def show(server: Server, name: str, version: str, as_json: bool) -> None:
    """Show one model: inputs, outputs, where it runs, its counters."""
    path = _path(name) + (f"/versions/{quote(version, safe='')}" if version else "")
    metadata = server.ask("GET", path)
    statistics = server.ask("GET", f"{path}/stats")
    if as_json:
        _print_json({"metadata": metadata, "statistics": statistics})
        return
    out = console()
    _checked(lambda: _show(out.print, metadata, statistics), server)


@models.command()
@click.argument("name")
@click.option("--config", help="A model configuration as JSON, instead of the one in the repository.")
@click.pass_obj
def load(server: Server, name: str, config: str | None) -> None:
    """Load or reload a model (explicit control mode)."""
    body: dict[str, Any] = {"parameters": {"config": config}} if config else {}
    server.ask("POST", f"{_path(name, 'repository/models')}/load", body, timeout_s=_LOAD_TIMEOUT_S)
    click.echo(f"{name} is loaded")


@models.command()
@click.argument("name")
@click.pass_obj
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
