"""Wrong inference requests, and the codes and texts that users search for (protocol 1.1 to 1.8)."""

from __future__ import annotations

from cases import ALL, WIRE, Case
from wire import Call, Given, given

ROW = given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]])
PAIR = (given("INPUT0", "INT32", [[1, 2, 3, 4]]), given("INPUT1", "INT32", [[1, 2, 3, 4]]))
UNKNOWN = "[request id: <id_unknown>] "


def bad(section: str, title: str, call: Call, *says: str, kind: str = "INVALID_ARGUMENT", doors: object = ALL) -> Case:
    return Case(section, title, call, kind=kind, says=says, doors=doors)  # type: ignore[arg-type]


MODELS = [
    bad(
        "1.1",
        "unknown model",
        Call("nosuch", (ROW,)),
        f"{UNKNOWN}Request for unknown model: 'nosuch' is not found",
        kind="NOT_FOUND",
    ),
    bad(
        "1.1",
        "the request id in front",
        Call("nosuch", (ROW,), id="my-7"),
        "[request id: my-7] Request for unknown model: 'nosuch' is not found",
        kind="NOT_FOUND",
    ),
    bad(
        "1.1",
        "unknown version",
        Call("double", (ROW,), "7"),
        f"{UNKNOWN}Request for unknown model: 'double' version 7 is not found",
        kind="NOT_FOUND",
    ),
    bad(
        "1.1",
        "a version the policy does not serve",
        Call("latest", (ROW,), "1"),
        "Request for unknown model: 'latest' version 1 is not found",
        kind="NOT_FOUND",
    ),
    bad("1.1", "a name that is a path", Call("../zoo/double", (ROW,)), "Request for unknown model", kind="NOT_FOUND"),
    bad("1.1", "a name that is two dots", Call("..%2f..", (ROW,)), "Request for unknown model", kind="NOT_FOUND"),
    bad("1.1", "a very long name", Call("m" * 5000, (ROW,)), "Request for unknown model", kind="NOT_FOUND"),
    bad("1.1", "a version beyond int64", Call("double", (ROW,), "9" * 30), "version", doors=("http_json", "grpc")),
]
TENSORS = [
    bad(
        "1.1",
        "wrong data type",
        Call("double", (given("x", "INT32", [[1, 2, 3, 4]]),)),
        f"{UNKNOWN}inference input 'x' data-type is 'INT32', but model 'double' expects 'FP32'",
    ),
    bad(
        "1.1",
        "wrong shape",
        Call("double", (given("x", "FP32", [[1.0, 2.0, 3.0]]),)),
        f"{UNKNOWN}unexpected shape for input 'x' for model 'double'. Expected [-1,4], got [1,3].",
    ),
    bad(
        "1.1",
        "the batch axis missing",
        Call("double", (given("x", "FP32", [1.0, 2.0, 3.0, 4.0]),)),
        "unexpected shape for input 'x' for model 'double'. Expected [-1,4], got [4]. NOTE: Setting a non-zero "
        "max_batch_size",
    ),
    bad("1.1", "too many axes", Call("double", (given("x", "FP32", [[[1.0, 2.0, 3.0, 4.0]]]),)), "got [1,1,4]"),
    bad("1.1", "a scalar where a row is due", Call("double", (given("x", "FP32", 1.0),)), "got []"),
    bad("1.1", "a row where a scalar is due", Call("scalar", (given("x", "FP32", [1.0]),)), "Expected [], got [1]"),
    bad(
        "1.1",
        "a model that does not batch",
        Call("pair", (given("x", "FP32", [[1.0, 2.0, 3.0]] * 3),)),
        "Expected [2,3], got [3,3]",
    ),
    bad(
        "1.1",
        "unknown input",
        Call("double", (given("z", "FP32", [[1.0, 2.0, 3.0, 4.0]]),)),
        "unexpected inference input 'z' for model 'double'",
    ),
    bad(
        "1.1",
        "unknown input beside the right one",
        Call("double", (ROW, given("z", "FP32", [[1.0, 2.0, 3.0, 4.0]]))),
        "unexpected inference input 'z' for model 'double'",
    ),
    bad(
        "1.1",
        "unknown output",
        Call("double", (ROW,), outputs=(("z", {}),)),
        f"{UNKNOWN}unexpected inference output 'z' for model 'double'",
    ),
    bad("1.1", "an input missing", Call("split", PAIR[:1]), "expected 2 inputs but got 1 inputs for model 'split'"),
    bad("1.1", "no inputs", Call("double", ()), "expected 1 inputs but got 0 inputs for model 'double'"),
    bad("1.1", "an input twice", Call("double", (ROW, ROW)), "input 'x'"),
    bad("8.13", "an output twice", Call("double", (ROW,), outputs=(("y", {}), ("y", {}))), "'y'", doors=WIRE),
    bad(
        "1.1",
        "batch too large where the model is strict",
        Call("strict", (given("INPUT0", "INT32", [[1] * 4] * 9), given("INPUT1", "INT32", [[1] * 4] * 9))),
        f"{UNKNOWN}inference request batch-size must be <= 8 for 'strict'",
    ),
    bad(
        "1.1",
        "inputs disagree on the batch",
        Call("split", (PAIR[0], given("INPUT1", "INT32", [[1] * 4] * 2))),
        f"{UNKNOWN}input 'INPUT1' batch size does not match other inputs for 'split'",
    ),
    bad("1.2", "unknown data type", Call("double", (Given("x", "FP8", (1, 4), (1, 2, 3, 4)),)), "'FP8'", doors=WIRE),
    bad(
        "8.14",
        "an index outside the model's table",
        Call("lookup", (given("index", "INT64", [7]),)),
        "lookup",
    ),
]
SIZES = [
    bad("1.5", "elements missing", Call("double", (given("x", "FP32", [1.0, 2.0, 3.0], (1, 4)),)), "'x'", doors=WIRE),
    bad("1.5", "elements left over", Call("double", (given("x", "FP32", [1.0] * 5, (1, 4)),)), "'x'", doors=WIRE),
    bad("1.5", "no elements at all", Call("double", (given("x", "FP32", [], (1, 4)),)), "'x'", doors=WIRE),
    bad("1.5", "BYTES elements missing", Call("t_bytes", (given("x", "BYTES", [b"a"], (1, 2)),)), "'x'", doors=WIRE),
    bad("1.5", "BYTES left over", Call("t_bytes", (given("x", "BYTES", [b"a"] * 3, (1, 2)),)), "'x'", doors=WIRE),
    bad("1.4", "a negative dimension", Call("double", (given("x", "FP32", [], (-1, 4)),)), "'x'", doors=WIRE),
    bad(
        "1.4",
        "an element count that overflows",
        Call("t_fp32", (given("x", "FP32", [1.0], (2**62, 4)),)),
        "'x'",
        doors=WIRE,
    ),
    bad(
        "1.4",
        "an element count that wraps to what was sent",
        Call("t_fp32", (given("x", "FP32", [], (2**32, 2**32)),)),
        "'x'",
        doors=WIRE,
    ),
    bad(
        "1.4",
        "an absurd axis beside a zero",
        Call("t_fp32", (given("x", "FP32", [], (0, 2**62)),)),
        "'x'",
        doors=WIRE,
    ),
    bad(
        "1.4", "too many axes to be a shape", Call("double", (given("x", "FP32", [1.0], (1,) * 70),)), "'x'", doors=WIRE
    ),
    bad("1.4", "a huge shape of BYTES", Call("t_bytes", (given("x", "BYTES", [b"a"], (1, 2**40)),)), "'x'", doors=WIRE),
]
JSON = [
    bad(
        "1.2",
        "FP16 in JSON",
        Call("t_fp16", (given("x", "FP16", [[0.5]]),)),
        "FP16 cannot be sent as JSON, use the binary data",
        doors=("http_json",),
    ),
    bad(
        "1.2",
        "BF16 in JSON",
        Call("t_bf16", (given("x", "BF16", [[1]]),)),
        "BF16 cannot be sent as JSON, use the binary data",
        doors=("http_json",),
    ),
    bad(
        "2",
        "FP16 in typed contents",
        Call("t_fp16", (given("x", "FP16", [[0.5]]),)),
        "FP16 has no typed contents, send it in raw_input_contents",
        doors=("grpc_typed",),
    ),
    bad(
        "2",
        "BF16 in typed contents",
        Call("t_bf16", (given("x", "BF16", [[1]]),)),
        "BF16 has no typed contents, send it in raw_input_contents",
        doors=("grpc_typed",),
    ),
    bad("1.2", "NaN in JSON", Call("t_fp32", (given("x", "FP32", [[float("nan")]]),)), "NaN", doors=("http_json",)),
    bad(
        "1.2",
        "Infinity in JSON",
        Call("t_fp32", (given("x", "FP32", [[float("inf")]]),)),
        "Infinity",
        doors=("http_json",),
    ),
    bad(
        "1.2",
        "a result that is no JSON",
        Call("double", (given("x", "FP32", [[3e38, 0.0, 0.0, 0.0]]),)),
        "output 'y' holds Infinity at index 0",
        "binary_data",
        doors=("http_json",),
    ),
]
PARAMETERS = [
    bad(
        "1.4", "the reserved name headers", Call("double", (ROW,), parameters={"headers": "x"}), "reserved", doors=WIRE
    ),
    bad("1.4", "a triton_ name", Call("double", (ROW,), parameters={"triton_secret": "x"}), "reserved", doors=WIRE),
    bad("1.8", "a negative priority", Call("double", (ROW,), parameters={"priority": -1}), "'priority'", doors=WIRE),
    bad(
        "1.8", "a priority that is text", Call("double", (ROW,), parameters={"priority": "1"}), "'priority'", doors=WIRE
    ),
    bad("1.8", "a timeout that is text", Call("double", (ROW,), parameters={"timeout": "1"}), "'timeout'", doors=WIRE),
    bad("1.8", "a negative timeout", Call("double", (ROW,), parameters={"timeout": -5}), "'timeout'", doors=WIRE),
    bad(
        "1.7",
        "sequence_start that is a number",
        Call("double", (ROW,), parameters={"sequence_id": 1, "sequence_start": 1}),
        "'sequence_start'",
        doors=WIRE,
    ),
    bad(
        "1.7",
        "sequence_end that is text",
        Call("double", (ROW,), parameters={"sequence_id": 1, "sequence_end": "true"}),
        "'sequence_end'",
        doors=WIRE,
    ),
    bad(
        "1.7",
        "sequence_id that is a fraction",
        Call("double", (ROW,), parameters={"sequence_id": 0.5}),
        "'sequence_id'",
        doors=WIRE,
    ),
    bad(
        "1.6",
        "classification of text",
        Call("t_bytes", (given("x", "BYTES", [[b"a"]]),), outputs=(("y", {"classification": 1}),)),
        "class",
        "'y'",
    ),
    bad(
        "1.6",
        "classification of booleans",
        Call("t_bool", (given("x", "BOOL", [[True]]),), outputs=(("y", {"classification": 1}),)),
        "class",
        "'y'",
    ),
    bad(
        "1.6",
        "a negative classification",
        Call("double", (ROW,), outputs=(("y", {"classification": -1}),)),
        "'classification'",
        doors=WIRE,
    ),
    bad(
        "1.6",
        "an absurd classification",
        Call("double", (ROW,), outputs=(("y", {"classification": 2**40}),)),
        "'classification'",
        doors=WIRE,
    ),
    bad(
        "1.6",
        "classification that is text",
        Call("double", (ROW,), outputs=(("y", {"classification": "3"}),)),
        "'classification'",
        doors=WIRE,
    ),
    bad(
        "1.14",
        "an output to shared memory where it is off",
        Call("double", (ROW,), outputs=(("y", {"shared_memory_region": "r", "shared_memory_byte_size": 16}),)),
        "--allow-client-shm",
        kind="UNIMPLEMENTED",
        doors=WIRE,
    ),
]
QUEUES = [
    bad(
        "1.1",
        "the time in the queue is over",
        Call("waiting", (ROW,), parameters={"timeout": 1000}),
        f"{UNKNOWN}Request timeout expired",
        kind="UNAVAILABLE",
    ),
    bad(
        "1.1",
        "one piece of a split request waits too long",
        Call("waiting", (given("x", "FP32", [[1.0] * 4] * 17),), parameters={"timeout": 1000}),
        f"{UNKNOWN}Request timeout expired",
        kind="UNAVAILABLE",
    ),
]

REFUSALS = [*MODELS, *TENSORS, *SIZES, *JSON, *PARAMETERS, *QUEUES]
