// Pictures as tensors, as `tensorquay infer --image` makes them: which inputs take one, resizing, ranges. Pure.

import { TYPES } from "./tensors.js";

const CHANNELS = new Set([1, 3, 4]);

/**
 * The axes of an input that takes pictures: [N,C,H,W], [N,H,W,C] or without N, with 1, 3 or 4 channels; else null.
 * `height` and `width` are -1 where the model takes any.
 */
export function layoutOf(shape, datatype) {
  if (!["float", "integer"].includes(TYPES[datatype]?.kind)) return null;
  const batched = shape.length === 4;
  if (!batched && shape.length !== 3) return null;
  if (batched && shape[0] !== -1 && shape[0] !== 1) return null;
  const [a, b, c] = shape.slice(-3);
  if (CHANNELS.has(a)) return { channels: a, height: b, width: c, first: true, batched };
  if (CHANNELS.has(c)) return { channels: c, height: a, width: b, first: false, batched };
  return null;
}

/** What bytes 0 … 255 of a channel become: `scale` and `shift` by channel. */
export const RANGES = {
  unit: { name: "0 to 1", low: 0, high: 1 },
  bytes: { name: "0 to 255", low: 0, high: 255 },
  signed: { name: "−1 to 1", low: -1, high: 1 },
  imagenet: { name: "ImageNet mean and deviation", mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] },
};

/** "0,16" or "0..16", the model's parameter `image_range`, as {low, high}; null if it is no range. */
export function parseRange(text) {
  const parts = String(text)
    .split(text.includes("..") ? ".." : ",")
    .map((part) => Number(part.trim() || NaN));
  return parts.length === 2 && parts.every(Number.isFinite) && parts[0] !== parts[1]
    ? { low: parts[0], high: parts[1] }
    : null;
}

/**
 * Pixels (RGBA bytes, `width` × `height`) as channels of 0 … 255 at another size: transparency laid on white, averaged when
 * it shrinks both ways, else interpolated. Filters, their support, the weights' fixed point and the rounding between the two
 * passes are Pillow's, so that the client makes the same bytes, give or take one. Returns a Uint8Array
 * [toHeight][toWidth][channels].
 *
 * A picture may have 16 million pixels: they are taken row by row, and nothing is made for each.
 */
export function resize(pixels, width, height, channels, toWidth, toHeight) {
  const filter = toWidth <= width && toHeight <= height ? BOX : LINEAR;
  const across = shares(width, toWidth, filter);
  const down = shares(height, toHeight, filter);
  const row = toWidth * channels;
  const flat = new Uint8Array(width * channels);
  const middle = new Uint8Array(height * row);
  for (let y = 0; y < height; y += 1) {
    flatten(pixels.subarray(4 * y * width, 4 * (y + 1) * width), channels, flat);
    for (let x = 0; x < toWidth; x += 1) {
      const { from, weights } = across[x];
      for (let c = 0; c < channels; c += 1) {
        let sum = HALF;
        for (let j = 0; j < weights.length; j += 1) sum += weights[j] * flat[(from + j) * channels + c];
        middle[y * row + x * channels + c] = toByte(sum);
      }
    }
  }
  const out = new Uint8Array(toHeight * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < toHeight; y += 1) {
    const { from, weights } = down[y];
    sums.fill(HALF);
    for (let j = 0; j < weights.length; j += 1) {
      for (let i = 0; i < row; i += 1) sums[i] += weights[j] * middle[(from + j) * row + i];
    }
    for (let i = 0; i < row; i += 1) out[y * row + i] = toByte(sums[i]);
  }
  return out;
}

/** A row of RGBA bytes as `channels`, into `out`. */
function flatten(row, channels, out) {
  for (let i = 0; 4 * i < row.length; i += 1) {
    const alpha = row[4 * i + 3];
    const opaque = channels === 4 || alpha === 255;
    const red = opaque ? row[4 * i] : over(row[4 * i], alpha);
    const green = opaque ? row[4 * i + 1] : over(row[4 * i + 1], alpha);
    const blue = opaque ? row[4 * i + 2] : over(row[4 * i + 2], alpha);
    if (channels === 1) out[i] = Math.round((299 * red + 587 * green + 114 * blue) / 1000);
    else {
      out[i * channels] = red;
      out[i * channels + 1] = green;
      out[i * channels + 2] = blue;
      if (channels === 4) out[i * 4 + 3] = alpha;
    }
  }
}

/** A byte of a pixel that is `alpha` / 255 opaque, on white. */
const over = (value, alpha) => Math.round((value * alpha + 255 * (255 - alpha)) / 255);

/** Weights are whole multiples of 2^-22: sums of them with bytes fit 32 bits. */
const FIXED_BITS = 22;
const HALF = 1 << (FIXED_BITS - 1);
const toByte = (sum) => Math.min(255, sum >> FIXED_BITS);

const BOX = { reach: 0.5, weight: (at) => (at > -0.5 && at <= 0.5 ? 1 : 0) };
const LINEAR = { reach: 1, weight: (at) => Math.max(0, 1 - Math.abs(at)) };

/** For each target pixel, the source pixels it is made of: the first one, and their weights, which sum up to 1. */
function shares(size, toSize, { reach, weight }) {
  const scale = size / toSize;
  const wide = Math.max(1, scale);
  return Array.from({ length: toSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
    const end = Math.min(size, Math.trunc(centre + reach * wide + 0.5));
    const weights = Array.from({ length: end - from }, (__, j) => weight((from + j - centre + 0.5) / wide));
    const sum = weights.reduce((total, each) => total + each, 0);
    return { from, weights: Int32Array.from(weights, (each) => Math.trunc((each / sum) * 2 ** FIXED_BITS + 0.5)) };
  });
}

/**
 * Channels of 0 … 255 as values of the input, in its order of axes.
 * `range`: {low, high} or {mean, deviation}; `invert` swaps black and white first.
 */
export function tensorValues(bytes, width, height, layout, datatype, range, invert) {
  const { channels, first } = layout;
  const whole = TYPES[datatype].kind === "integer";
  const big = TYPES[datatype].big === true;
  const valueOf = (byte, c) => {
    const share = (invert ? 255 - byte : byte) / 255;
    const value = range.mean
      ? (share - range.mean[c]) / range.deviation[c]
      : range.low + share * (range.high - range.low);
    const rounded = whole ? Math.round(value) : Number(value.toPrecision(7));
    return big ? BigInt(rounded) : rounded;
  };
  const tables = Array.from({ length: channels }, (_, c) => Array.from({ length: 256 }, (__, byte) => valueOf(byte, c)));
  const values = new Array(bytes.length);
  for (let i = 0; i < width * height; i += 1) {
    for (let c = 0; c < channels; c += 1) {
      values[first ? c * width * height + i : i * channels + c] = tables[c][bytes[i * channels + c]];
    }
  }
  return values;
}
