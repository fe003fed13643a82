"""`tensorquay doctor`: puts all questions, one section after the other, and says how it stands.

Takes the arguments of `serve`: whoever's server does not start puts "doctor" in the place of "serve". Needs no server,
no network and no rights; changes nothing. Exit code 0 when nothing is a problem, 1 when something is, 2 for wrong use.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import click

from tensorquay.backends.onnxruntime.runtime import installed_wheels
from tensorquay.commands.doctor import (
    children,
    clock,
    frameworks,
    limits,
    ports,
    processor,
    program,
    providers,
    report,
    repository,
    settings,
    storage,
    terminal,
    threads,
    wheels,
)
from tensorquay.commands.doctor.bounded import Probe, findings_of
from tensorquay.commands.doctor.findings import Finding, Level
from tensorquay.commands.setting_options import SettingsCommand, chosen, option
from tensorquay.config.machine import cpu_facts
from tensorquay.config.resources import cpu_budget
from tensorquay.config.server import InvalidServerConfig, ServerConfig
from tensorquay.config.server_sources import load
from tensorquay.core.clock import SystemClock

_SHOWN = frozenset(
    {
        "model_repository",
        "http_host",
        "http_port",
        "grpc_host",
        "grpc_port",
        "metrics_host",
        "metrics_port",
        "threads",
        "frontends",
        "import_cache",
        "import_python",
        "log_file",
        "trace_file",
    }
)
"""Settings whose options are listed in the help; the others are taken too."""

_TIMEOUT_S = 60.0
_PACKAGE = Path(__file__).parents[2]


def sections(
    config: ServerConfig, problems: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
) -> Iterator[tuple[str, Probe]]:
    """Every section and its probe, in order, on this machine."""
    time = SystemClock()
    now_ms = time.wall_ms()
    requirements = wheels.own_requirements()

    def of_wheels() -> Iterator[Finding]:
        end_ns = time.now_ns() + int(timeout_s / 2 * 1e9)

        def import_all(names: Sequence[str]) -> children.Ended:
            # All of them together, however often one ends the interpreter.
            return children.ask("imports", *names, timeout_s=max((end_ns - time.now_ns()) / 1e9, 1.0))

        return wheels.examine(requirements, import_all=import_all, folders=wheels.package_folders())

    @cache
    def runtime() -> children.Ended:
        return children.ask("runtime", timeout_s=timeout_s / 2)

    def of_providers() -> Iterator[Finding]:
        return providers.examine(runtime(), environment, wheels_fit=len(installed_wheels()) == 1)

    def of_frameworks() -> Iterator[Finding]:
        python = config.import_python

        def ask_versions(names: Sequence[str]) -> children.Ended:
            return children.ask("versions", *names, timeout_s=timeout_s / 2, python=str(python or ""))

        return frameworks.examine(requirements, ask_versions, python=python)

    def of_repository() -> Iterator[Finding]:
        def check(arguments: Sequence[str]) -> children.Ended:
            command = [sys.executable, "-m", "tensorquay", "check", "--json", *arguments]
            return children.run(command, timeout_s=timeout_s / 2, code=1)

        return repository.examine(config, check, lambda: providers.usable_gpus(runtime()))

    def of_terminal() -> Iterator[Finding]:
        return terminal.examine(
            environment,
            encoding=sys.stdout.encoding or "unknown",
            files=sys.getfilesystemencoding(),
            is_terminal=sys.stdout.isatty(),
        )

    yield "program", partial(program.examine, metadata_version=wheels.installed_version(wheels.DISTRIBUTION))
    yield "packages", of_wheels
    yield "providers", of_providers
    yield "processor", lambda: processor.examine(cpu_facts(), platform.machine())
    yield "limits", partial(limits.examine, config, disk=storage.disk_of)
    yield "threads", lambda: threads.examine(config, cpu_budget(), environment)
    yield "settings", partial(settings.examine, config, problems)
    yield "tls", partial(settings.certificates, config, now_ms // 1000)
    yield "ports", partial(ports.examine, config)
    yield "storage", partial(storage.examine, config, environment)
    yield "repository", of_repository
    yield "frameworks", of_frameworks
    yield "clock", lambda: clock.examine(now_ms, int(_PACKAGE.stat().st_mtime * 1000), environment)
    yield "terminal", of_terminal


def _doctor(
    repositories: tuple[str, ...],
    config_file: str | None,
    as_json: bool,
    timeout_s: float,
    **given: str | tuple[str, ...] | None,
) -> None:
    ctx = click.get_current_context()
    problems: Sequence[str] = ()
    try:
        config = chosen(ctx, repositories, config_file, given)
    except InvalidServerConfig as exc:
        problems = exc.problems
        config = load(environment={}, command_line={"model_repository": list(repositories)})
    findings: list[Finding] = []
    for name, probe in sections(config, problems, os.environ, timeout_s=timeout_s):
        findings += findings_of(name, probe, timeout_s=timeout_s)
    if as_json:
        click.echo(report.as_json(findings))
    else:
        report.show(findings)
    ctx.exit(1 if any(each.level is Level.PROBLEM for each in findings) else 0)


doctor = SettingsCommand(
    "doctor",
    callback=_doctor,
    params=[
        click.Argument(["repositories"], nargs=-1, metavar="[REPOSITORY]..."),
        click.Option(["--config", "config_file"], metavar="FILE", help="Settings in TOML, as for 'serve'."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs."),
        click.Option(
            ["--timeout", "timeout_s"],
            type=click.FloatRange(min=1, max=3600),
            default=_TIMEOUT_S,
            show_default=True,
            metavar="SECONDS",
            help="Longest look at each section; what takes longer is a problem of its own.",
        ),
        *(option(name, hidden=name not in _SHOWN) for name in ServerConfig.model_fields),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    short_help="Say what keeps the server from working.",
    epilog="Exit codes: 0 no problem; 1 a problem; 2 wrong use.",
    help="Look at everything the server needs and say what is wrong and what to do: packages, execution providers and "
    "their libraries, processor, limits of the container, settings, ports, disks, the model repository, frameworks.\n\n"
    "Takes every option of 'serve', and the same file and environment: put 'doctor' in the place of 'serve'. Needs no "
    "server, no network and no rights, and changes nothing.",
)
