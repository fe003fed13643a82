"""What `tensorquay models show` says about where a model comes from, out of its `provenance.json`.

The file is whoever's wrote the repository: what is missing in it or of another type is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorquay.commands.output import table


def rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Name and value of what is worth a line, in order."""
    source, conversion = _table(record, "source"), _table(record, "conversion")
    proof, environment = _table(record, "proof"), _table(record, "environment")
    packages = environment.get("packages")
    found = [
        ("source", _text(source, "shown")),
        ("given as", _text(source, "given")),
        ("sha256", _text(source, "sha256")),
        ("imported", _text(record, "imported_at")),
        ("exporter", _joined([_text(conversion, "exporter"), _numbered("operator set", conversion.get("opset"))])),
        ("proof", _proof(proof)),
        (
            "packages",
            ", ".join(f"{name} {each}" for name, each in sorted(packages.items()))
            if isinstance(packages, dict)
            else "",
        ),
        ("command", " ".join(str(each) for each in _list(record, "command"))),
    ]
    return [[name, value] for name, value in found if value]


def shown(record: Mapping[str, Any]) -> Any:
    """The rows as a table to print."""
    return table("provenance", "value", rows=rows(record))


def _proof(proof: Mapping[str, Any]) -> str:
    if not proof:
        return ""
    verdict = "equal" if proof.get("passed") is True else "NOT EQUAL"
    worst = proof.get("max_absolute")
    inputs = "with inputs of its owner's" if proof.get("real_inputs") is True else "seeded inputs only"
    return _joined(
        [
            verdict,
            _numbered("cases:", proof.get("cases")),
            f"largest error {worst:.3g}" if isinstance(worst, float | int) else "",
            inputs,
        ]
    )


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(each for each in parts if each)


def _numbered(name: str, value: object) -> str:
    return f"{name} {value}" if isinstance(value, int) else ""


def _table(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _list(record: Mapping[str, Any], name: str) -> Sequence[object]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
