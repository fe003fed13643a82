// One model: its versions and what may be done with them, the charts of one version, and what is known about it.

import { keepFocus } from "./dialogs.js";
import { h, put, text, uid } from "./dom.js";
import { bytes, duration, moment } from "./format.js";
import { icon } from "./icons.js";
import { modelLink, tryLink } from "./routes.js";
import { Badge, kindOf, kindsOf, placement } from "./states.js";
import { activateVersion, asConfigured, loadModel, unloadModel } from "./model-actions.js";
import { VersionCharts } from "./model-charts.js";
import { VersionDetails } from "./model-details.js";

/** Why nothing is offered, by model control mode. */
const WHY_NOT = {
  none: "Models are loaded at the server's start only; to load and unload them here, start it with --model-control-mode=explicit.",
  poll: "The server follows its repository; to load and unload here, start it with --model-control-mode=explicit.",
};

const newestFirst = (versions) => versions.slice().sort((a, b) => Number(b.version) - Number(a.version));

export class ModelPage {
  #versions = h("div.versions");
  #actions = h("div.actions");
  #sub = h("p.fine");
  #body = h("div.page");
  #shown = "";
  #charts = null;
  #details = null;
  #chosen = "";

  constructor(store, { model, version }) {
    this.store = store;
    this.model = model;
    this.wanted = version;
    this.title = model;
    this.element = h(
      "div.page",
      {},
      h("p.crumbs", {}, h("a", { href: "#/" }, icon("back"), "All models")),
      h("div.page-head", {}, h("h1", { tabindex: "-1" }, h("bdi", {}, model)), this.#sub, this.#actions),
      h("section.card", {}, h("h2", {}, "Versions"), this.#versions),
      this.#body,
    );
    this.stop = store.subscribe((what) => this.#update(what));
    this.#update("all");
  }

  leave() {
    this.stop();
    this.#charts?.leave();
    this.#details?.leave();
  }

  #update(what) {
    if (what !== "figures" && what !== "connection") this.#structure();
    if (what === "figures") this.#charts?.update();
    if (what === "connection" && this.store.connection.kind === "live") this.#details?.again();
  }

  #structure() {
    const model = this.store.models.get(this.model);
    const signature = JSON.stringify([
      model ?? null,
      this.store.mayLoad,
      this.store.told,
      this.store.server?.control_mode,
    ]);
    if (signature === this.#shown) return;
    this.#shown = signature;
    const held = this.element.contains(document.activeElement);
    this.#draw(model);
    if (held) keepFocus();
  }

  #draw(model) {
    if (!model) {
      text(this.#sub, this.store.told ? "The repository has no model of this name." : "Waiting for the server …");
      put(this.#versions);
      put(this.#actions);
      this.#clear("");
      return;
    }
    const ready = model.versions.filter((version) => version.state === "READY");
    text(this.#sub, ready.length ? `${ready[0].platform ?? ""}` : "Nothing of it serves now.");
    this.#offer(model, ready);
    put(
      this.#versions,
      model.versions.length
        ? newestFirst(model.versions).map((version) => this.#version(model, version))
        : h("p.empty", {}, "It has no version that was ever loaded."),
      this.#policy(model, ready),
    );
    this.#choose(model, ready);
  }

  #offer(model, ready) {
    const buttons = [];
    if (ready.length)
      buttons.push(
        h(
          "a.button.primary",
          { href: tryLink(model.name, this.wanted && ready.some((v) => v.version === this.wanted) ? this.wanted : "") },
          icon("play"),
          "Try it",
        ),
      );
    if (this.store.mayLoad) {
      buttons.push(h("button", { type: "button", onclick: () => loadModel(model) }, ready.length ? "Reload" : "Load"));
      if (["ready", "loading"].some((kind) => kindsOf(model).has(kind))) {
        buttons.push(h("button", { type: "button", onclick: () => unloadModel(model, this.store) }, "Unload"));
      }
    }
    put(this.#actions, buttons);
  }

  #version(model, version) {
    const kind = kindOf(version);
    const ready = kind === "ready";
    const facts = ready
      ? [
          ["Runs on", placement(version)],
          ["Batching", version.batching],
          ["Instances", version.instances],
          ["Runs in", version.inline === null ? null : version.inline ? "the event loop" : "worker threads"],
          ["Size", version.bytes ? bytes(version.bytes) : null],
          [
            "Loaded",
            version.loaded_ms ? `${moment(version.loaded_ms)}, in ${duration(version.load_seconds * 1000)}` : null,
          ],
        ].filter(([, value]) => value !== null && value !== undefined && value !== "")
      : [];
    const tags = [
      version.serving_default && h("span.tag", { title: "Answers requests that name no version" }, "default"),
      version.verified &&
        h(
          "span.tag",
          { "data-tone": version.verified.passed ? "good" : "bad" },
          version.verified.passed ? "verified" : "proof failed",
        ),
      version.optimized?.winner && h("span.tag", {}, version.optimized.applied ? "optimised" : "optimised elsewhere"),
    ];
    const offer = this.store.mayLoad && version.version && this.#mayActivate(model, version);
    return h(
      "div.version",
      { "data-kind": kind },
      h(
        "div.version-head",
        {},
        h("span.version-number", {}, version.version ? `Version ${version.version}` : "The model"),
        new Badge(kind).element,
        tags,
        offer &&
          h(
            "button.small",
            {
              type: "button",
              "aria-label": `Activate version ${version.version}`,
              onclick: () => activateVersion(model, version),
            },
            "Activate",
          ),
      ),
      kind === "failed" && h("p.server-said", {}, version.reason),
      facts.length > 0 &&
        h(
          "dl.line-facts",
          {},
          facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
        ),
    );
  }

  /** Which versions the server picks and who said so; what it left out; and why nothing of that can be changed here. */
  #policy(model, ready) {
    const mayLoad = this.store.mayLoad;
    const resting = model.resting ?? [];
    const select = h(
      "select",
      { id: uid("resting") },
      resting.map((version) => h("option", { value: version }, version)),
    );
    return h(
      "div.version-policy",
      {},
      model.policy &&
        h(
          "p",
          {},
          "Version policy: ",
          h("span.mono", {}, model.policy),
          model.override ? ", by a load request, not by the repository's configuration" : "",
        ),
      model.override &&
        mayLoad &&
        h("button.small", { type: "button", onclick: () => asConfigured(model) }, "As configured"),
      resting.length > 0 &&
        (mayLoad && ready.length > 0
          ? h(
              "div.resting",
              {},
              h("label", { for: select.id }, "Never loaded:"),
              select,
              h(
                "button.small",
                { type: "button", onclick: () => activateVersion(model, { version: select.value, state: "" }) },
                "Activate it",
              ),
            )
          : h("p", {}, `Never loaded: ${resting.join(", ")}`)),
      !mayLoad && h("p", {}, WHY_NOT[this.store.server?.control_mode] ?? ""),
    );
  }

  /** Something has to serve, for its configuration is what is changed; and it has to change something. */
  #mayActivate(model, version) {
    const ready = model.versions.filter((each) => each.state === "READY");
    return ready.length > 0 && !(ready.length === 1 && ready[0].version === version.version);
  }

  /** Nothing is shown of a version any more; `key` is what will be. */
  #clear(key) {
    this.#chosen = key;
    this.#charts?.leave();
    this.#details?.leave();
    this.#charts = this.#details = null;
    put(this.#body);
  }

  /** Charts and details of the version in the address, else of the default one, if it serves. */
  #choose(model, ready) {
    const chosen =
      ready.find((each) => each.version === this.wanted) ?? ready.find((each) => each.serving_default) ?? ready[0];
    const key = chosen
      ? JSON.stringify([
          chosen.version,
          chosen.loaded_ms,
          ready.map((each) => each.version),
          chosen.verified,
          chosen.optimized,
          chosen.report,
        ])
      : "";
    if (key === this.#chosen) return;
    this.#clear(key);
    if (!chosen) return;
    this.#charts = new VersionCharts(this.store, model.name, chosen.version);
    this.#details = new VersionDetails(model, chosen);
    const tabs =
      ready.length > 1 &&
      h(
        "nav.tabs",
        { "aria-label": "Version shown below" },
        newestFirst(ready).map((each) =>
          h(
            "a",
            { href: modelLink(model.name, each.version), "aria-current": each === chosen ? "true" : null },
            `Version ${each.version}`,
          ),
        ),
      );
    const other =
      this.wanted &&
      this.wanted !== chosen.version &&
      h("p.fine", {}, `Version ${this.wanted} does not serve: what follows is of version ${chosen.version}.`);
    put(this.#body, other, tabs, this.#charts.element, this.#details.element);
    this.#charts.update();
  }
}
