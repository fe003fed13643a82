// Lines of a chart out of points of the feed: which number, what idle means for it, where there is a gap. Pure.

import { WINDOW_MS, namesAll, versionAt } from "./store.js";

/** Sum of failures by reason. */
export function failures(entry) {
  return Object.values(entry.failures_per_s ?? {}).reduce((sum, each) => sum + each, 0);
}

/** `pick(point.server)` of every point as {at, seconds, value}: `at` ends the `seconds` it is of; no number is a gap. */
export function ofServer(points, pick) {
  return points.map((point) => ({ at: point.at_ms, seconds: point.seconds, value: numeric(pick(point.server)) }));
}

/**
 * `pick(entry)` of one version at every point. `idle`: what it was where the feed left the version out, 0 for rates,
 * null (a gap) for latencies.
 */
export function ofVersion(points, model, version, pick, idle) {
  return points.map((point) => {
    const entry = versionAt(point, model, version);
    return {
      at: point.at_ms,
      seconds: point.seconds,
      value: entry ? numeric(pick(entry)) : namesAll(point) ? idle : null,
    };
  });
}

function numeric(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/**
 * The newest points, those that ended in the `ms` before the newest one's end, and how many whole seconds they are of, at
 * least `ms`: figures come every second, but every thirty from a server that has very many versions to look at.
 */
export function lately(points, ms) {
  const newest = points.at(-1);
  const found = points.filter((point) => point.at_ms > newest.at_ms - ms);
  return { points: found, seconds: Math.max(ms / 1000, Math.round(secondsOf(found))) };
}

/** How long `points`, or values of them, were measured, together. */
export function secondsOf(points) {
  return points.reduce((sum, each) => sum + each.seconds, 0);
}

/** The mean of values over the time they are of; null when nothing was measured. */
export function mean(values) {
  const known = values.filter((each) => each.value !== null);
  const seconds = secondsOf(known);
  return seconds > 0 ? known.reduce((sum, each) => sum + each.value * each.seconds, 0) / seconds : null;
}

/**
 * Runs of neighbouring values without a gap. A value that is null ends one, and so does time that no point is of: a step
 * longer than the interval the point was measured over, and much longer than the steps beside it (the feed thins old
 * points, so there is no one right step).
 */
export function runs(values) {
  const found = [];
  let run = [];
  const step = (i) => (i > 0 && i < values.length ? values[i].at - values[i - 1].at : 0);
  values.forEach((each, i) => {
    const covered = 1500 * (each.seconds ?? 0) + 500;
    const apart = step(i) > covered && step(i) > 2.5 * Math.max(1000, step(i - 1), step(i + 1));
    if (each.value === null || apart) {
      if (run.length) found.push(run);
      run = [];
    }
    if (each.value !== null) run.push(each);
  });
  if (run.length) found.push(run);
  return found;
}

/**
 * How far back a chart looks: whole minutes that hold all points, five at most. A server that was just started has a
 * minute to show, not an empty one with an edge of ink.
 */
export function windowOf(values) {
  const span = values.length ? values[values.length - 1].at - values[0].at : 0;
  return Math.min(WINDOW_MS, Math.max(1, Math.ceil((span - 2000) / 60_000)) * 60_000);
}

/** Round numbers from 0 to at least `largest`, at most `most` steps, none smaller than `least` (what is counted has no halves). */
export function ticks(largest, most = 4, least = 0) {
  if (!(largest > 0)) return [0, 1];
  const rough = Math.max(largest / most, least);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999999);
  const marks = [];
  for (let i = 0; i * step < largest * 0.999999 + step; i += 1) marks.push(Number((i * step).toPrecision(12)));
  return marks;
}

/** The reasons that failures had anywhere in `points`, the most frequent first. */
export function failureReasons(points, model, version) {
  const sums = new Map();
  for (const point of points) {
    const entry = versionAt(point, model, version);
    for (const [reason, value] of Object.entries(entry?.failures_per_s ?? {})) {
      sums.set(reason, (sums.get(reason) ?? 0) + value);
    }
  }
  return [...sums].sort((one, other) => other[1] - one[1]).map(([reason]) => reason);
}
