// The table of models: search, filter, order, pages of fifty; rows are kept and changed in place.

import { h, put, reconcile, text, uid } from "./dom.js";
import { bytes, count, duration, plural, rate } from "./format.js";
import { icon } from "./icons.js";
import { modelLink, tryLink } from "./routes.js";
import { failures } from "./series.js";
import { Badge, kindOf, kindsOf, placement, rankOf, worthRows } from "./states.js";
import { versionAt } from "./store.js";

const PAGE = 50;
/** Versions of one model that get a row here; its own page has all. */
const MOST_ROWS = 4;
/** By live figures rows change their places, but not under somebody's hand, and not each second. */
const RESORT_MS = 5000;

const byName = (a, b) => a.name.localeCompare(b.name);

export class ModelTable {
  #rows = new Map();
  #body = h("div.models-body", { role: "rowgroup" });
  #total = h("p.models-total", { role: "status" });
  #pager = h("nav.pager", { "aria-label": "Pages of models", hidden: true });
  #empty = h("p.empty", { hidden: true });
  #page = 0;
  #order = [];
  #sortedAt = 0;

  constructor(store) {
    this.store = store;
    const [find, state, order] = [uid("find"), uid("state"), uid("order")];
    this.find = h("input", {
      id: find,
      type: "search",
      placeholder: "Search models",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.#again(),
    });
    this.state = h(
      "select",
      { id: state, onchange: () => this.#again() },
      [
        ["", "Any state"],
        ["failed", "Failed"],
        ["ready", "Ready"],
        ["loading", "Loading"],
        ["off", "Not loaded"],
      ].map(([value, label]) => h("option", { value }, label)),
    );
    this.by = h(
      "select",
      { id: order, onchange: () => this.#again() },
      [
        ["name", "By name"],
        ["state", "Worst first"],
        ["rate", "Busiest first"],
        ["p99", "Slowest first"],
      ].map(([value, label]) => h("option", { value }, label)),
    );
    this.table = h(
      "div.models",
      { role: "table", "aria-label": "Models and versions" },
      h(
        "div.models-head",
        { role: "rowgroup" },
        h(
          "div.models-row",
          { role: "row" },
          ["Model", "Version", "State", "Runs on", "Batching", "Size"].map((name) =>
            h("span", { role: "columnheader" }, name),
          ),
          ["Requests/s", "p99", "Waiting"].map((name) => h("span.num", { role: "columnheader" }, name)),
        ),
      ),
      this.#body,
    );
    this.element = h(
      "section.card.models-card",
      {},
      h(
        "div.card-head",
        {},
        h("h2", {}, "Models"),
        this.#total,
        h(
          "div.tools",
          {},
          h("span.search", {}, icon("search"), h("label.unseen", { for: find }, "Search models"), this.find),
          h("label.unseen", { for: state }, "State"),
          this.state,
          h("label.unseen", { for: order }, "Order"),
          this.by,
        ),
      ),
      this.table,
      this.#empty,
      this.#pager,
    );
  }

  leave() {}

  update(what) {
    if (what !== "figures") this.#sort();
    else if (["rate", "p99"].includes(this.by.value) && this.#mayMove()) this.#sort();
    this.#draw();
  }

  #mayMove() {
    return performance.now() - this.#sortedAt > RESORT_MS && !this.table.matches(":hover, :focus-within");
  }

  #again() {
    this.#page = 0;
    this.#sort();
    this.#draw();
  }

  #sort() {
    this.#sortedAt = performance.now();
    const wanted = this.find.value.trim().toLowerCase();
    const state = this.state.value;
    const found = [...this.store.models.values()].filter(
      (model) => (!wanted || model.name.toLowerCase().includes(wanted)) && (!state || kindsOf(model).has(state)),
    );
    const latest = this.store.latest;
    const most = (model, pick) =>
      Math.max(
        -1,
        ...model.versions.map((version) => {
          const entry = latest && versionAt(latest, model.name, version.version);
          return entry ? (pick(entry) ?? -1) : -1;
        }),
      );
    const orders = {
      name: byName,
      state: (a, b) => rankOf(a) - rankOf(b) || byName(a, b),
      rate: (a, b) => most(b, (e) => e.requests_per_s) - most(a, (e) => e.requests_per_s) || byName(a, b),
      p99: (a, b) => most(b, (e) => e.latency_ms?.p99) - most(a, (e) => e.latency_ms?.p99) || byName(a, b),
    };
    this.#order = found.sort(orders[this.by.value]).map((model) => model.name);
  }

  #draw() {
    const pages = Math.max(1, Math.ceil(this.#order.length / PAGE));
    this.#page = Math.min(this.#page, pages - 1);
    const models = this.#order
      .slice(this.#page * PAGE, (this.#page + 1) * PAGE)
      .map((name) => this.store.models.get(name))
      .filter(Boolean);
    reconcile(
      this.#body,
      models,
      (model) => model.name,
      () => new ModelRows(this.store),
      this.#rows,
    );
    const all = this.store.models.size;
    text(
      this.#total,
      !this.store.told
        ? ""
        : this.#order.length === all
          ? plural(all, "model")
          : `${count(this.#order.length)} of ${plural(all, "model")}`,
    );
    this.table.hidden = models.length === 0;
    this.#empty.hidden = models.length > 0;
    text(
      this.#empty,
      !this.store.told
        ? "Waiting for the server …"
        : all === 0
          ? "There is no model in the repository yet. A model is a file in it: NAME/1/model.onnx."
          : "No model fits. Clear the search or the state.",
    );
    this.#pages(pages);
  }

  #pages(pages) {
    this.#pager.hidden = pages < 2;
    const key = `${this.#page}/${pages}`;
    if (this.#pager.dataset.at === key) return;
    this.#pager.dataset.at = key;
    const hadFocus = this.#pager.contains(document.activeElement) ? document.activeElement.dataset.step : "";
    const step = (by, label, picture) =>
      h(
        "button.small",
        {
          type: "button",
          "data-step": by,
          disabled: this.#page + by < 0 || this.#page + by >= pages,
          onclick: () => {
            this.#page += by;
            this.#draw();
          },
        },
        picture,
        label,
      );
    put(
      this.#pager,
      step(-1, "Previous", icon("back")),
      h("span", {}, `Page ${this.#page + 1} of ${pages}`),
      step(1, "Next", icon("next")),
    );
    if (hadFocus)
      (
        this.#pager.querySelector(`[data-step="${hadFocus}"]:enabled`) ?? this.#pager.querySelector("button:enabled")
      )?.focus();
  }
}

/** One model: a row for each version that matters. */
class ModelRows {
  element = h("div.models-group", { role: "presentation" });
  #kept = new Map();
  #more = h("p.models-more", { hidden: true });
  #rows = h("div", { role: "presentation" });
  #shown = "";

  constructor(store) {
    this.store = store;
    this.element.append(this.#rows, this.#more);
  }

  update(model) {
    const signature = JSON.stringify(model);
    if (signature !== this.#shown) {
      this.#shown = signature;
      const focused = this.element.contains(document.activeElement);
      const { shown, left } = worthRows(model.versions, MOST_ROWS);
      this.lines = shown.length ? shown : [{ version: "", state: "", reason: "", none: true }];
      this.#more.hidden = left === 0;
      put(this.#more, left > 0 && h("a", { href: modelLink(model.name) }, `and ${plural(left, "more version")}`));
      // The name stands in the first row only; rows that changed places are made anew.
      this.#kept.forEach((row) => row.element.remove());
      this.#kept.clear();
      this.lines.forEach((version, i) => {
        const row = new VersionRow(model, version, i === 0);
        this.#kept.set(version.version, row);
        this.#rows.append(row.element);
      });
      if (focused) this.element.querySelector("a").focus();
    }
    for (const version of this.lines) this.#kept.get(version.version).update(this.store);
  }
}

class VersionRow {
  constructor(model, version, first) {
    [this.model, this.version] = [model.name, version.version];
    const cell = (name, label, ...content) => h(`span.${name}`, { role: "cell", "data-label": label }, content);
    [this.answered, this.failing] = [h("span"), h("span.failing")];
    this.rate = cell("num", "Requests/s", version.state === "READY" ? [this.answered, this.failing] : []);
    this.p99 = cell("num", "p99");
    this.waiting = cell("num", "Waiting");
    const kind = version.none ? "off" : kindOf(version);
    const serving =
      version.serving_default && h("span.tag", { title: "Answers requests that name no version" }, "default");
    const checks = [
      version.verified && (version.verified.passed ? "verified" : "proof failed"),
      version.optimized?.applied && "optimised",
    ].filter(Boolean);
    const place = version.state === "READY" ? placement(version) : "";
    const name = h(
      "span.models-name",
      { role: "rowheader" },
      h(
        first ? "a" : "a.again",
        {
          href: modelLink(model.name),
          tabindex: first ? null : "-1",
          "aria-hidden": first ? null : "true",
          title: model.name,
        },
        h("bdi.clip", {}, model.name),
      ),
    );
    if (first && kindsOf(model).has("ready"))
      name.append(h("a.try", { href: tryLink(model.name), "aria-label": `Try ${model.name}` }, "Try it"));
    this.element = h(
      "div.models-row",
      { role: "row", "data-kind": kind, "data-first": first },
      name,
      cell(
        "models-version",
        "Version",
        version.version ? h("a", { href: modelLink(model.name, version.version) }, version.version) : "",
        " ",
        serving,
      ),
      cell(
        "models-state",
        "State",
        new Badge(kind).element,
        checks.map((word) => h("span.tag", {}, word)),
      ),
      cell("models-place", "Runs on", place),
      cell(
        "models-batch",
        "Batching",
        version.batching ? h("span.clip", { title: version.batching }, version.batching) : [],
      ),
      cell("models-size", "Size", version.bytes ? bytes(version.bytes) : ""),
      this.rate,
      this.p99,
      this.waiting,
      kind === "failed" && h("p.models-reason.server-said", { role: "cell" }, version.reason),
    );
    this.kind = kind;
  }

  update(store) {
    const latest = store.latest;
    const entry = latest && versionAt(latest, this.model, this.version);
    const serves = this.kind === "ready" && latest !== null;
    const failing = entry ? failures(entry) : 0;
    text(this.answered, entry ? rate(entry.requests_per_s) : serves ? "0" : "");
    text(this.failing, failing > 0 ? `${rate(failing)} fail` : "");
    text(this.p99, entry?.latency_ms ? duration(entry.latency_ms.p99) : serves ? "–" : "");
    text(this.waiting, entry ? count(entry.waiting) : serves ? "0" : "");
  }
}
