// The same request for a terminal and for Python: curl, tritonclient, our client. Pure; tests run what it writes.

import { asJson, buildRequest, requestText } from "./infer.js";
import { BINARY_ONLY, elements, valuesText } from "./tensors.js";

const NUMPY = {
  BOOL: "np.bool_",
  UINT8: "np.uint8",
  UINT16: "np.uint16",
  UINT32: "np.uint32",
  UINT64: "np.uint64",
  INT8: "np.int8",
  INT16: "np.int16",
  INT32: "np.int32",
  INT64: "np.int64",
  FP16: "np.float16",
  BF16: "np.float32",
  FP32: "np.float32",
  FP64: "np.float64",
  BYTES: "np.object_",
};

/** The variable of the environment that a closed API's value is taken from: it is never written into a snippet. */
export const SECRET = "TENSORQUAY_KEY";

/** Where bytes go that are too many to be written out. */
export const REQUEST_FILE = "request.bin";
export const inputFile = (index) => `input${index}.npy`;

/** One word of a POSIX shell, whatever is in `text`. */
export function shellWord(text) {
  return /^[A-Za-z0-9_./:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A Python string literal of ASCII only. */
export function pythonText(text) {
  return JSON.stringify(text).replace(/[\u{7f}-\u{10ffff}]/gu, (char) => {
    const code = char.codePointAt(0);
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** `encodeURIComponent`, and what it leaves that a shell or a client might read otherwise. */
export function pathPart(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** Up to that many elements values stand in the Python snippets themselves; texts always do. */
const MOST_INLINE = 1024;
/** A request that long is no argument of a command any more. */
const LONGEST_ARGUMENT = 100_000;

/** Whether an output comes that JSON has no form for. */
export const wantsBinary = (outputs) => outputs.some((output) => BINARY_ONLY.has(output.datatype) && !output.classes);

/** Whether curl takes the request from a file. */
export function needsRequestFile(inputs, outputs) {
  return !asJson(inputs) || requestText(inputs, outputs, null, wantsBinary(outputs)).length > LONGEST_ARGUMENT;
}

/** Whether Python takes arrays from files. */
export function needsInputFiles(inputs) {
  const numbers = inputs.filter((input) => input.datatype !== "BYTES");
  return numbers.reduce((sum, input) => sum + input.values.length, 0) > MOST_INLINE;
}

/**
 * What the snippets are made of. `origin`: the server's address as a URL ending in "/"; `headers`: names of the headers
 * that closed APIs want; `inputs` and `outputs` as in `buildRequest`.
 */
export function curl({ origin, model, version, inputs, outputs, headers }) {
  const path = `v2/models/${pathPart(model)}${version ? `/versions/${pathPart(version)}` : ""}/infer`;
  const binary = wantsBinary(outputs);
  const lines = [`curl -sS ${shellWord(origin + path)}`];
  for (const name of headers) lines.push(`-H "${name}: $${SECRET}"`);
  if (!needsRequestFile(inputs, outputs))
    lines.push(`-d '${requestText(inputs, outputs, null, binary).replaceAll("'", "'\\''")}'`);
  else {
    if (!asJson(inputs)) lines.push(`-H "Inference-Header-Content-Length: ${headLength(inputs, outputs, binary)}"`);
    lines.push(`--data-binary @${REQUEST_FILE}`);
  }
  if (binary) lines.push("--output answer.bin");
  return lines.join(" \\\n  ");
}

/** Bytes of JSON in the request that `buildRequest` makes of the same. */
function headLength(inputs, outputs, binary) {
  return buildRequest(inputs, outputs, { binaryOutputs: binary }).headBytes;
}

/** An expression that makes the array of `input`, of numpy's `dtype`. Values that are too many come from a file. */
function array(input, index, inline, dtype = NUMPY[input.datatype]) {
  if (!inline && input.datatype !== "BYTES") {
    return `np.load("${inputFile(index)}")${dtype === NUMPY[input.datatype] ? "" : `.astype(${dtype})`}`;
  }
  const made = `np.array(${pythonValues(input)}, dtype=${dtype})`;
  return input.shape.length === 1 && elements(input.shape) ? made : `${made}.reshape(${tuple(input.shape)})`;
}

function tuple(shape) {
  return shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
}

function pythonValues({ datatype, values }) {
  if (datatype === "BYTES") return `[${values.map(pythonText).join(", ")}]`;
  if (datatype === "BOOL") return `[${values.map((value) => (value ? "True" : "False")).join(", ")}]`;
  return valuesText(values, [values.length], true).replace(
    /-?Infinity|NaN/g,
    (word) => `float("${word.replace("Infinity", "inf").toLowerCase()}")`,
  );
}

/** Whether tritonclient needs numpy's bfloat16 for them, which another package has. */
export const hasBfloat = (inputs) => inputs.some((input) => input.datatype === "BF16");

function authority(origin) {
  return origin.replace(/^https?:\/\//, "").replace(/\/$/, "");
}

function pythonHeaders(headers) {
  return `{${headers.map((name) => `${pythonText(name)}: os.environ["${SECRET}"]`).join(", ")}}`;
}

export function tritonPython({ origin, model, version, inputs, outputs, headers }) {
  const inline = !needsInputFiles(inputs);
  const secure = origin.startsWith("https:");
  const lines = [];
  if (headers.length) lines.push("import os", "");
  if (hasBfloat(inputs)) lines.push("import ml_dtypes");
  lines.push("import numpy as np", "import tritonclient.http as triton", "");
  lines.push(
    `client = triton.InferenceServerClient(${pythonText(authority(origin))}${secure ? ", ssl=True" : ""})`,
    "inputs = []",
  );
  inputs.forEach((input, i) => {
    lines.push(
      `values = ${array(input, i, inline, input.datatype === "BF16" ? "ml_dtypes.bfloat16" : undefined)}`,
      `inputs.append(triton.InferInput(${pythonText(input.name)}, [${input.shape.join(", ")}], "${input.datatype}"))`,
      "inputs[-1].set_data_from_numpy(values)",
    );
  });
  lines.push("outputs = [");
  for (const output of outputs) {
    lines.push(
      `    triton.InferRequestedOutput(${pythonText(output.name)}${output.classes ? `, class_count=${output.classes}` : ""}),`,
    );
  }
  lines.push("]");
  const given = [pythonText(model), "inputs", "outputs=outputs"];
  if (version) given.push(`model_version="${version}"`);
  if (headers.length) given.push(`headers=${pythonHeaders(headers)}`);
  lines.push(`result = client.infer(${given.join(", ")})`);
  for (const output of outputs)
    lines.push(`print(${pythonText(output.name)}, result.as_numpy(${pythonText(output.name)}))`);
  return lines.join("\n");
}

export function ourPython({ origin, model, version, inputs, outputs, headers }) {
  const inline = !needsInputFiles(inputs);
  const lines = [];
  if (headers.length) lines.push("import os", "");
  const names = hasBfloat(inputs) ? "HttpClient, Tensor" : "HttpClient";
  lines.push("import numpy as np", `from tensorquay_client import ${names}`, "", "inputs = {");
  inputs.forEach((input, i) => {
    const made = array(input, i, inline);
    lines.push(`    ${pythonText(input.name)}: ${input.datatype === "BF16" ? `Tensor(${made}, "BF16")` : made},`);
  });
  lines.push("}");
  const given = [pythonText(model), "inputs"];
  if (version) given.push(`version=${Number(version)}`);
  const classes = outputs.filter((output) => output.classes);
  given.push(`outputs=[${outputs.map((output) => pythonText(output.name)).join(", ")}]`);
  if (classes.length) {
    given.push(`classification={${classes.map((each) => `${pythonText(each.name)}: ${each.classes}`).join(", ")}}`);
  }
  if (headers.length) given.push(`headers=${pythonHeaders(headers)}`);
  const address = origin.startsWith("https:") ? origin.replace(/\/$/, "") : authority(origin);
  lines.push(`with HttpClient(${pythonText(address)}) as client:`, `    result = client.infer(${given.join(", ")})`);
  for (const output of outputs) {
    const name = pythonText(output.name);
    lines.push(output.classes ? `print(${name}, result.classes(${name}))` : `print(${name}, result[${name}])`);
  }
  return lines.join("\n");
}
