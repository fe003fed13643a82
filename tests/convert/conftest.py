"""What the import tests of several frameworks share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def tensorflow_zoo(tmp_path_factory: pytest.TempPathFactory) -> object:
    """TensorFlow models on disk, each made when it is first asked for; skips where TensorFlow is not installed."""
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    from tests.convert.tensorflow_zoo import Zoo

    return Zoo(tmp_path_factory.mktemp("tensorflow"))
