// Tensors of the V2 protocol: data types, values as text, as JSON and as packed bytes (docs/protocol.md). Pure.
//
// Values are flat and row-major: numbers, BigInts (64-bit integers, which a number cannot hold), booleans, or strings.

const integer = (bits, signed, array) => ({
  kind: "integer",
  size: bits / 8,
  low: signed ? -(2n ** BigInt(bits - 1)) : 0n,
  high: 2n ** BigInt(signed ? bits - 1 : bits) - 1n,
  big: bits === 64,
  array,
});

export const TYPES = {
  BOOL: { kind: "boolean", size: 1, array: Uint8Array },
  UINT8: integer(8, false, Uint8Array),
  UINT16: integer(16, false, Uint16Array),
  UINT32: integer(32, false, Uint32Array),
  UINT64: integer(64, false, BigUint64Array),
  INT8: integer(8, true, Int8Array),
  INT16: integer(16, true, Int16Array),
  INT32: integer(32, true, Int32Array),
  INT64: integer(64, true, BigInt64Array),
  FP16: { kind: "float", size: 2, array: Uint16Array },
  BF16: { kind: "float", size: 2, array: Uint16Array },
  FP32: { kind: "float", size: 4, array: Float32Array },
  FP64: { kind: "float", size: 8, array: Float64Array },
  BYTES: { kind: "text", size: 0, array: null },
};

/** Types that JSON cannot carry in this protocol. */
export const BINARY_ONLY = new Set(["FP16", "BF16"]);

/** What is wrong with values somebody wrote; its message is for them. */
export class ValueError extends Error {}

/** Elements of a shape; dimensions that are open (-1) count as `open`. */
export function elements(shape, open = 1) {
  return shape.reduce((product, size) => product * (size < 0 ? open : size), 1);
}

const TOKEN =
  /\s*(?:([[\],])|(-?(?:\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|Infinity)|NaN)|("(?:[^"\\\u0000-\u001f]|\\.)*")|(true|false))/y;

/**
 * Values written as JSON, nested or flat, for `datatype`.
 *
 * Returns {values, shape}: the shape of the nesting, [n] for a flat list, [] for a single value.
 * Throws ValueError: where, what was expected, what is there.
 */
export function parseValues(text, datatype) {
  const type = TYPES[datatype];
  const values = [];
  const shape = [];
  const counts = [];
  let at = 0;
  let mark = 0;
  let leaves = -1;
  const where = () => {
    const before = text.slice(0, mark).split("\n");
    return before.length > 1
      ? `line ${before.length}, character ${before[before.length - 1].length + 1}`
      : `character ${mark + 1}`;
  };
  const next = () => {
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (found) {
      at = TOKEN.lastIndex;
      mark = at - found[0].trimStart().length;
      return found;
    }
    const rest = text.slice(at).trimStart();
    mark = text.length - rest.length;
    if (!rest) throw new ValueError("the text ends too early: a “]” or a value is missing");
    throw new ValueError(`${where()}: expected ${EXPECTED[type.kind]}, “[” or “]”, got “${rest.slice(0, 12)}”`);
  };
  const value = (token, depth) => {
    if (token[1] === "[") {
      list(depth);
      return;
    }
    if (token[1]) throw new ValueError(`${where()}: expected ${EXPECTED[type.kind]}, got “${token[1]}”`);
    if (leaves >= 0 && leaves !== depth)
      throw new ValueError(`${where()}: values are nested ${leaves} deep before and ${depth} deep here`);
    leaves = depth;
    values.push(element(token, datatype, where));
  };
  const list = (depth) => {
    if (depth >= 32) throw new ValueError(`${where()}: lists are nested deeper than 32`);
    let size = 0;
    let token = next();
    while (token[1] !== "]") {
      value(token, depth + 1);
      size += 1;
      token = next();
      if (token[1] === ",") {
        token = next();
        if (token[1] === "]") throw new ValueError(`${where()}: a value is missing after the last comma`);
      } else if (token[1] !== "]") throw new ValueError(`${where()}: a comma is missing between two values`);
    }
    if (counts[depth] === undefined) counts[depth] = size;
    else if (counts[depth] !== size)
      throw new ValueError(`${where()}: this list has ${size} entries, the ones beside it have ${counts[depth]}`);
  };
  value(next(), 0);
  mark = at + (text.length - at - text.slice(at).trimStart().length);
  if (mark < text.length) throw new ValueError(`${where()}: nothing is expected after the end of the list`);
  for (const size of counts) shape.push(size);
  return { values, shape };
}

const EXPECTED = {
  float: "a number",
  integer: "a whole number",
  boolean: "true or false",
  text: "a string in double quotes",
};

function element(token, datatype, where) {
  const [, , digits, quoted, truth] = token;
  const type = TYPES[datatype];
  const wrong = () =>
    new ValueError(`${where()}: expected ${EXPECTED[type.kind]} for ${datatype}, got ${digits ?? quoted ?? truth}`);
  if (type.kind === "text") {
    if (quoted === undefined) throw wrong();
    try {
      return JSON.parse(quoted);
    } catch {
      throw new ValueError(`${where()}: ${quoted.slice(0, 40)} is no JSON string`);
    }
  }
  if (type.kind === "boolean") {
    if (truth === undefined) throw wrong();
    return truth === "true";
  }
  if (digits === undefined) throw wrong();
  return type.kind === "float" ? float(digits, datatype, where) : whole(digits, datatype, where, wrong);
}

function float(digits, datatype, where) {
  const value = Number(digits);
  if (Number.isFinite(value) && !Number.isFinite(rounded(value, datatype))) {
    throw new ValueError(`${where()}: ${digits} is too large for ${datatype}`);
  }
  return value;
}

function whole(digits, datatype, where, wrong) {
  if (!/^-?\d+$/.test(digits)) throw wrong();
  const { low, high, big } = TYPES[datatype];
  const value = BigInt(digits);
  if (value < low || value > high)
    throw new ValueError(`${where()}: ${digits} does not fit ${datatype} (${low} to ${high})`);
  return big ? value : Number(value);
}

/** What a float becomes in `datatype`. */
function rounded(value, datatype) {
  if (datatype === "FP32") return Math.fround(value);
  if (datatype === "FP16") return fromHalf(toHalf(value));
  if (datatype === "BF16") return fromBfloat(toBfloat(value));
  return value;
}

/** Whether JSON can carry these values of this type. */
export function fitsJson(datatype, values) {
  if (BINARY_ONLY.has(datatype)) return false;
  if (TYPES[datatype].kind !== "float") return true;
  for (const value of values) if (!Number.isFinite(value)) return false;
  return true;
}

/** One value as JSON; BigInts keep all their digits. What JSON has no form for is written as JavaScript does. */
export function valueText(value) {
  if (typeof value === "string") return JSON.stringify(value);
  return Object.is(value, -0) ? "-0.0" : String(value);
}

/** `values` as JSON, nested as `shape` says; rows of the last dimension on a line each when `pretty`. */
export function valuesText(values, shape, pretty = false) {
  const level = (from, depth) => {
    if (depth >= shape.length) return valueText(values[from]);
    const step = elements(shape.slice(depth + 1));
    const parts = [];
    for (let i = 0; i < shape[depth]; i += 1) parts.push(level(from + i * step, depth + 1));
    const last = depth === shape.length - 1;
    if (!pretty) return `[${parts.join(",")}]`;
    return last ? `[${parts.join(", ")}]` : `[${parts.join(`,\n${" ".repeat(depth + 1)}`)}]`;
  };
  return level(0, 0);
}

const encoder = new TextEncoder();

/** `values` packed: little-endian, strings with their length before them. Returns a Uint8Array. */
export function pack(datatype, values) {
  const type = TYPES[datatype];
  if (type.kind === "text") return packTexts(values);
  const bytes = new Uint8Array(values.length * type.size);
  const view = new DataView(bytes.buffer);
  const write = WRITERS[datatype];
  for (let i = 0; i < values.length; i += 1) write(view, i * type.size, values[i]);
  return bytes;
}

const WRITERS = {
  BOOL: (view, at, value) => view.setUint8(at, value ? 1 : 0),
  UINT8: (view, at, value) => view.setUint8(at, value),
  UINT16: (view, at, value) => view.setUint16(at, value, true),
  UINT32: (view, at, value) => view.setUint32(at, value, true),
  UINT64: (view, at, value) => view.setBigUint64(at, value, true),
  INT8: (view, at, value) => view.setInt8(at, value),
  INT16: (view, at, value) => view.setInt16(at, value, true),
  INT32: (view, at, value) => view.setInt32(at, value, true),
  INT64: (view, at, value) => view.setBigInt64(at, value, true),
  FP16: (view, at, value) => view.setUint16(at, toHalf(value), true),
  BF16: (view, at, value) => view.setUint16(at, toBfloat(value), true),
  FP32: (view, at, value) => view.setFloat32(at, value, true),
  FP64: (view, at, value) => view.setFloat64(at, value, true),
};

const READERS = {
  BOOL: (view, at) => view.getUint8(at) !== 0,
  UINT8: (view, at) => view.getUint8(at),
  UINT16: (view, at) => view.getUint16(at, true),
  UINT32: (view, at) => view.getUint32(at, true),
  UINT64: (view, at) => view.getBigUint64(at, true),
  INT8: (view, at) => view.getInt8(at),
  INT16: (view, at) => view.getInt16(at, true),
  INT32: (view, at) => view.getInt32(at, true),
  INT64: (view, at) => view.getBigInt64(at, true),
  FP16: (view, at) => fromHalf(view.getUint16(at, true)),
  BF16: (view, at) => fromBfloat(view.getUint16(at, true)),
  FP32: (view, at) => view.getFloat32(at, true),
  FP64: (view, at) => view.getFloat64(at, true),
};

function packTexts(values) {
  const parts = Array.from(values, (value) => encoder.encode(value));
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  }
  return bytes;
}

/** The values in packed `bytes`. A BYTES element that is no UTF-8 becomes "0x…". Throws ValueError if the length is off. */
export function unpack(datatype, bytes) {
  const type = TYPES[datatype];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (type.kind === "text") return unpackTexts(bytes, view);
  if (bytes.length % type.size)
    throw new ValueError(`${bytes.length} bytes are no whole number of ${datatype} elements`);
  const read = READERS[datatype];
  const values = new Array(bytes.length / type.size);
  for (let i = 0; i < values.length; i += 1) values[i] = read(view, i * type.size);
  return values;
}

function unpackTexts(bytes, view) {
  const strict = new TextDecoder("utf-8", { fatal: true });
  const values = [];
  let at = 0;
  while (at < bytes.length) {
    const length = at + 4 <= bytes.length ? view.getUint32(at, true) : Infinity;
    if (at + 4 + length > bytes.length) throw new ValueError("a BYTES element is longer than its data");
    const part = bytes.subarray(at + 4, at + 4 + length);
    try {
      values.push(strict.decode(part));
    } catch {
      values.push(`0x${Array.from(part, (byte) => byte.toString(16).padStart(2, "0")).join("")}`);
    }
    at += 4 + length;
  }
  return values;
}

const scratch = new DataView(new ArrayBuffer(4));

/** IEEE 754 binary16 of a number, rounded to nearest, ties to even. */
export function toHalf(value) {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  // A subnormal is a multiple of 2^-24; Math.round goes up at ties, so ties are put right.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)) + (2 ** Math.floor(Math.log2(size)) > size ? -1 : 0));
  const unit = 2 ** (Math.max(exponent, -14) - 10);
  const exact = size / unit;
  let steps = Math.round(exact);
  if (steps - exact === 0.5 && steps % 2) steps -= 1;
  if (size === 0 || steps === 0) return sign;
  return sign | (((Math.max(exponent, -14) + 14) << 10) + steps);
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const part = bits & 1023;
  if (exponent === 31) return part ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + part) * 2 ** (exponent - 25) : part * 2 ** -24);
}

/** bfloat16 of a number: the upper half of its binary32, rounded to nearest, ties to even. */
function toBfloat(value) {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(value)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

function fromBfloat(bits) {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}
