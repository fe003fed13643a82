// What is wrong right now, in order of weight, out of states and the last figures. Pure; the overview shows it.

import { duration, number, percent, words } from "./format.js";
import { kindOf } from "./states.js";

/** How far back failures count as now. */
const RECENT_MS = 30_000;

/** [{key, tone: bad | warn, title, text, model, version}], the worst first. */
export function problems(store) {
  return [...failedVersions(store), ...recentFailures(store), ...machine(store), ...slowQueues(store)];
}

function failedVersions(store) {
  const found = [];
  for (const model of store.models.values()) {
    for (const version of model.versions) {
      if (kindOf(version) !== "failed") continue;
      const others = model.versions.filter((each) => kindOf(each) === "ready");
      const rest = others.length
        ? ` Version ${others.map((each) => each.version).join(", ")} serves.`
        : " Nothing of it serves.";
      found.push({
        key: `failed ${model.name} ${version.version}`,
        tone: "bad",
        title: version.version
          ? `${model.name}, version ${version.version}, failed to load.${rest}`
          : `${model.name} cannot be served.`,
        text: version.reason,
        model: model.name,
        version: version.version,
      });
    }
  }
  return found;
}

/** Points of the last half minute. */
function recent(store) {
  const newest = store.latest;
  return newest ? store.points.filter((point) => point.at_ms > newest.at_ms - RECENT_MS) : [];
}

function recentFailures(store) {
  const sums = new Map();
  for (const point of recent(store)) {
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
        text: `${number(Math.round(sum))} in the last 30 seconds.`,
        model,
        version,
      };
    });
}

function machine(store) {
  const points = recent(store);
  const found = [];
  const mean = (pick) => {
    const values = points.map((point) => pick(point.server)).filter((value) => typeof value === "number");
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  };
  const throttled = mean((server) => server.throttled_share);
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
  const counts = new Map();
  const points = recent(store);
  for (const point of points) {
    for (const entry of point.versions) {
      const [wait, run] = [entry.queue_ms?.p50, entry.compute_ms?.p50];
      if (!(wait > 5) || !(wait > 4 * run)) continue;
      const key = JSON.stringify([entry.model, entry.version]);
      const seen = counts.get(key) ?? { times: 0 };
      counts.set(key, { times: seen.times + 1, wait, run });
    }
  }
  return [...counts]
    .filter(([, { times }]) => times >= Math.max(10, points.length * 0.6))
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
