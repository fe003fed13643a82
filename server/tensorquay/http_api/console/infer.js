// One prediction: the request's bytes out of tensors, and tensors out of the answer (docs/protocol.md). Pure.

import { fitsJson, pack, unpack, valuesText } from "./tensors.js";

/** Above that many elements a request carries its tensors as bytes. */
const MOST_JSON = 4096;

const HEADER = "Inference-Header-Content-Length";

/** Whether a request with these inputs is sent as JSON alone. */
export function asJson(inputs) {
  const total = inputs.reduce((sum, input) => sum + input.values.length, 0);
  return total <= MOST_JSON && inputs.every((input) => fitsJson(input.datatype, input.values));
}

/** The JSON of the request. `packed`: tensors of inputs that go as bytes behind it, else null. */
export function requestText(inputs, outputs, packed, binaryOutputs) {
  const tensors = inputs.map((input, i) => {
    const head = `{"name":${escaped(input.name)},"datatype":"${input.datatype}","shape":[${input.shape.join(",")}]`;
    return packed
      ? `${head},"parameters":{"binary_data_size":${packed[i].length}}}`
      : `${head},"data":${flatText(input)}}`;
  });
  const wanted = outputs.map((output) => {
    const parameters = {};
    if (output.classes) parameters.classification = output.classes;
    if (binaryOutputs) parameters.binary_data = true;
    const extra = Object.keys(parameters).length ? `,"parameters":${JSON.stringify(parameters)}` : "";
    return `{"name":${escaped(output.name)}${extra}}`;
  });
  return `{"inputs":[${tensors.join(",")}],"outputs":[${wanted.join(",")}]}`;
}

function flatText(input) {
  return valuesText(input.values, [input.values.length]);
}

/** A JSON string of ASCII only: it survives every shell, and nothing in it can turn the direction of a line. */
function escaped(text) {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * The request for `inputs` [{name, datatype, shape, values}] and `outputs` [{name, classes}].
 *
 * Outputs are asked for as bytes, which hold NaN, 16-bit floats and 64-bit integers exactly.
 * Returns {body, headers, bytes, json, headBytes}; `body` is a Uint8Array.
 */
export function buildRequest(inputs, outputs, { binaryOutputs = true } = {}) {
  const json = asJson(inputs);
  const packed = json ? null : inputs.map((input) => pack(input.datatype, input.values));
  const head = new TextEncoder().encode(requestText(inputs, outputs, packed, binaryOutputs));
  const parts = [head, ...(packed ?? [])];
  const body = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    body.set(part, at);
    at += part.length;
  }
  const headers = json
    ? { "content-type": "application/json" }
    : { "content-type": "application/octet-stream", [HEADER]: String(head.length) };
  return { body, headers, bytes: body.length, json, headBytes: head.length };
}

/** The answer's tensors: {model, version, outputs: [{name, datatype, shape, values}]}. Throws Error if it is no V2 answer. */
export function readAnswer(headers, buffer) {
  const bytes = new Uint8Array(buffer);
  const length = Number(headers.get(HEADER) ?? bytes.length);
  if (!(length <= bytes.length))
    throw new Error(`the answer's header says ${length} bytes of JSON, but it has ${bytes.length} in all`);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, length)));
  let at = length;
  const outputs = (head.outputs ?? []).map((output) => {
    const size = output.parameters?.binary_data_size;
    let values = (output.data ?? []).flat(Infinity);
    if (size !== undefined) {
      if (at + size > bytes.length) throw new Error(`output '${output.name}' ends beyond the answer`);
      values = unpack(output.datatype, bytes.slice(at, at + size));
      at += size;
    }
    return { name: output.name, datatype: output.datatype, shape: output.shape, values };
  });
  return { model: head.model_name, version: head.model_version, outputs };
}

/** The classification extension's "value:index:label" taken apart. A label may hold colons. */
export function classOf(text) {
  const [value, index, ...label] = String(text).split(":");
  return { value: Number(value), index: Number(index), label: label.join(":") };
}
