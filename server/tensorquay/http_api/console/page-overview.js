// The first page: what is wrong, the server's figures, every model with its versions.

import { attribute, h, put, reconcile, text } from "./dom.js";
import { bytes, bytesParts, count, durationParts, moment, number, percent, plural, rate } from "./format.js";
import { icon } from "./icons.js";
import { Sparkline } from "./chart.js";
import { problems } from "./problems.js";
import { modelLink } from "./routes.js";
import { ofServer } from "./series.js";
import { ModelTable } from "./overview-models.js";

/** The tiles: `pick` of the server's figures, how its newest value is said, and what it is measured against. */
const TILES = [
  {
    key: "requests",
    label: "Requests",
    pick: (s) => s.requests_per_s,
    say: (v) => [rate(v), "/s"],
    sub: (s) => `${rate(s.rows_per_s)} rows/s in ${rate(s.runs_per_s)} runs/s`,
  },
  {
    key: "p99",
    label: "Latency, p99",
    pick: (s) => s.latency_ms?.p99 ?? null,
    say: durationParts,
    sub: (s) => (s.latency_ms ? `half within ${durationParts(s.latency_ms.p50).join(" ")}` : "no requests just now"),
  },
  {
    key: "failures",
    label: "Failures",
    pick: (s) => s.failures_per_s,
    say: (v) => [rate(v), "/s"],
    sub: (s) => `${rate(s.refused_per_s)} /s refused at the door`,
    tone: (s) => (s.failures_per_s > 0 ? "warn" : ""),
  },
  {
    key: "waiting",
    label: "Waiting",
    pick: (s) => s.waiting,
    say: (v) => [count(v), ""],
    sub: (s) => `${count(s.inflight_requests)} in work, ${bytes(s.inflight_bytes)}`,
  },
  {
    key: "cpu",
    label: "CPU",
    pick: (s) => s.cpu_cores,
    say: (v) => [number(v), "cores"],
    sub: (s) => cpuSays(s),
    least: (s) => s.cpu_limit_cores ?? 0,
    tone: (s) => (s.throttled_share > 0.05 ? "warn" : ""),
  },
  {
    key: "memory",
    label: "Memory",
    pick: (s) => s.memory_bytes,
    say: bytesParts,
    sub: (s) =>
      s.memory_limit_bytes
        ? `${percent(s.memory_bytes / s.memory_limit_bytes)} of ${bytes(s.memory_limit_bytes)}`
        : "no limit known",
    least: (s) => s.memory_limit_bytes ?? 0,
    tone: (s) => (s.memory_limit_bytes && s.memory_bytes / s.memory_limit_bytes > 0.9 ? "bad" : ""),
  },
];

function cpuSays(server) {
  const limit = server.cpu_limit_cores
    ? `${percent(server.cpu_cores / server.cpu_limit_cores)} of ${number(server.cpu_limit_cores)} cores`
    : "no limit known";
  return server.throttled_share > 0.001 ? `${limit}, held back ${percent(server.throttled_share)}` : limit;
}

class Tile {
  value = h("span.tile-number");
  unit = h("span.tile-unit");
  sub = h("p.tile-sub");
  line = new Sparkline();

  constructor(what) {
    this.what = what;
    this.element = h(
      "div.tile",
      { "data-tile": what.key },
      h("h3", {}, what.label),
      h("p.tile-value", {}, this.value, " ", this.unit),
      this.sub,
      this.line.element,
    );
  }

  update(store) {
    const server = store.latest?.server;
    const [value, unit] = this.what.say(server ? this.what.pick(server) : null);
    text(this.value, value);
    text(this.unit, unit);
    text(this.sub, server ? this.what.sub(server) : "waiting for the first figures");
    this.element.dataset.tone = (server && this.what.tone?.(server)) || "";
    this.line.update(ofServer(store.points, this.what.pick), server ? (this.what.least?.(server) ?? 0) : 0);
  }
}

export class OverviewPage {
  title = "Overview";
  #tiles = TILES.map((what) => new Tile(what));
  #now = h(
    "section.tiles",
    { "aria-label": "The server now" },
    this.#tiles.map((tile) => tile.element),
  );
  #wrong = h("ul.problems");
  #attention = h("section", { "aria-label": "Needs attention", hidden: true }, this.#wrong);
  #keptWrong = new Map();
  #fine = h("p.fine");
  #facts = h("dl.facts");
  #heading = h("h1", { tabindex: "-1" }, "Overview");

  constructor(store) {
    this.store = store;
    this.table = new ModelTable(store);
    this.element = h(
      "div.page",
      {},
      h("div.page-head", {}, this.#heading, this.#fine),
      this.#attention,
      this.#now,
      this.table.element,
      h("section.card", {}, h("h2", {}, "This server"), this.#facts),
    );
    this.stop = store.subscribe((what) => this.#update(what));
    this.#update("all");
  }

  leave() {
    this.stop();
    this.table.leave();
  }

  #update(what) {
    if (what === "connection") return;
    if (what !== "figures") this.#server();
    for (const tile of this.#tiles) tile.update(this.store);
    attribute(this.#now, "data-at", this.store.latest?.at_ms ?? null);
    this.#problems();
    this.table.update(what);
  }

  #problems() {
    const all = problems(this.store);
    // What is wrong comes first, but the figures have to be found behind it, also on a phone.
    const most = window.innerWidth < 600 ? 3 : 8;
    const some = all.slice(0, most);
    if (all.length > most) {
      some.push({
        key: "more",
        tone: "warn",
        title: `${plural(all.length - most, "more problem")}.`,
        text: "Filter the models below by “Failed” to see them all.",
      });
    }
    reconcile(
      this.#wrong,
      some,
      (each) => each.key,
      (each) => new ProblemLine(each),
      this.#keptWrong,
    );
    this.#attention.hidden = all.length === 0;
    const models = [...this.store.models.values()];
    const versions = models.flatMap((model) => model.versions);
    const ready = versions.filter((version) => version.state === "READY").length;
    const loading = versions.filter((version) => version.state === "LOADING").length;
    const says = !this.store.told
      ? ""
      : models.length === 0
        ? "There is no model in the repository."
        : `${plural(models.length, "model")}, ${plural(ready, "version")} ready${loading ? `, ${count(loading)} loading` : ""}${all.length ? `, ${plural(all.length, "thing")} to look at` : ", nothing wrong"}.`;
    this.#fine.dataset.tone = all.length || !models.length ? "" : "good";
    text(this.#fine, says);
  }

  #server() {
    const server = this.store.server;
    if (!server) return;
    const port = (value) => (value ? String(value) : "closed");
    const facts = [
      ["Version", server.version],
      ["Server id", server.name],
      ["Up since", moment(server.started_ms)],
      ["Model control", `${server.control_mode}${this.store.mayLoad ? "" : ": load and unload are off"}`],
      ["Threads", server.threads_because || String(server.threads)],
      ["Front ends", server.frontends ? String(server.frontends) : "none, one process"],
      ["Ports", `HTTP ${port(server.http_port)}, gRPC ${port(server.grpc_port)}, metrics ${port(server.metrics_port)}`],
      ["Extensions", (server.extensions ?? []).join(", ")],
    ];
    put(
      this.#facts,
      facts.map(([name, value]) =>
        h(value.length > 80 ? "div.wide" : "div", {}, h("dt", {}, name), h("dd", {}, value)),
      ),
    );
  }
}

class ProblemLine {
  #title = h("b");
  #text = h("span.server-said");

  constructor(problem) {
    const words = problem.model
      ? h("a.problem-title", { href: modelLink(problem.model, problem.version) }, this.#title)
      : h("span.problem-title", {}, this.#title);
    this.element = h(
      "li.problem",
      { "data-tone": problem.tone },
      icon(problem.tone === "bad" ? "failed" : "warning"),
      h("div", {}, words, this.#text),
    );
  }

  update(problem) {
    text(this.#title, problem.title);
    text(this.#text, problem.text);
  }
}
