"""Settings of spans: ours, then OpenTelemetry's variables, then defaults; wrong variables are told and left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.commands.tritonserver import Refused, translate
from tensorquay.config.otel import OtelSettings, otel_settings
from tensorquay.config.server import InvalidServerConfig, ServerConfig
from tensorquay.config.server_sources import load

ON = {"trace_mode": "opentelemetry"}


def settings(environment: dict[str, str] | None = None, **given: object) -> tuple[OtelSettings | None, tuple[str, ...]]:
    return otel_settings(ServerConfig.model_validate(ON | given), environment or {})


def on(environment: dict[str, str] | None = None, **given: object) -> OtelSettings:
    found, problems = settings(environment, **given)
    assert found is not None
    assert not problems
    return found


def test_by_default_nothing_is_traced():
    assert otel_settings(ServerConfig(), {"OTEL_TRACES_SAMPLER": "always_on"}) == (None, ())


def test_the_mode_alone_switches_it_on_with_tritons_defaults():
    found = on()
    assert found.collector.url == "http://localhost:4318/v1/traces"
    assert found.resource == {"service.name": "tensorquay"}
    assert (found.ratio, found.follow, found.followed_per_s) == (0.001, True, 100)
    assert (found.queue_spans, found.batch_spans, found.delay_s) == (2048, 512, 5.0)
    assert found.collector.timeout_s == 10.0


def test_level_off_switches_it_off():
    assert settings(trace_level="OFF") == (None, ())
    assert on(trace_level="TIMESTAMPS")


def test_our_settings_win_over_the_variables():
    found = on(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://wrong:1",
            "OTEL_SERVICE_NAME": "wrong",
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "1",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
        },
        otlp_endpoint="https://collector:4318/own",
        otel_resource=["service.name=digits", "team = vision"],
        trace_rate=4,
        otel_schedule_delay_ms=200,
        otel_max_queue_size=64,
        otel_max_export_batch_size=32,
    )
    assert found.collector.url == "https://collector:4318/own"
    assert found.resource == {"service.name": "digits", "team": "vision"}
    assert (found.ratio, found.queue_spans, found.batch_spans, found.delay_s) == (0.25, 64, 32, 0.2)


def test_the_variables_are_obeyed():
    found = on(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318/",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s%20cret,x=1",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/own.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/own.key",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=no,deployment.environment.name=test%2C1",
            "OTEL_SERVICE_NAME": "digits",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
        }
    )
    collector = found.collector
    assert collector.url == "https://collector:4318/v1/traces"
    assert collector.headers == {"api-key": "s cret", "x": "1"}
    assert (collector.timeout_s, collector.gzip) == (2.5, True)
    assert (collector.certificate, collector.client_certificate, collector.client_key) == (
        Path("/ca.pem"),
        Path("/own.pem"),
        Path("/own.key"),
    )
    assert found.resource == {"service.name": "digits", "deployment.environment.name": "test,1"}
    assert (found.queue_spans, found.batch_spans) == (10, 10)
    assert "cret" not in repr(found)


def test_the_endpoint_of_traces_is_taken_as_it_is():
    found = on({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a/own/", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"})
    assert found.collector.url == "http://a/own/"


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio", "follow"),
    [
        ("always_on", "", 1.0, False),
        ("always_off", "", 0.0, False),
        ("traceidratio", "0.25", 0.25, False),
        ("parentbased_always_on", "", 1.0, True),
        ("parentbased_always_off", "", 0.0, True),
        ("parentbased_traceidratio", "0.5", 0.5, True),
        ("parentbased_traceidratio", "", 1.0, True),
    ],
)
def test_samplers(sampler: str, argument: str, ratio: float, follow: bool) -> None:
    found = on({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert (found.ratio, found.follow) == (ratio, follow)


def test_rate_zero_leaves_the_decision_to_callers():
    assert (on(trace_rate=0).ratio, on(trace_rate=0).follow) == (0.0, True)


@pytest.mark.parametrize(
    "variables", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}]
)
def test_it_can_be_switched_off_from_outside(variables: dict[str, str]) -> None:
    found, problems = settings(variables)
    assert found is None
    assert next(iter(variables)) in problems[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://col lector"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "secret"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0d%0asecret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
        ("OTEL_RESOURCE_ATTRIBUTES", "secret"),
        ("OTEL_TRACES_SAMPLER", "secret"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
    ],
)
def test_a_wrong_variable_is_told_and_left_out(variable: str, value: str) -> None:
    found, problems = settings({variable: value})
    assert found == on()
    assert variable in problems[0]
    assert "secret" not in problems[0]


def test_a_wrong_ratio_is_told_and_left_out():
    for text in ("2", "-1", "nan", "half"):
        found, problems = settings({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": text})
        assert found is not None
        assert found.ratio == 1.0
        assert "OTEL_TRACES_SAMPLER_ARG" in problems[0]


_NAMES = st.sampled_from(
    [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_BSP_MAX_QUEUE_SIZE",
    ]
)


@given(st.dictionaries(_NAMES, st.text(max_size=60)))
def test_no_variable_stops_the_start(environment: dict[str, str]) -> None:
    found, _ = settings(environment)
    assert found is not None
    assert 0.0 <= found.ratio <= 1.0
    assert found.queue_spans >= found.batch_spans >= 1


# -- our own settings


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"otlp_endpoint": "collector:4318"}, "a URL such as"),
        ({"otlp_endpoint": "http://collector..svc:4318/v1/traces"}, "a name that can be looked up"),
        ({"otlp_endpoint": f"http://{'a' * 64}.svc:4318/v1/traces"}, "1 to 63 characters"),
        ({"otlp_endpoint": "http://me:secret@collector"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"otel_resource": ["novalue"]}, "KEY=VALUE"),
        ({"trace_level": "TENSORS"}, "TENSORS needs trace_mode triton"),
        ({"trace_count": 5}, "trace_count needs trace_mode triton"),
        ({"trace_mode": "triton", "trace_rate": 0}, "needs trace_mode opentelemetry"),
        ({"trace_mode": "jaeger"}, "opentelemetry"),
        ({"otel_max_queue_size": 0}, "--otel-max-queue-size"),
    ],
)
def test_wrong_settings_are_told(given: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidServerConfig) as caught:
        load(file=None, environment={}, command_line=ON | given)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_settings_of_the_other_mode_are_told():
    spans = ServerConfig.model_validate({"trace_mode": "opentelemetry", "trace_file": "t.json"})
    assert spans.notes == ("trace_file has no effect: it is for trace_mode triton",)
    files = ServerConfig.model_validate({"otlp_endpoint": "http://collector/v1/traces"})
    assert files.notes == ("otlp_endpoint has no effect: it is for trace_mode opentelemetry",)


def test_tritons_flags_are_understood():
    given = [
        "--trace-config=mode=opentelemetry",
        "--trace-config",
        "rate=10",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=opentelemetry,url=localhost:4318/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=digits",
        "--trace-config=opentelemetry,resource=note=a,b",
        "--trace-config=opentelemetry,bsp_max_queue_size=64",
        "--trace-config=opentelemetry,bsp_schedule_delay=100",
        "--trace-config=opentelemetry,bsp_max_export_batch_size=32",
        "--trace-config=triton,log-frequency=5",
    ]
    assert translate(given, frozenset()).arguments == [
        "--trace-mode=opentelemetry",
        "--trace-rate=10",
        "--trace-level=TIMESTAMPS",
        "--otlp-endpoint=http://localhost:4318/v1/traces",
        "--otel-resource=service.name=digits",
        "--otel-resource=note=a,b",
        "--otel-max-queue-size=64",
        "--otel-schedule-delay-ms=100",
        "--otel-max-export-batch-size=32",
        "--trace-log-frequency=5",
    ]


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("opentelemetry,colour=red", "bsp_max_queue_size"),
        ("opentelemetry,file=t.json", "not understood"),
        ("triton,url=http://x", "not understood"),
        ("jaeger,url=http://x", "expected triton or opentelemetry"),
    ],
)
def test_what_triton_does_not_know_either_is_refused(given: str, advice: str) -> None:
    with pytest.raises(Refused, match=advice):
        translate([f"--trace-config={given}"], frozenset())
