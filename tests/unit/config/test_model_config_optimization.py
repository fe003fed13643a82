"""[optimization] of config.toml, and what an optimisation's advice makes of [execution]."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorquay.config.effective import effective
from tensorquay.config.model import (
    BackgroundOptimization,
    EffectiveConfig,
    ExecutionConfig,
    ModelConfig,
    OptimizationConfig,
    ProviderConfig,
)
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_pbtxt
from tensorquay.config.triton_write import to_triton_json
from tensorquay.core.datatypes import DataType
from tensorquay.core.signature import TensorSpec

X = [TensorSpec("x", DataType.FP32, (-1, 2), axis_names=("batch", None))]
Y = [TensorSpec("y", DataType.FP32, (-1, 2), axis_names=("batch", None))]
ADVICE = ExecutionConfig(
    graph_optimization="disabled",
    intra_op_threads=4,
    spinning=True,
    session_options={"session.a": "1", "session.b": "1"},
)


def in_force(config: ModelConfig | None, advice: ExecutionConfig | None = ADVICE) -> EffectiveConfig:
    return effective("m", config, X, Y, advice=advice)


def test_every_key_is_read() -> None:
    config = parse_toml(
        """
[optimization]
background = "stale"
objective = "throughput"
max_drop = 0.005
min_cosine = 0.99
metric = "top1"
data = "calibration/digits.npz"
labels = "calibration/labels.npy"
time_budget_s = 120
batches = [1, 8, 32]
"""
    )
    assert config.optimization == OptimizationConfig(
        BackgroundOptimization.STALE,
        *("throughput", 0.005, 0.99, "top1", "calibration/digits.npz", "calibration/labels.npy", 120.0, (1, 8, 32)),
    )


def test_a_share_may_be_a_percentage() -> None:
    assert parse_toml('[optimization]\nmax_drop = "0.5%"').optimization.max_drop == pytest.approx(0.005)


def test_nothing_is_optimised_unless_it_is_asked_for() -> None:
    assert parse_toml("").optimization.background is BackgroundOptimization.NEVER
    assert in_force(None, None).origins["optimization.background"] == "default"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('background = "sometimes"', "'never', 'stale' or 'always'"),
        ('objective = "fast"', "'balanced', 'latency', 'throughput' or 'size'"),
        ("max_drop = 5", "a share from 0 to 1 (0.005 is half a percent)"),
        ("max_drop = nan", "a share from 0 to 1"),
        ('max_drop = "much"', "it must be a number"),
        ("min_cosine = 1.1", "from -1 to 1"),
        ('metric = "top3"', "'top1', 'top5', 'f1'"),
        ('metric = "top1"', "there are none"),
        ('labels = "l.npy"', "there is no data"),
        ('data = "../other/secrets.npz"', "stays inside its folder"),
        ('data = "/etc/passwd"', "stays inside its folder"),
        ('data = "d.npz"\nlabels = "a/../../l.npy"', "stays inside its folder"),
        ("time_budget_s = 0", "from 1 to 86400 seconds"),
        ("time_budget_s = inf", "from 1 to 86400 seconds"),
        ("batches = [0]", "from 1 to"),
        ("batches = [8, 8]", "a size is twice"),
        (f"batches = {list(range(1, 18))}", "at most 16"),
        ("batches = 8", "it must be a list"),
        ("backgrond = true", "did you mean 'background'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_key(line: str, said: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        parse_toml(f"[optimization]\n{line}\n")
    assert said in caught.value.message
    assert "config.toml" in caught.value.message
    assert "optimization." in caught.value.message


def test_tritons_own_optimization_block_is_something_else() -> None:
    config = parse_pbtxt("optimization { graph { level: 1 } }")
    assert config.execution.graph_optimization == "extended"
    assert config.optimization == OptimizationConfig()


def test_advice_fills_what_the_file_leaves_open_and_says_so() -> None:
    found = in_force(parse_toml("[execution]\nintra_op_threads = 2\nsession_options = { 'session.a' = '0' }\n"))
    execution = found.config.execution
    assert (execution.graph_optimization, execution.intra_op_threads, execution.spinning) == ("disabled", 2, True)
    assert execution.session_options == {"session.a": "0", "session.b": "1"}
    for key, origin in (("graph_optimization", "optimization.json"), ("intra_op_threads", "config.toml")):
        assert found.origins[f"execution.{key}"] == origin
    assert found.origins["execution.session_options"] == "config.toml, optimization.json"
    assert found.origins["execution.parallel"] == "default"


@pytest.mark.parametrize(
    "config",
    [
        parse_toml('[execution]\nspinning = false\nintra_op_threads = 0\ngraph_optimization = "all"\n'),
        parse_pbtxt(
            'parameters { key: "session.intra_op.allow_spinning" value { string_value: "0" } }'
            'parameters { key: "intra_op_thread_count" value { string_value: "0" } }'
            "optimization { graph { level: 2 } }"
        ),
    ],
)
def test_what_a_file_says_wins_also_where_it_says_the_default(config: ModelConfig) -> None:
    found = in_force(config)
    assert (found.config.execution.spinning, found.config.execution.intra_op_threads) == (False, 0)
    for key in ("spinning", "intra_op_threads", "graph_optimization"):
        assert found.origins[f"execution.{key}"] == config.source


def test_writing_the_default_is_another_configuration_than_writing_nothing() -> None:
    """Else a server would not load it again, and the advice would stay in force."""
    assert parse_toml("[execution]\nspinning = false\n") != parse_toml("")


@pytest.mark.parametrize(
    ("text", "followed"),
    [
        ("", True),
        ('[execution]\nproviders = ["cpu"]\n', False),
        ('[instances]\nkind = "cpu"\n', False),
        ('[instances]\nkind = "gpu"\n', False),
        ("[instances]\ngpus = [1]\n", False),
        ("[instances]\ncount = 2\n", True),
    ],
)
def test_a_file_that_says_where_to_run_is_not_moved(text: str, followed: bool) -> None:
    found = in_force(parse_toml(text), replace(ADVICE, providers=(ProviderConfig("cuda", {"use_tf32": "0"}),)))
    assert (found.config.execution.providers[:1] == (ProviderConfig("cuda", {"use_tf32": "0"}),)) is followed
    assert (found.origins["execution.providers"] == "optimization.json") is followed


def test_without_advice_nothing_comes_from_it() -> None:
    assert "optimization.json" not in in_force(parse_toml(""), None).origins.values()


def test_the_config_endpoint_shows_what_is_in_force_and_it_loads_again() -> None:
    shown = to_triton_json(in_force(parse_toml("")))
    assert shown["optimization"]["graph"]["level"] == 2
    assert shown["parameters"]["intra_op_thread_count"]["string_value"] == "4"
    insisted = to_triton_json(in_force(parse_toml("[execution]\nspinning = false\n")))
    assert insisted["parameters"]["session.intra_op.allow_spinning"]["string_value"] == "0"
