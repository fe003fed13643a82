// Loading, unloading and activating: what will happen is said first, then it is done, and how it went is shown.

import { config, load, unload } from "./api.js";
import { confirmAction } from "./dialogs.js";
import { h } from "./dom.js";
import { plural, rate } from "./format.js";
import { lately, mean, ofVersion } from "./series.js";

/** How far back a model counts as being asked now. */
const RECENT_MS = 10_000;

const serving = (model) => model.versions.filter((version) => version.state === "READY");
const list = (versions) =>
  `${versions.length === 1 ? "version" : "versions"} ${versions.map((each) => each.version).join(", ")}`;

export function loadModel(model) {
  const ready = serving(model);
  confirmAction({
    title: `${ready.length ? "Reload" : "Load"} ${model.name}?`,
    says: [
      "The server reads the model's folder again and loads the versions that its version policy wants.",
      ready.length
        ? `What serves now (${list(ready)}) serves on until the new is ready, and stays if it fails.`
        : "Until they are ready, requests to it are refused.",
    ],
    verb: ready.length ? "Reload" : "Load",
    doing: "Loading …",
    done: `${model.name} is loaded`,
    act: () => load(model.name),
  });
}

export function unloadModel(model, store) {
  const ready = serving(model);
  const { points, seconds } = lately(store.points, RECENT_MS);
  const busy = ready.reduce(
    (sum, { version }) => sum + (mean(ofVersion(points, model.name, version, (entry) => entry.requests_per_s, 0)) ?? 0),
    0,
  );
  confirmAction({
    title: `Unload ${model.name}?`,
    says: [
      `${plural(ready.length, "version")} will be drained and unloaded: requests that are in get their answers, ` +
        "new ones are refused until it is loaded again.",
      busy > 0
        ? h("p.warn-line", {}, `It is asked now: ${rate(busy)} requests a second in the last ${seconds} seconds.`)
        : `Nobody asked it in the last ${seconds} seconds.`,
    ],
    verb: "Unload",
    tone: "danger",
    doing: "Unloading …",
    done: `${model.name} is being unloaded`,
    act: () => unload(model.name),
  });
}

/** Serve `version` and no other: a load whose configuration is the one in force with another version policy. */
export function activateVersion(model, version) {
  const others = serving(model).filter((each) => each.version !== version.version);
  const loaded = version.state === "READY";
  confirmAction({
    title: `Activate version ${version.version} of ${model.name}?`,
    says: [
      loaded
        ? `Version ${version.version} serves already and goes on.`
        : `Version ${version.version} is loaded and warmed up beside what serves.`,
      others.length
        ? `Once it is ready, ${list(others)} ${others.length === 1 ? "is" : "are"} drained and unloaded, ` +
          `and requests that name no version go to ${version.version}.`
        : "",
      "If it fails, everything stays as it is.",
      h(
        "p.fine",
        {},
        `It is a load request with the configuration in force and version_policy { specific { versions: ` +
          `[${version.version}] } }. The server keeps that until “As configured”, until the model's own configuration ` +
          "file changes, or until it is started again.",
      ),
    ].filter(Boolean),
    verb: "Activate",
    doing: "Activating …",
    done: `Version ${version.version} of ${model.name} is active`,
    act: async () => {
      const from = loaded ? version : serving(model)[0];
      const override = await config(model.name, from?.version ?? "");
      override.version_policy = { specific: { versions: [Number(version.version)] } };
      await load(model.name, JSON.stringify(override));
    },
  });
}

/** End what a load request brought, be it a version policy or more: the repository's own configuration counts again. */
export function asConfigured(model) {
  confirmAction({
    title: `${model.name} as configured?`,
    says: [
      "The configuration of the repository counts again, its version policy too: the versions that it wants are loaded " +
        "beside what serves, and what else there is is drained and unloaded once they are ready.",
      "If it fails, everything stays as it is.",
      h("p.fine", {}, "It is a load request with an empty configuration."),
    ],
    verb: "As configured",
    doing: "Loading …",
    done: `${model.name} is as configured`,
    act: () => load(model.name, ""),
  });
}
