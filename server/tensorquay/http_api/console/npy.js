// Tensors as NumPy's .npy files (format 1.0). Pure.

import { pack } from "./tensors.js";

const DESCRIPTIONS = {
  BOOL: "|b1",
  UINT8: "|u1",
  UINT16: "<u2",
  UINT32: "<u4",
  UINT64: "<u8",
  INT8: "|i1",
  INT16: "<i2",
  INT32: "<i4",
  INT64: "<i8",
  FP16: "<f2",
  BF16: "<f4",
  FP32: "<f4",
  FP64: "<f8",
};

/** The file of `input` {datatype, shape, values}. BF16, which NumPy does not have, becomes float32; BYTES has none. */
export function npy({ datatype, shape, values }) {
  const dims = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const said = `{'descr': '${DESCRIPTIONS[datatype]}', 'fortran_order': False, 'shape': ${dims}, }`;
  // Magic, version and length take 10 bytes; data begins at a multiple of 64.
  const header = said.padEnd(Math.ceil((said.length + 11) / 64) * 64 - 11) + "\n";
  const data = pack(datatype === "BF16" ? "FP32" : datatype, values);
  const file = new Uint8Array(10 + header.length + data.length);
  file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  file.set(new TextEncoder().encode(header), 10);
  file.set(data, 10 + header.length);
  return file;
}
