"""What the process finds around it: the user's folders, and variables that programs it starts may see."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path


def user_cache() -> Path:
    """This user's folder for what can be made again (XDG Base Directory Specification); temporary without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return Path(tempfile.gettempdir())


def variables(names: Collection[str]) -> Mapping[str, str]:
    """Those of `names` that are set, with their values."""
    return {name: os.environ[name] for name in names if name in os.environ}
