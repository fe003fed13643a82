"""What the process says about models that failed, before it ends."""

from __future__ import annotations

import pytest

from tensorquay.app import _named


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("backend: unknown, got 'python'", "model 'python': backend: unknown, got 'python'"),
        ("model 'python' has no available versions", "model 'python' has no available versions"),
        ("failed to load 'python', gone", "failed to load 'python', gone"),
    ],
)
def test_a_problem_at_exit_names_its_model_once(problem, told):
    assert _named("python", (problem,)) == [told]
