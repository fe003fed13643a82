// Values to begin with: zeros, ones, counting, random ones; and which inputs are small enough for fields or for text. Pure.

import { TYPES } from "./tensors.js";

/** Up to here an input gets a field for each element. */
export const MOST_FIELDS = 16;
/** Up to here values are shown and edited as text; above, they are kept as they are. */
export const MOST_TEXT = 4096;
/** A tensor larger than that is not made up in a browser. */
export const MOST_ELEMENTS = 4 * 1024 * 1024;

export const FILLS = { zeros: "Zeros", ones: "Ones", counting: "0, 1, 2 …", random: "Random" };

/** What an input holds at first: of a text model's, the mask lets every token through, and all are of one segment. */
export function firstFill({ name, datatype }) {
  if (!["BOOL", "INT32", "INT64"].includes(datatype)) return "random";
  if (/mask$/i.test(name)) return "ones";
  return /(token_type|segment)_ids$/i.test(name) ? "zeros" : "random";
}

/**
 * Whether two inputs are meant to be of one size: whole numbers of one type and one shape with open axes, as a text model's
 * ids and mask are. Metadata has no names of axes that would tell.
 */
export function tied(one, other) {
  return (
    TYPES[one.datatype].kind === "integer" &&
    one.datatype === other.datatype &&
    one.shape.some((size) => size < 0) &&
    one.shape.join() === other.shape.join()
  );
}

/** `count` values of `datatype`. `random`: numbers in [0, 1), one by one. */
export function fill(kind, datatype, count, random = Math.random) {
  const type = TYPES[datatype];
  const value = MAKERS[type.kind](kind, type, random);
  return Array.from({ length: count }, (_, i) => value(i));
}

const MAKERS = {
  float: (kind, _, random) =>
    ({
      zeros: () => 0,
      ones: () => 1,
      counting: (i) => i,
      // Four digits: what is shown is what is sent.
      random: () => Math.round(random() * 1e4) / 1e4,
    })[kind],
  integer: (kind, type, random) => {
    const as = (value) => (type.big ? BigInt(value) : value);
    const most = Number(type.high < 127n ? type.high : 127n) + 1;
    return {
      zeros: () => as(0),
      ones: () => as(1),
      counting: (i) => as(i % most),
      random: () => as(Math.floor(random() * 10)),
    }[kind];
  },
  boolean: (kind, _, random) =>
    ({
      zeros: () => false,
      ones: () => true,
      counting: (i) => i % 2 === 1,
      random: () => random() < 0.5,
    })[kind],
  text: (kind, _, random) =>
    ({
      zeros: () => "",
      ones: () => "1",
      counting: (i) => String(i),
      random: () => WORDS[Math.floor(random() * WORDS.length)],
    })[kind],
};

const WORDS = ["harbour", "crane", "anchor", "pier", "tide", "cargo", "beacon", "mooring"];

/**
 * A size for each open dimension: one row, and for others what the names of the axes do not tell, a small number.
 * An image-shaped input gets a picture's size.
 */
export function startingShape(shape, imageLike) {
  return shape.map((size, axis) => {
    if (size >= 0) return size;
    if (axis === 0) return 1;
    return imageLike ? 224 : 4;
  });
}
