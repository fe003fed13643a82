// What is wrong right now, in order of weight, out of states and the last figures. Pure; the overview shows it.

import { duration, number, percent, words } from "./format.js";
import { lately, mean, ofServer, secondsOf } from "./series.js";
import { kindOf } from "./states.js";

/** How far back failures count as now. */
const RECENT_MS = 30_000;
/** A queue is slow when it was for that long, and for that share of what is looked at. */
const SLOW_S = 10;
const SLOW_SHARE = 0.6;

/** [{key, tone: bad | warn, title, text, model, version}], the worst first. */
export function problems(store) {
  return [...failedVersions(store), ...recentFailures(store), ...machine(store), ...slowQueues(store)];
}

/** One problem for all versions of a model that failed for the same reason. */
function failedVersions(store) {
  const found = [];
  for (const model of store.models.values()) {
    const byReason = new Map();
    for (const version of model.versions) {
      if (kindOf(version) === "failed")
        byReason.set(version.reason, [...(byReason.get(version.reason) ?? []), version.version]);
    }
    if (!byReason.size) continue;
    const others = model.versions.filter((each) => kindOf(each) === "ready").map((each) => each.version);
    const rest = others.length
      ? `${versionList("V", others)} ${others.length === 1 ? "serves" : "serve"}.`
      : "Nothing of it serves.";
    for (const [reason, failed] of byReason) {
      found.push({
        key: `failed ${model.name} ${failed.join()}`,
        tone: "bad",
        title: failed[0]
          ? `${model.name}, ${versionList("v", failed)}, failed to load. ${rest}`
          : `${model.name} cannot be served.`,
        text: reason,
        model: model.name,
        version: failed[0],
      });
    }
  }
  return found;
}

const versionList = (v, numbers) => `${v}ersion${numbers.length === 1 ? "" : "s"} ${numbers.join(", ")}`;

function recentFailures(store) {
  const sums = new Map();
  const { points, seconds } = lately(store.points, RECENT_MS);
  for (const point of points) {
    for (const entry of point.versions) {
      for (const [reason, rate] of Object.entries(entry.failures_per_s ?? {})) {
        const key = JSON.stringify([entry.model, entry.version, reason]);
        sums.set(key, (sums.get(key) ?? 0) + rate * point.seconds);
      }
    }
  }
  return [...sums]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 5)
    .map(([key, sum]) => {
      const [model, version, reason] = JSON.parse(key);
      return {
        key: `failures ${key}`,
        tone: "warn",
        title: `${model}, version ${version}, fails requests: ${reason === "OTHER" ? "they do not fit the model" : words(reason).toLowerCase()}.`,
        text: `${number(Math.round(sum))} in the last ${seconds} seconds.`,
        model,
        version,
      };
    });
}

function machine(store) {
  const found = [];
  const throttled = mean(ofServer(lately(store.points, RECENT_MS).points, (server) => server.throttled_share));
  if (throttled !== null && throttled > 0.05) {
    found.push({
      key: "throttled",
      tone: "warn",
      title: `The container's CPU limit holds the server back ${percent(throttled)} of the time.`,
      text: "Latencies are longer than the models need: raise the limit, or lower the load.",
    });
  }
  const newest = store.latest?.server;
  if (newest?.memory_limit_bytes && newest.memory_bytes / newest.memory_limit_bytes > 0.9) {
    found.push({
      key: "memory",
      tone: "bad",
      title: `${percent(newest.memory_bytes / newest.memory_limit_bytes)} of the memory limit is in use.`,
      text: "Beyond the limit the container is killed: raise it, or serve fewer models or versions.",
    });
  }
  return found;
}

/** Versions whose requests wait longer than they run, for most of the last half minute. */
function slowQueues(store) {
  const found = new Map();
  const { points } = lately(store.points, RECENT_MS);
  for (const point of points) {
    for (const entry of point.versions) {
      const [wait, run] = [entry.queue_ms?.p50, entry.compute_ms?.p50];
      if (!(wait > 5) || !(wait > 4 * run)) continue;
      const key = JSON.stringify([entry.model, entry.version]);
      found.set(key, { slow: (found.get(key)?.slow ?? 0) + point.seconds, wait, run });
    }
  }
  const enough = Math.max(SLOW_S, SLOW_SHARE * secondsOf(points));
  return [...found]
    .filter(([, { slow }]) => slow >= enough)
    .map(([key, { wait, run }]) => {
      const [model, version] = JSON.parse(key);
      return {
        key: `queue ${key}`,
        tone: "warn",
        title: `${model}, version ${version}: requests wait longer than they run.`,
        text: `Half of them wait ${duration(wait)} or more for ${duration(run)} of work: it is asked for more than it can do.`,
        model,
        version,
      };
    });
}
