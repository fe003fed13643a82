"""Which frameworks are there to import models from, and what brings those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, listed, note, ok, problem, warning
from tensorquay.commands.doctor.wheels import fits, needed

EXTRAS: Mapping[str, tuple[str, frozenset[str]]] = {
    "torch": ("PyTorch and Hugging Face models", frozenset({"torch"})),
    "tensorflow": ("TensorFlow, Keras and TensorFlow Lite models", frozenset({"tensorflow", "tensorflow-cpu"})),
    "jax": ("JAX models", frozenset({"jax"})),
    "sklearn": ("scikit-learn models", frozenset({"scikit-learn"})),
    "boosting": ("XGBoost and LightGBM models", frozenset({"xgboost", "xgboost-cpu", "lightgbm"})),
    "optimize": ("graph rewriting by 'tensorquay optimize'", frozenset({"onnxscript"})),
}
"""Extra → what it is for, and the packages without which none of it is there."""

AskVersions = Callable[[Sequence[str]], Ended]
"""Asks the interpreter that imports run in; see `probe.versions`."""


def examine(
    requirements: Sequence[str] | None, ask_versions: AskVersions, *, python: Path | None = None
) -> Iterator[Finding]:
    """Findings about frameworks. None of them is needed to serve ONNX files.

    Args: python: the interpreter imports run in (`import_python`); None for ours.
    """
    if requirements is None:
        return
    wanted = {extra: needed(requirements, extra) for extra in EXTRAS}
    names = sorted({name for each in wanted.values() for name in each})
    ended = ask_versions(names)
    said = ended.document()
    if not isinstance(said, dict):
        where = f"the interpreter '{python}' (--import-python)" if python is not None else "a fresh interpreter"
        yield problem(
            "frameworks.interpreter",
            f"{where} {ended.why or 'gave no answer'}: no model of a framework can be imported",
            "name a Python of 3.11 or newer that has the frameworks" if python is not None else "",
        )
        return
    if python is not None:
        yield ok("frameworks.interpreter", f"imports run in {python}, Python {said['python']}")
    where = f" in {python}" if python is not None else ""
    for extra, packages in wanted.items():
        yield _of_extra(extra, packages, said["versions"], where)


def _of_extra(extra: str, packages: Mapping[str, str], have: Mapping[str, str], where: str) -> Finding:
    what, main = EXTRAS[extra]
    check = f"frameworks.{extra}"
    install = f"pip install 'tensorquay[{extra}]'{where}"
    absent = [name for name in packages if not have.get(name)]
    if not any(have.get(name) for name in main & packages.keys()):
        return note(check, f"absent, {what}", f"{install}, if they are wanted")
    if absent:
        return note(check, f"incomplete, {what}: {listed(absent)} missing", f"{install}, if they are wanted")
    old = [f"{name} {have[name]} (expected {bound})" for name, bound in packages.items() if not fits(have[name], bound)]
    if old:
        return warning(check, f"too old, {what}: {listed(old)}", f"{install} --upgrade")
    return ok(check, f"present, {what}: {listed([f'{name} {have[name]}' for name in packages])}")
