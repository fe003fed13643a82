// Numbers, sizes, durations and shapes as people read them. Pure: no document, no clock.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** What is shown where nothing is known. */
const NOTHING = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits at most, never an exponent, thousands grouped. */
export function number(value) {
  if (!known(value)) return NOTHING;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.01) return value < 0 ? "> −0.01" : "< 0.01";
  if (size < 1) return trim(value.toFixed(2));
  if (size < 10) return trim(value.toFixed(size < 9.995 ? 2 : 1));
  if (size < 100) return trim(value.toFixed(1));
  return whole.format(value);
}

/** Whole numbers with their thousands grouped. */
export function count(value) {
  return known(value) ? whole.format(value) : NOTHING;
}

function trim(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** Events in a second: short enough for a tile. */
export function rate(value) {
  if (!known(value)) return NOTHING;
  if (value >= 1e6) return `${trim((value / 1e6).toFixed(2))} M`;
  if (value >= 1e5) return `${trim((value / 1e3).toFixed(0))} k`;
  return number(value);
}

/** Milliseconds with the unit that fits: [number, unit]. */
export function durationParts(ms) {
  if (!known(ms)) return [NOTHING, ""];
  if (ms === 0) return ["0", "ms"];
  if (ms < 0.1) return [trim((ms * 1000).toFixed(ms < 0.01 ? 1 : 0)), "µs"];
  if (ms < 1000) return [number(ms), "ms"];
  if (ms < 60_000) return [number(ms / 1000), "s"];
  return [number(ms / 60_000), "min"];
}

export function duration(ms) {
  return durationParts(ms).join(" ").trim();
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes with the unit that fits: [number, unit]. */
export function bytesParts(value) {
  if (!known(value)) return [NOTHING, ""];
  let step = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 1024 && step < UNITS.length - 1) {
    scaled /= 1024;
    step += 1;
  }
  return [step === 0 ? whole.format(scaled) : number(scaled), UNITS[step]];
}

export function bytes(value) {
  return bytesParts(value).join(" ").trim();
}

/** A share of 1 as a percentage. */
export function percent(share) {
  if (!known(share)) return NOTHING;
  const value = share * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${trim(value.toFixed(value < 10 ? 1 : 0))} %`;
}

/** How long something took or is ago, in its two largest units. */
export function age(ms) {
  if (!known(ms)) return NOTHING;
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** A moment of the wall clock, in the reader's zone. */
export function moment(ms) {
  if (!known(ms)) return NOTHING;
  const at = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function shape(dims) {
  return Array.isArray(dims) ? `[${dims.join(", ")}]` : NOTHING;
}

/** "1 version", "2 versions". */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** An error kind of the protocol (QUEUE_FULL) as words. */
export function words(kind) {
  const text = String(kind).replaceAll("_", " ").toLowerCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
