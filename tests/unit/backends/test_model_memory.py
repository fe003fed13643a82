"""A model that cannot fit below the memory limit is refused in words instead of ended by the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.backends.onnxruntime import model_file
from tensorquay.core.errors import ModelFailed

MIB = 2**20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(30 * MIB)
    return path


def limit(monkeypatch: pytest.MonkeyPatch, found: tuple[int, int] | None) -> None:
    monkeypatch.setattr(model_file, "tightest_memory_limit", lambda _root: found)


@pytest.mark.parametrize("version", [1, 2])
def test_it_is_refused_with_size_limit_and_remedy(model: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    limit(monkeypatch, (version, 99 * MIB))
    with pytest.raises(ModelFailed) as refused:
        model_file.read_model(model)
    text = refused.value.message
    assert text.startswith(f"'model.onnx' has {30 * MIB} bytes")
    assert f"limit of {99 * MIB} bytes (cgroup v{version})" in text
    assert "raise the limit" in text
    assert str(model.parent) not in text


@pytest.mark.parametrize("found", [None, (2, 100 * MIB), (1, 10**15)])
def test_what_may_fit_is_read(model: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[int, int] | None) -> None:
    limit(monkeypatch, found)
    data, info = model_file.read_model(model)
    assert len(data) == info.st_size == 30 * MIB


@given(size=st.integers(1, model_file.MAX_MODEL_BYTES), less=st.integers(0, 2**32), bound=st.integers(1, 2**40))
def test_a_smaller_model_is_never_refused_where_a_larger_one_is_not(size: int, less: int, bound: int) -> None:
    def refused(count: int) -> bool:
        try:
            model_file._refuse_without_room(Path("model.onnx"), count, (2, bound))
        except ModelFailed:
            return True
        return False

    assert refused(size) or not refused(max(1, size - less))
