"""Write what dashboards and alerts are made of: Grafana's dashboard, and the operator's rules as a plain file.

`make boards` runs it:  python -m tests.tools.boards
`--check` writes nothing and says what is stale; tests/boards refuses a stale file. Change panels in
`tests/tools/dashboard.py`, alerts in k8s/components/prometheus-operator/prometheusrule.yaml.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.tools.dashboard import tensorquay

ROOT = Path(__file__).absolute().parents[2]

DASHBOARD = "docker/grafana/dashboards/tensorquay.json"
RULES = "docker/prometheus/rules.yml"
OPERATORS_RULES = "k8s/components/prometheus-operator/prometheusrule.yaml"

_HEAD = f"""\
# Alerts for a Prometheus without the operator. Made from {OPERATORS_RULES}
# by `make boards`: change them there.
"""


def dashboard_text() -> str:
    """The dashboard as Grafana imports it."""
    return json.dumps(tensorquay(), indent=2, ensure_ascii=False) + "\n"


def rules_text() -> str:
    """The operator's groups of rules, which are all that Prometheus itself knows of its resource."""
    _, _, spec = (ROOT / OPERATORS_RULES).read_text(encoding="utf-8").partition("\nspec:\n")
    return _HEAD + textwrap.dedent(spec)


FILES: tuple[tuple[str, Callable[[], str]], ...] = ((DASHBOARD, dashboard_text), (RULES, rules_text))
"""File → the function that returns its whole text."""


def stale() -> list[str]:
    """The files that say something else than they would if they were made now."""
    return [name for name, make in FILES if not (ROOT / name).exists() or (ROOT / name).read_text("utf-8") != make()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` only compare. Exit code 1: something is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check: bool = parser.parse_args(arguments).check
    outdated = stale()
    for name, make in FILES:
        if name in outdated and check:
            print(f"stale: {name}; run make boards")
        elif name in outdated:
            (ROOT / name).write_text(make(), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
