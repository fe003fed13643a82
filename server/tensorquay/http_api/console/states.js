// A version's state as people tell it: word, icon and tone; and what of a model is worth a row. Pure but for the badge.

import { attribute, h, put } from "./dom.js";
import { icon } from "./icons.js";

const KINDS = {
  ready: { label: "Ready", icon: "ready" },
  loading: { label: "Loading", icon: "loading" },
  unloading: { label: "Unloading", icon: "unloading" },
  failed: { label: "Failed", icon: "failed" },
  off: { label: "Not loaded", icon: "off" },
  unknown: { label: "Unknown", icon: "info" },
};

/** ready, loading, unloading, failed, off or unknown: UNAVAILABLE is a failure when it has a reason beyond "unloaded". */
export function kindOf(version) {
  switch (version.state) {
    case "READY":
      return "ready";
    case "LOADING":
      return "loading";
    case "UNLOADING":
      return "unloading";
    case "UNAVAILABLE":
      return ["", "unloaded"].includes(version.reason ?? "") ? "off" : "failed";
    default:
      return version.reason ? "failed" : "unknown";
  }
}

export const labelOf = (kind) => KINDS[kind].label;

const RANK = { failed: 0, loading: 1, unloading: 1, ready: 2, unknown: 3, off: 4 };

/** Versions that deserve a row each, most important first, at most `most`; and how many are left. */
export function worthRows(versions, most) {
  const number = (version) => Number(version.version) || 0;
  const order = versions
    .slice()
    .sort(
      (a, b) =>
        Number(b.serving_default) - Number(a.serving_default) ||
        RANK[kindOf(a)] - RANK[kindOf(b)] ||
        number(b) - number(a),
    );
  const loud = order.filter((version) => kindOf(version) !== "off");
  const shown = (loud.length ? loud : order.slice(0, 1)).slice(0, most);
  shown.sort((a, b) => number(b) - number(a));
  return { shown, left: versions.length - shown.length };
}

/** The kinds that a model's versions are in; a model without versions is off. */
export function kindsOf(model) {
  return new Set(model.versions.length ? model.versions.map(kindOf) : ["off"]);
}

/** The worst kind of a model, for sorting. */
export function rankOf(model) {
  return Math.min(RANK.off, ...model.versions.map((version) => RANK[kindOf(version)]));
}

/** A badge: colour, icon and word; `update(kind)`. */
export class Badge {
  element = h("span.badge");
  #kind = "";

  constructor(kind) {
    if (kind) this.update(kind);
  }

  update(kind) {
    if (kind === this.#kind) return;
    this.#kind = kind;
    attribute(this.element, "data-kind", kind);
    put(this.element, icon(KINDS[kind].icon), h("span", {}, KINDS[kind].label));
  }
}

/** Where it runs: the provider, and the shares of the graph's nodes where they are split. */
export function placement(version) {
  const shares = Object.entries(version.providers ?? {}).sort((a, b) => b[1] - a[1]);
  if (shares.length < 2) return version.provider ?? "";
  const short = (name) => name.replace(/ExecutionProvider$/, "");
  return shares.map(([name, share]) => `${short(name)} ${Math.round(share * 100)} %`).join(", ");
}
