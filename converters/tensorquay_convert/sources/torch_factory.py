"""Open models that a Python function makes: `path/to/model.py:factory` or `package.module:factory`.

This is the one source whose code runs, because the user names it. The factory takes no arguments and gives an
nn.Module, or a pair (module, example inputs). Weights come from a file that holds tensors only.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tensorquay_convert.api import Say
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources.python_file import module_of
from tensorquay_convert.sources.torch_arguments import parameters
from tensorquay_convert.sources.torch_examples import example_inputs
from tensorquay_convert.sources.torch_failures import own_words
from tensorquay_convert.sources.torch_module import ModuleSource, Opened, open_callable

_SHOWN = 5
"""How many names of missing or unexpected weights are told."""


class TorchFactoryConverter:
    """Opens what a factory makes."""

    kinds: tuple[SourceKind, ...] = (SourceKind.TORCH_FACTORY,)
    extra = "torch"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> ModuleSource:
        say(f"calling {job.source}")
        factory, file = find_factory(job.source)
        module, example = _made(factory, job.source)
        files = [file] if file is not None else []
        if job.weights is not None:
            say("loading the weights")
            load_weights(module, Path(job.weights))
            files.append(Path(job.weights))
        given = example_inputs(job, parameters(module.forward))
        opened = Opened(kind, f"a PyTorch module, {type(module).__name__}", tuple(files))
        return open_callable(module, example if given is None and not job.inputs else given, job, opened)


def find_factory(source: str) -> tuple[Callable[[], Any], Path | None]:
    """The function `source` names, and the file it is in.

    Raises: BadSource, in the module's own words when importing it raises.
    """
    where, colon, name = source.rpartition(":")
    if not colon or not name.isidentifier():
        raise BadSource(
            f"'{source}' names no factory", remedy="write path/to/model.py:function or package.module:function"
        )
    try:
        module = module_of(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except BadSource:
        raise
    except ModuleNotFoundError as exc:
        if exc.name is None or not (where == exc.name or where.startswith(f"{exc.name}.")):
            # Something the user's module imports: the package to install is named by whoever called us.
            raise BadSource(
                f"'{where}' needs the module '{exc.name}', which is not installed",
                remedy=f"install it in {sys.executable}, or name another interpreter with --python",
            ) from exc
        raise BadSource(
            f"there is no module '{where}'", remedy="start the import in the folder that holds it, or name the .py file"
        ) from exc
    except Exception as exc:
        raise BadSource(f"'{where}' raises when it is imported: {own_words(exc)}") from exc
    factory = getattr(module, name, None)
    if factory is None:
        there = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise BadSource(
            f"'{where}' has no '{name}'", remedy=f"it has {', '.join(there[:_SHOWN])}" if there else "define it there"
        )
    if not callable(factory):
        raise BadSource(
            f"'{name}' in '{where}' is a {type(factory).__name__}, expected a function without arguments",
            remedy="wrap it: def factory(): return ...",
        )
    file = getattr(module, "__file__", None)
    return factory, None if file is None else Path(file)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Fill the module from safetensors or a state dict; every name has to be there, and no other.

    Raises: BadSource.
    """
    state = _read_weights(path)
    own = module.state_dict()
    wrong = [
        f"{name} {list(state[name].shape)}, expected {list(value.shape)}"
        for name, value in own.items()
        if name in state and isinstance(value, torch.Tensor) and state[name].shape != value.shape
    ]
    if wrong:
        raise BadSource(f"the weights in '{path.name}' have other shapes than the model: {_first_of(wrong)}")
    missing, extra = [name for name in own if name not in state], [name for name in state if name not in own]
    try:
        module.load_state_dict(state, strict=not missing or not _tied(module, missing, state))
    except RuntimeError as exc:
        parts = [f"missing {_first_of(missing)}"] * bool(missing) + [f"unexpected {_first_of(extra)}"] * bool(extra)
        said = "; ".join(parts) or str(exc).splitlines()[0]
        raise BadSource(
            f"the weights in '{path.name}' are not this model's: {said}",
            remedy="save the state_dict of the same module the factory makes",
        ) from exc


def _tied(module: torch.nn.Module, missing: Sequence[str], state: Mapping[str, torch.Tensor]) -> bool:
    """Whether every missing name shares its memory with one that is there: safetensors stores shared tensors once."""
    own = module.state_dict(keep_vars=True)
    there = {own[name].data_ptr() for name in state if name in own}
    return set(state) <= set(own) and all(own[name].data_ptr() in there for name in missing)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise BadSource(f"there are no weights at '{path}'", remedy="give --weights the file that holds them")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415  only needed for these files

            state: Any = load_file(path, device="cpu")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as exc:
        words = next((line.strip() for line in str(exc).splitlines() if line.strip()), "no message")
        pickled = "weights_only" in str(exc) or "Weights only" in str(exc)
        said = "holds pickled objects, which are not trusted: they could run code" if pickled else words[:200]
        raise BadSource(
            f"the weights in '{path.name}' cannot be read: {said}",
            remedy="save them with safetensors, or torch.save(model.state_dict(), 'model.pt')",
        ) from exc
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(each, torch.Tensor) for each in state.values()):
        raise BadSource(
            f"'{path.name}' holds a {type(state).__name__}, expected tensors by name (a state dict)",
            remedy="save model.state_dict()",
        )
    return dict(state)


def _made(factory: Callable[[], Any], source: str) -> tuple[torch.nn.Module, Any]:
    """The module, and its example inputs or None."""
    try:
        made = factory()
    except Exception as exc:
        raise BadSource(
            f"the factory {source} raises: {own_words(exc)}", remedy="it is called without arguments"
        ) from exc
    example = None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module):
        made, example = made
    if not isinstance(made, torch.nn.Module):
        what = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
        raise BadSource(
            f"the factory {source} gives {what}, expected a torch.nn.Module",
            remedy="return a module, or a pair (module, example_inputs); for a JAX function: --kind jax-factory",
        )
    return made, example


def _first_of(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
