"""Import a user's Python file, for factories given as `file.py:factory`. Runs it: only where that is trusted."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tensorquay_convert.errors import BadSource


def module_of(path: Path) -> ModuleType:
    """The module in `path`. Its neighbours are found as when the file is run.

    Raises: BadSource when there is no such Python file; whatever the file itself raises.
    """
    spec = importlib.util.spec_from_file_location(f"tensorquay_factory_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadSource(f"there is no Python file '{path}'", remedy="check the path before the colon")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and exporters look the module up by its name.
    sys.modules[spec.name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module
