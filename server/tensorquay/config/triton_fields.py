"""Which fields of Triton's model configuration are refused, and which are accepted without effect.

The two tables are the documentation; every field that is in neither is honoured by `triton_read.py`, and a test holds
that the three together are the whole schema. Keys are "<message>.<field>".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from tensorquay.config.refusal import ConfigRefused

REFUSED: Mapping[str, str] = {
    "ModelConfig.sequence_batching": "stateful (sequence) models are not served",
    "ModelConfig.ensemble_scheduling": "ensembles are not served; call the models one after another",
    "ModelConfig.batch_input": "inputs made from the batch itself are not supported",
    "ModelConfig.batch_output": "outputs scattered by input shapes are not supported",
    "ModelConfig.cc_model_filenames": "one model file per version; name it with default_model_filename",
    "ModelConfig.model_operations": "custom operator libraries are not loaded",
    "ModelConfig.model_repository_agents": "repository agents are not run",
    "ModelConfig.runtime": "custom backend libraries are not loaded",
    "ModelTransactionPolicy.decoupled": "decoupled models (many replies to one request) are not served",
    "ModelResponseCache.enable": "there is no response cache",
    "ModelInput.allow_ragged_batch": "inputs of different shapes are never merged into one batch",
    "ModelInput.is_shape_tensor": "shape tensors are a TensorRT engine's, not an ONNX model's",
    "ModelInput.is_non_linear_format_io": "non-linear formats are a TensorRT engine's, not an ONNX model's",
    "ModelOutput.is_shape_tensor": "shape tensors are a TensorRT engine's, not an ONNX model's",
    "ModelOutput.is_non_linear_format_io": "non-linear formats are a TensorRT engine's, not an ONNX model's",
    "ModelInstanceGroup.rate_limiter": "the rate limiter is not supported; limit count instead",
    "ModelInstanceGroup.secondary_devices": "secondary devices are not supported",
    "ModelInstanceGroup.profile": "optimization profiles are a TensorRT engine's; give the tensorrt accelerator "
    "trt_profile_min_shapes, trt_profile_opt_shapes and trt_profile_max_shapes",
    "ModelInstanceGroup.passive": "passive instances would never run",
    "ModelInstanceGroup.host_policy": "host policies are not supported; set affinity on the server's process",
}
"""Would change what is served if they were ignored: field → why."""

_ANOTHER_MODEL = frozenset(
    {
        "ModelConfig.sequence_batching",
        "ModelConfig.ensemble_scheduling",
        "ModelConfig.batch_input",
        "ModelConfig.batch_output",
        "ModelConfig.model_operations",
        "ModelConfig.runtime",
        "ModelTransactionPolicy.decoupled",
        "ModelInput.allow_ragged_batch",
    }
)
"""Of those, what a model is written for: without it the model would answer otherwise, or not at all."""

NO_EFFECT: Mapping[str, str] = {
    "ModelOptimizationPolicy.priority": "models share one thread budget",
    "ModelOptimizationPolicy.cuda": "it is for TensorRT engines; CUDA graphs are the provider option enable_cuda_graph",
    "ModelOptimizationPolicy.input_pinned_memory": "the runtime chooses its own staging buffers",
    "ModelOptimizationPolicy.output_pinned_memory": "the runtime chooses its own staging buffers",
    "ModelOptimizationPolicy.gather_kernel_buffer_threshold": "batches are gathered on the host",
    "ModelOptimizationPolicy.eager_batching": "the next batch is always prepared while one runs",
    "ModelConfig.model_metrics": "histogram buckets are the server's own",
}
"""Cannot change a result: field → why nothing is done with it."""


def screen(message: Message, file: str, *, path: str = "") -> list[str]:
    """Walk everything that is set in `message`.

    Returns: one sentence for each field that is accepted without effect.
    Raises: ConfigRefused for the first refused field, by its dotted name.
    """
    notes: list[str] = []
    owner = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        key = f"{owner}.{field.name}"
        where = f"{path}.{field.name}" if path else field.name
        if key in REFUSED:
            shown = value if isinstance(value, bool | int | str) else None
            hint = "" if key in _ANOTHER_MODEL else "remove it"
            raise ConfigRefused(file=file, key=where, value=shown, rule=REFUSED[key], hint=hint)
        if key in NO_EFFECT:
            notes.append(f"{file}: '{where}' is accepted and has no effect here: {NO_EFFECT[key]}")
            continue
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            notes.extend(_screen_all(value, file, where))
    return notes


def _screen_all(value: Any, file: str, where: str) -> list[str]:
    if isinstance(value, Message):
        return screen(value, file, path=where)
    return [note for index, item in enumerate(value) for note in screen(item, file, path=f"{where}[{index}]")]
