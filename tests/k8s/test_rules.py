"""Alerts fire when they should and at no other time, and autoscalers are told true numbers: promtool says so."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.k8s.promql import exported
from tests.k8s.rendering import K8S, Manifest, component_file, documents
from tests.support import ask
from tests.support.http_raw import exchange, request
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

POD = 'namespace="tensorquay",pod="a"'
DIGITS = f'{POD},model="digits",version="1"'
NEXT = f'{POD},model="digits",version="2"'
WHOLE = f'{POD},model="digits"'

Series = dict[str, str]
"""A series → its values in promtool's notation, one in fifteen seconds."""


def groups() -> list[Manifest]:
    (rule,) = documents((K8S / "components/prometheus-operator/prometheusrule.yaml").read_text())
    found: list[Manifest] = rule["spec"]["groups"]
    return found


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus): rules and queries were NOT tried")
    return found


def run(promtool: str, *arguments: str) -> str:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_every_rule(promtool: str, tmp_path: Path) -> None:
    """Names, expressions, templates."""
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": groups()}))
    alerts = sum(len(group["rules"]) for group in groups())
    assert f"SUCCESS: {alerts} rules found" in run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(file))


@dataclass(frozen=True)
class Scene:
    """What Prometheus has seen, and which alerts fire after how long; labels beside the ones that the rule sets."""

    says: str
    series: Series
    at: str
    fires: dict[str, dict[str, str]]


def states(labels: str, now: str, values: str = "1x200") -> Series:
    """tensorquay_model_state of one version that is `now`, as the server exports it."""
    return {
        f'tensorquay_model_state{{{labels},state="{state}"}}': values if state == now else "0x200"
        for state in ("UNKNOWN", "LOADING", "READY", "UNLOADING", "UNAVAILABLE")
    }


def failed(labels: str, values: str) -> Series:
    """tensorquay_model_failed of one version, or of a model as a whole."""
    return {f"tensorquay_model_failed{{{labels}}}": values}


ANSWERED = f"nv_inference_request_success{{{DIGITS}}}"

REFUSED = f'tensorquay_refused_requests_total{{{{{POD},reason="{{}}"}}}}'


def failing(reason: str) -> str:
    return f'nv_inference_request_failure{{{DIGITS},reason="{reason}"}}'


def buckets(above_a_second: str) -> Series:
    """tensorquay_request_seconds of which a share is slow."""
    return {
        f'tensorquay_request_seconds_bucket{{{DIGITS},le="0.5"}}': "0+100x200",
        f'tensorquay_request_seconds_bucket{{{DIGITS},le="1"}}': "0+100x200",
        f'tensorquay_request_seconds_bucket{{{DIGITS},le="2.5"}}': above_a_second,
        f'tensorquay_request_seconds_bucket{{{DIGITS},le="+Inf"}}': above_a_second,
    }


def imports(result: str, values: str) -> Series:
    return {f'tensorquay_imports_total{{{POD},result="{result}"}}': values}


def share(provider: str, part: float) -> Series:
    """tensorquay_provider_node_share of one provider."""
    return {f'tensorquay_provider_node_share{{{DIGITS},provider="{provider}"}}': f"{part}x200"}


def throttled(stopped: str, ran: str = "0+150x200") -> Series:
    """Periods in which the container was stopped, of those in which it ran."""
    return {
        f"tensorquay_container_cpu_throttled_periods_total{{{POD}}}": stopped,
        f"tensorquay_container_cpu_periods_total{{{POD}}}": ran,
    }


def memory(used: int) -> Series:
    """Of a limit of 1000 bytes."""
    return {
        f"tensorquay_container_memory_bytes{{{POD}}}": f"{used}x200",
        f"tensorquay_container_memory_limit_bytes{{{POD}}}": "1000x200",
    }


MODEL = {"namespace": "tensorquay", "pod": "a", "model": "digits"}
STARTS = f"process_start_time_seconds{{{POD}}}"
BUILD = f'tensorquay_build_info{{{POD},version="0.1.0"}}'

SCENES = [
    Scene("all is well", states(DIGITS, "READY") | failed(DIGITS, "0x200"), "45m", {}),
    Scene(
        "a model cannot be loaded",
        states(DIGITS, "UNAVAILABLE") | failed(DIGITS, "1x200"),
        "15m",
        {"TensorquayModelNotReady": MODEL, "TensorquaySwapFailed": MODEL | {"version": "1"}},
    ),
    Scene(
        "a configuration is refused",
        states(WHOLE, "UNAVAILABLE") | failed(WHOLE, "1x200"),
        "15m",
        {"TensorquayModelNotReady": MODEL, "TensorquaySwapFailed": MODEL},
    ),
    Scene(
        "a load does not end",
        states(DIGITS, "LOADING") | failed(DIGITS, "0x200"),
        "15m",
        {"TensorquayModelNotReady": MODEL},
    ),
    Scene("a load takes its time", states(DIGITS, "LOADING") | failed(DIGITS, "0x200"), "8m", {}),
    Scene("a model was unloaded on request", states(DIGITS, "UNAVAILABLE") | failed(DIGITS, "0x200"), "45m", {}),
    Scene(
        "a new version is bad, the old one serves",
        states(DIGITS, "READY")
        | failed(DIGITS, "0x200")
        | states(NEXT, "UNAVAILABLE", "_x20 1x180")
        | failed(NEXT, "_x20 1x180"),
        "15m",
        {"TensorquaySwapFailed": MODEL | {"version": "2"}},
    ),
    Scene(
        "the bad version was taken away again",
        states(DIGITS, "READY") | failed(DIGITS, "0x200") | failed(NEXT, "1x20 _x180"),
        "45m",
        {},
    ),
    Scene(
        "what once failed was corrected, and is not served any more",
        states(DIGITS, "UNAVAILABLE")
        | failed(DIGITS, "1x20 0x180")
        | {f"tensorquay_model_load_failures_total{{{DIGITS}}}": "1x200"},
        "45m",
        {},
    ),
    Scene(
        "a load request failed beside what serves",
        states(DIGITS, "READY")
        | failed(DIGITS, "0x200")
        | {f"tensorquay_model_load_failures_total{{{DIGITS}}}": "0x40 1x160"},
        "13m",
        {"TensorquaySwapFailed": MODEL | {"version": "1"}},
    ),
    Scene(
        "a changed file is bad, what was loaded serves",
        states(DIGITS, "READY") | failed(DIGITS, "0x40 1x160"),
        "13m",
        {"TensorquaySwapFailed": MODEL | {"version": "1"}},
    ),
    Scene(
        "a queue that never empties",
        {f"nv_inference_pending_request_count{{{DIGITS}}}": "10+5x200"},
        "12m",
        {"TensorquayQueueGrowing": MODEL | {"version": "1"}},
    ),
    Scene(
        "bursts that drain",
        {f"nv_inference_pending_request_count{{{DIGITS}}}": "500 0 500 0 500 0" + " 500 0" * 97},
        "45m",
        {},
    ),
    Scene(
        "the model fails",
        {
            ANSWERED: "0+90x200",
            failing("BACKEND"): "0+10x200",
            failing("REJECTED"): "0x200",
            failing("CANCELED"): "0x200",
        },
        "15m",
        {"TensorquayRequestsFail": {"namespace": "tensorquay", "model": "digits", "reason": "BACKEND"}},
    ),
    Scene(
        "clients give up",
        {ANSWERED: "0+50x200", failing("BACKEND"): "0x200", failing("CANCELED"): "0+50x200"},
        "15m",
        {},
    ),
    Scene("nobody asks", {ANSWERED: "7x200", failing("BACKEND"): "0x200", failing("CANCELED"): "0x200"}, "15m", {}),
    Scene(
        "the door is shut",
        {f'tensorquay_admission_rejected_total{{{POD},reason="bytes"}}': "0+1x200"},
        "12m",
        {"TensorquayRequestsRefused": {"namespace": "tensorquay", "pod": "a", "reason": "bytes"}},
    ),
    Scene(
        "clients ask for what was unloaded, and nothing else is served",
        {REFUSED.format("not_found"): "0+1x200"},
        "12m",
        {"TensorquayRequestsUnserved": {"namespace": "tensorquay", "pod": "a", "reason": "not_found"}},
    ),
    Scene(
        "clients ask for what was unloaded",
        {REFUSED.format("not_found"): "0+2x200", ANSWERED: "0+98x200"},
        "12m",
        {"TensorquayRequestsUnserved": {"namespace": "tensorquay", "pod": "a", "reason": "not_found"}},
    ),
    Scene(
        "somebody tries names, wrong requests are many, and once a model was being loaded",
        {
            REFUSED.format("not_found"): "0+1x200",
            REFUSED.format("invalid_argument"): "0+100x200",
            REFUSED.format("unavailable"): "0x10 400x190",
            ANSWERED: "0+900x200",
        },
        "6m",
        {},
    ),
    Scene(
        "one in fifty is slow",
        buckets("0+102x200"),
        "20m",
        {"TensorquayLatencyHigh": {"namespace": "tensorquay", "model": "digits"}},
    ),
    Scene("one in a thousand is slow", buckets("0+100.1x200"), "20m", {}),
    Scene(
        "Prometheus hears nothing",
        {f'up{{{POD},job="tensorquay"}}': "0x200"},
        "10m",
        {"TensorquayDown": {"namespace": "tensorquay", "pod": "a", "job": "tensorquay"}},
    ),
    Scene(
        "three restarts",
        {STARTS: "1x20 2x20 3x20 4x140", BUILD: "1x200"},
        "20m",
        {"TensorquayRestarts": {"namespace": "tensorquay", "pod": "a"}},
    ),
    Scene("another program restarts", {STARTS: "1x20 2x20 3x20 4x140"}, "20m", {}),
    Scene("one restart", {STARTS: "1x20 2x180", BUILD: "1x200"}, "20m", {}),
    Scene(
        "more is asked than can be done",
        {f"tensorquay_utilization{{{POD}}}": "1.3x200"},
        "10m",
        {"TensorquayOverloaded": {"namespace": "tensorquay", "pod": "a"}},
    ),
    Scene("as much is asked as can be done", {f"tensorquay_utilization{{{POD}}}": "1x200"}, "20m", {}),
    Scene("a moment of too much", {f"tensorquay_utilization{{{POD}}}": "1.3x12 0.8x188"}, "4m", {}),
    Scene(
        "nothing is taken from a queue",
        {f"tensorquay_queue_oldest_seconds{{{DIGITS}}}": "0+15x200"},
        "5m",
        {"TensorquayQueueStuck": MODEL | {"version": "1"}},
    ),
    Scene("a queue that moves", {f"tensorquay_queue_oldest_seconds{{{DIGITS}}}": "9x200"}, "20m", {}),
    Scene(
        "one long wait that ends",
        {f"tensorquay_queue_oldest_seconds{{{DIGITS}}}": "0x10 12 27 0x190"},
        "3m15s",
        {},
    ),
    Scene(
        "an import fails",
        imports("failed", "0x20 1x180"),
        "10m",
        {"TensorquayImportFailed": {"namespace": "tensorquay", "pod": "a"}},
    ),
    Scene("it failed long ago", imports("failed", "0x20 1x180"), "30m", {}),
    Scene("imports end well", imports("imported", "0+1x200") | imports("failed", "3x200"), "30m", {}),
    Scene(
        "an optimisation fails",
        {f'tensorquay_optimizations_total{{{POD},result="failed"}}': "0x20 1x180"},
        "30m",
        {"TensorquayOptimizationFailed": {"namespace": "tensorquay", "pod": "a"}},
    ),
    Scene(
        "nothing faster is found",
        {f'tensorquay_optimizations_total{{{POD},result="{result}"}}': "0+1x200" for result in ("kept", "stopped")},
        "30m",
        {},
    ),
    Scene(
        "a GPU that most operators do not run on",
        share("CUDAExecutionProvider", 0.3) | share("CPUExecutionProvider", 0.7),
        "20m",
        {"TensorquayNodesOnCpu": MODEL | {"version": "1"}},
    ),
    Scene(
        "a GPU that nothing runs on",
        share("CUDAExecutionProvider", 0) | share("CPUExecutionProvider", 1),
        "20m",
        {"TensorquayNodesOnCpu": MODEL | {"version": "1"}},
    ),
    Scene(
        "a few operators beside the GPU",
        share("CUDAExecutionProvider", 0.9) | share("CPUExecutionProvider", 0.1),
        "20m",
        {},
    ),
    Scene("a model for CPUs", share("CPUExecutionProvider", 1), "20m", {}),
    Scene(
        "stopped in every third period",
        throttled("0+50x200"),
        "20m",
        {"TensorquayThrottled": {"namespace": "tensorquay", "pod": "a"}},
    ),
    Scene("stopped in every tenth period", throttled("0+15x200"), "20m", {}),
    Scene("a limit, and nothing runs", throttled("7x200", "9x200"), "20m", {}),
    Scene(
        "memory is nearly gone",
        memory(950),
        "10m",
        {"TensorquayMemoryNearLimit": {"namespace": "tensorquay", "pod": "a"}},
    ),
    Scene("memory is well used", memory(850), "20m", {}),
    Scene(
        "much memory and no limit",
        {f"tensorquay_container_memory_bytes{{{POD}}}": "999999999999x200"},
        "20m",
        {},
    ),
    Scene(
        "a server outside Kubernetes",
        {
            'tensorquay_utilization{instance="one:8002"}': "1.3x200",
            'tensorquay_utilization{instance="two:8002"}': "0x200",
        },
        "10m",
        {"TensorquayOverloaded": {"instance": "one:8002"}},
    ),
    Scene(
        "restarts of one of two servers outside Kubernetes, and of another program",
        {
            'process_start_time_seconds{instance="one:8002"}': "1x20 2x20 3x20 4x140",
            'process_start_time_seconds{instance="two:8002"}': "1x200",
            'process_start_time_seconds{instance="database:9104"}': "1x20 2x20 3x20 4x140",
            'tensorquay_build_info{instance="one:8002",version="0.1.0"}': "1x200",
            'tensorquay_build_info{instance="two:8002",version="0.1.0"}': "1x200",
        },
        "20m",
        {"TensorquayRestarts": {"instance": "one:8002"}},
    ),
    Scene(
        "front ends end",
        {f"tensorquay_frontend_restarts_total{{{POD}}}": "0x20 1x20 2x20 4x140"},
        "20m",
        {"TensorquayFrontEndRestarts": {"namespace": "tensorquay", "pod": "a"}},
    ),
]


def judge(promtool: str, folder: Path, scenes: Sequence[Scene]) -> None:
    """Have promtool play `scenes`: in each, exactly the named alerts fire."""
    bare = [
        {
            **group,
            "rules": [{key: value for key, value in rule.items() if key != "annotations"} for rule in group["rules"]],
        }
        for group in groups()
    ]
    severities = {rule["alert"]: rule["labels"] for group in bare for rule in group["rules"]}
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": bare}))
    tests: list[dict[str, Any]] = [
        {
            "name": scene.says,
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in scene.series.items()],
            "alert_rule_test": [
                {
                    "eval_time": scene.at,
                    "alertname": alert,
                    "exp_alerts": [{"exp_labels": severities[alert] | scene.fires[alert]}]
                    if alert in scene.fires
                    else [],
                }
                for alert in severities
            ],
        }
        for scene in scenes
    ]
    played = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(played))
    run(promtool, "test", "rules", str(folder / "tests.yaml"))


def test_alerts_fire_when_they_should_and_at_no_other_time(promtool: str, tmp_path: Path) -> None:
    judge(promtool, tmp_path, SCENES)
    assert {alert for scene in SCENES for alert in scene.fires} == {
        rule["alert"] for group in groups() for rule in group["rules"]
    }


def test_a_wrong_expectation_is_found_out(promtool: str, tmp_path: Path) -> None:
    """promtool really judges."""
    with pytest.raises(AssertionError, match="TensorquayModelNotReady"):
        judge(promtool, tmp_path, [Scene("wrong", {}, "15m", {"TensorquayModelNotReady": MODEL})])


@pytest.fixture
def unlucky(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that was given a version it cannot load, beside one it serves, and a model that it cannot even read."""
    repo = Repo(tmp_path / "repo")
    shipped = K8S.parent / "model_repo" / "digits"
    shutil.copytree(shipped, repo.root / "digits")
    repo.model("odd", {1: b"never read"}, **{"config.pbtxt": "max_batch_size: many"})
    flags = ("--model-control-mode=poll", "--repository-poll-secs=0.1", "--settle-secs=0", "--exit-on-error=false")
    server = start([repo.root], *flags)
    bad = repo.root / "digits" / "3"
    bad.mkdir()
    (bad / "model.onnx").write_text("no model")
    yield server
    server.end()


def test_a_bad_drop_on_a_real_server_fires_the_alert(promtool: str, unlucky: RunningServer, tmp_path: Path) -> None:
    """Not our idea of the page, but the page."""
    until(lambda: ask.index(unlucky).get(("digits", "3"), ("",))[0] == "UNAVAILABLE", "the drop was refused")
    text = exchange(unlucky.metrics, request("/metrics", method="GET")).body.decode()
    series: Series = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if line.startswith(("tensorquay_model_state{", "tensorquay_model_failed{")):
            series[name.replace("{", f"{{{POD},", 1)] = f"{float(value):g}x60"
    assert exported(text)["tensorquay_model_state"] == {"model", "version", "state"}
    drop = {name: values for name, values in series.items() if 'model="digits"' in name}
    odd = {name: values for name, values in series.items() if 'model="odd"' in name}
    assert len(odd) == 6, odd
    whole = MODEL | {"model": "odd"}
    judge(
        promtool,
        tmp_path,
        [
            Scene("bad drop", drop, "5m", {"TensorquaySwapFailed": MODEL | {"version": "3"}}),
            Scene("bad model", odd, "9m", {"TensorquaySwapFailed": whole}),
            Scene("bad model for long", odd, "11m", {"TensorquaySwapFailed": whole, "TensorquayModelNotReady": whole}),
        ],
    )


# -- autoscaling


def adapter_queries() -> dict[str, str]:
    """What the Prometheus adapter asks for the pods of a Deployment: metric → PromQL."""
    made = {}
    for rule in component_file("hpa/prometheus-adapter-rules.yaml")["rules"]:
        query = rule["metricsQuery"]
        series = rule["seriesQuery"].partition("{")[0]
        for template, filled in {
            "<<.Series>>": series,
            "<<.LabelMatchers>>": 'namespace="tensorquay",pod=~"a|b"',
            "<<.GroupBy>>": "pod",
        }.items():
            query = query.replace(template, filled)
        assert "<<" not in query
        made[rule["name"]["as"]] = query
    return made


def test_autoscalers_are_told_how_busy_pods_are_and_how_many_wait(promtool: str, tmp_path: Path) -> None:
    """Pod a is offered 160 % of what it can do, and 8 and 2 requests wait for its models; b rests; c is not ours."""
    load = {("tensorquay", "a"): 1.6, ("tensorquay", "b"): 0, ("elsewhere", "c"): 9}
    waiting = {
        ("tensorquay", "a", "digits"): 8,
        ("tensorquay", "a", "simple"): 2,
        ("tensorquay", "b", "digits"): 0,
        ("elsewhere", "c", "digits"): 99,
    }
    series = {
        f'tensorquay_utilization{{namespace="{space}",pod="{pod}"}}': f"{value}x60"
        for (space, pod), value in load.items()
    }
    series |= {
        f'tensorquay_queue_seconds_sum{{namespace="{space}",pod="{pod}",model="{model}"}}': f"0+{15 * many}x60"
        for (space, pod, model), many in waiting.items()
    }
    pods = {"tensorquay_utilization": (1.6, 0), "tensorquay_waiting_requests": (10, 0)}
    expected = [
        {
            "expr": query,
            "eval_time": "5m",
            "exp_samples": [
                {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in zip("ab", pods[metric], strict=True)
            ],
        }
        for metric, query in adapter_queries().items()
    ]
    for trigger in component_file("keda/scaledobject.yaml")["spec"]["triggers"]:
        value = sum(pods[f"tensorquay_{trigger['name'].replace('-', '_')}"])
        expected.append(
            {"expr": trigger["metadata"]["query"], "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": value}]}
        )
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": expected,
    }
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": [test]})
    )
    run(promtool, "test", "rules", str(tmp_path / "tests.yaml"))
