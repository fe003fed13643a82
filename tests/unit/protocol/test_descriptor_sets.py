"""The checked-in descriptor sets are what the .proto files say, and what the clients in the field speak."""

import importlib.util
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tensorquay.protocol.schema import DESCRIPTOR_SETS, SERVICES, message_class, pool

TOOL = Path(__file__).resolve().parents[2] / "tools" / "build_protos.py"


def _tool():
    spec = importlib.util.spec_from_file_location("build_protos", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_protos = _tool()


@pytest.mark.parametrize("source", build_protos.sources(), ids=lambda path: path.name)
def test_checked_in_descriptor_set_equals_a_fresh_compile(source):
    pytest.importorskip("grpc_tools")
    checked_in = FileDescriptorSet.FromString(build_protos.target(source).read_bytes())
    assert checked_in == build_protos.compile_proto(source)


def test_every_source_of_this_room_is_loaded():
    assert {path.stem for path in build_protos.sources() if path.parent.name == "protocol"} == set(DESCRIPTOR_SETS)


def test_check_mode_reports_a_stale_set_and_writes_nothing(tmp_path, monkeypatch, capsys):
    pytest.importorskip("grpc_tools")
    (tmp_path / "a.proto").write_text('syntax = "proto3"; message A { int32 x = 1; }')
    monkeypatch.setattr(build_protos, "INCLUDES", (tmp_path,))
    monkeypatch.setattr(build_protos, "PACKAGE", tmp_path)
    assert build_protos.main(["--check"]) == 1
    assert "a.binpb" in capsys.readouterr().out
    assert not (tmp_path / "a.binpb").exists()
    assert build_protos.main([]) == 0
    assert build_protos.main(["--check"]) == 0


def _fields(descriptor):
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else "",
        )
        for field in descriptor.fields
    }


def _compare(ours, theirs, path):
    mine, other = _fields(ours), _fields(theirs)
    extra = {"properties"} if ours.full_name == "inference.ModelMetadataResponse" else set()
    assert mine.keys() - other.keys() == extra, path
    for name, shape in other.items():
        assert mine[name] == shape, f"{path}.{name}"
    for nested in theirs.nested_types:
        _compare(ours.nested_types_by_name[nested.name], nested, f"{path}.{nested.name}")


def test_every_message_has_the_numbers_of_tritonclient():
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
    for name, theirs in service_pb2.DESCRIPTOR.message_types_by_name.items():
        _compare(pool().FindMessageTypeByName(f"inference.{name}"), theirs, name)


def test_the_service_has_the_methods_of_tritonclient():
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")

    def methods(service):
        return {
            m.name: (m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming)
            for m in service.methods
        }

    ours = pool().FindServiceByName("inference.GRPCInferenceService")
    assert methods(ours) == methods(service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])


def test_health_and_reflection_are_the_standard_ones():
    """Numbers from the gRPC repository's health.proto and reflection.proto."""
    assert _numbers("grpc.health.v1.HealthCheckResponse") == {"status": 1}
    for version in ("v1", "v1alpha"):
        assert _numbers(f"grpc.reflection.{version}.ServerReflectionRequest") == {
            "host": 1,
            "file_by_filename": 3,
            "file_containing_symbol": 4,
            "file_containing_extension": 5,
            "all_extension_numbers_of_type": 6,
            "list_services": 7,
        }
        assert _numbers(f"grpc.reflection.{version}.ServerReflectionResponse") == {
            "valid_host": 1,
            "original_request": 2,
            "file_descriptor_response": 4,
            "all_extension_numbers_response": 5,
            "list_services_response": 6,
            "error_response": 7,
        }


def _numbers(name):
    return {field.name: field.number for field in pool().FindMessageTypeByName(name).fields}


def test_services_named_are_services_there_are():
    for name in SERVICES:
        assert pool().FindServiceByName(name).full_name == name


def test_our_messages_are_not_in_the_default_pool():
    from google.protobuf import descriptor_pool

    ours = message_class("inference.ModelInferRequest").DESCRIPTOR
    assert ours.file.pool is pool()
    assert ours.file.pool is not descriptor_pool.Default()
