"""The checked-in schema is the source's, Triton's on the wire, and lives in a pool of its own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from tritonclient.grpc import model_config_pb2

from tensorquay.config.triton_fields import NO_EFFECT, REFUSED
from tensorquay.config.triton_schema import POOL, ModelConfigMessage, text_class

CONFIG = Path(__file__).resolve().parents[3] / "server" / "tensorquay" / "config"

HONOURED = {
    "ModelConfig": {
        *("name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "optimization"),
        *("dynamic_batching", "instance_group", "default_model_filename", "metric_tags", "parameters"),
        *("model_warmup", "model_transaction_policy", "response_cache"),
    },
    "ModelInput": {"name", "data_type", "format", "dims", "reshape", "optional"},
    "ModelOutput": {"name", "data_type", "dims", "reshape", "label_filename"},
    "ModelTensorReshape": {"shape"},
    "ModelVersionPolicy": {"latest", "all", "specific"},
    "ModelInstanceGroup": {"name", "kind", "count", "gpus"},
    "ModelOptimizationPolicy": {"graph", "execution_accelerators"},
    "ModelDynamicBatching": {
        *("preferred_batch_size", "max_queue_delay_microseconds", "preserve_ordering", "priority_levels"),
        *("default_priority_level", "default_queue_policy", "priority_queue_policy"),
    },
    "ModelQueuePolicy": {
        *("timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size"),
    },
    "ModelWarmup": {"name", "batch_size", "inputs", "count"},
    "ModelParameter": {"string_value"},
    "ModelTransactionPolicy": set(),
    "ModelResponseCache": set(),
}


def test_every_field_is_honoured_refused_or_noted() -> None:
    """A field that Triton adds fails here until somebody decides about it."""
    for message, honoured in HONOURED.items():
        fields = {field.name for field in POOL.FindMessageTypeByName(f"inference.{message}").fields}
        decided = {key.split(".")[1] for key in (*REFUSED, *NO_EFFECT) if key.split(".")[0] == message}
        assert honoured.isdisjoint(decided)
        assert fields == honoured | decided, message
    known = {key.split(".")[0] for key in (*REFUSED, *NO_EFFECT)}
    assert known <= set(HONOURED)


def _plain(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    def clear(messages: Any) -> None:
        for message in messages:
            for field in message.field:
                field.ClearField("json_name")
            clear(message.nested_type)

    clear(file.message_type)
    return file


def test_the_wire_is_tritons() -> None:
    theirs, ours = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    model_config_pb2.DESCRIPTOR.CopyToProto(theirs)
    POOL.FindFileByName("model_config.proto").CopyToProto(ours)
    assert _plain(ours) == _plain(theirs)


def test_the_checked_in_set_is_compiled_from_the_source(tmp_path: Path) -> None:
    from grpc_tools import protoc

    out = tmp_path / "set.binpb"
    include = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{CONFIG}", f"-I{include}", f"--descriptor_set_out={out}", "model_config.proto"]
    assert protoc.main(arguments) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    checked_in = descriptor_pb2.FileDescriptorSet.FromString((CONFIG / "model_config.binpb").read_bytes())
    assert checked_in == compiled


def test_tritonclient_lives_beside_it_and_reads_its_bytes() -> None:
    ours: Any = ModelConfigMessage(name="m", max_batch_size=3)
    theirs = model_config_pb2.ModelConfig.FromString(ours.SerializeToString())
    assert (theirs.name, theirs.max_batch_size) == ("m", 3)
    assert type(theirs) is not ModelConfigMessage
    assert descriptor_pool.Default().FindMessageTypeByName("inference.ModelConfig") is not ModelConfigMessage.DESCRIPTOR


def test_the_text_schema_keeps_what_proto3_forgets() -> None:
    message: Any = text_class()()
    assert not message.HasField("max_batch_size")
    message.max_batch_size = 0
    assert message.HasField("max_batch_size")
    assert ModelConfigMessage.FromString(message.SerializeToString()) == ModelConfigMessage()
