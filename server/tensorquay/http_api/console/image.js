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
 * Pixels (RGBA bytes, `width` × `height`) as channels of 0 … 255, transparency laid on white.
 * Returns a Float32Array [height][width][channels].
 */
export function flatten(pixels, width, height, channels) {
  const out = new Float32Array(width * height * channels);
  for (let i = 0; i < width * height; i += 1) {
    const alpha = pixels[4 * i + 3];
    const over = (value) =>
      channels === 4 || alpha === 255 ? value : Math.round((value * alpha + 255 * (255 - alpha)) / 255);
    const [red, green, blue] = [over(pixels[4 * i]), over(pixels[4 * i + 1]), over(pixels[4 * i + 2])];
    if (channels === 1) out[i] = Math.round((299 * red + 587 * green + 114 * blue) / 1000);
    else {
      out.set([red, green, blue], i * channels);
      if (channels === 4) out[i * 4 + 3] = alpha;
    }
  }
  return out;
}

/**
 * `source` [height][width][channels] at another size: averaged when it shrinks both ways, else interpolated; whole bytes.
 * Filters, their support and the rounding between the two passes are Pillow's, so that the client makes the same bytes.
 */
export function resize(source, width, height, channels, toWidth, toHeight) {
  if (width === toWidth && height === toHeight) return source;
  const filter = toWidth <= width && toHeight <= height ? BOX : LINEAR;
  const across = shares(width, toWidth, filter);
  const down = shares(height, toHeight, filter);
  const middle = new Float32Array(height * toWidth * channels);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < toWidth; x += 1) {
      for (const [from, share] of across[x]) {
        for (let c = 0; c < channels; c += 1)
          middle[(y * toWidth + x) * channels + c] += share * source[(y * width + from) * channels + c];
      }
    }
  }
  const out = new Float32Array(toHeight * toWidth * channels);
  const row = toWidth * channels;
  const between = middle.map(toByte);
  for (let y = 0; y < toHeight; y += 1) {
    for (const [from, share] of down[y]) {
      for (let i = 0; i < row; i += 1) out[y * row + i] += share * between[from * row + i];
    }
  }
  return out.map(toByte);
}

const toByte = (value) => Math.min(255, Math.max(0, Math.round(value)));

const BOX = { reach: 0.5, weight: (at) => (at > -0.5 && at <= 0.5 ? 1 : 0) };
const LINEAR = { reach: 1, weight: (at) => Math.max(0, 1 - Math.abs(at)) };

/** For each target pixel, the source pixels it is made of with their shares, which sum up to 1. */
function shares(from, to, { reach, weight }) {
  const scale = from / to;
  const wide = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const found = [];
    const end = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
    for (let j = Math.max(0, Math.trunc(centre - reach * wide + 0.5)); j < end; j += 1) {
      found.push([j, weight((j - centre + 0.5) / wide)]);
    }
    const sum = found.reduce((total, [, each]) => total + each, 0);
    return found.map(([j, each]) => [j, each / sum]);
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
  const values = new Array(bytes.length);
  for (let i = 0; i < width * height; i += 1) {
    for (let c = 0; c < channels; c += 1) {
      const share = (invert ? 255 - bytes[i * channels + c] : bytes[i * channels + c]) / 255;
      let value = range.mean
        ? (share - range.mean[c % 3]) / range.deviation[c % 3]
        : range.low + share * (range.high - range.low);
      value = whole ? Math.round(value) : Number(value.toPrecision(7));
      values[first ? c * width * height + i : i * channels + c] = big ? BigInt(value) : value;
    }
  }
  return values;
}
