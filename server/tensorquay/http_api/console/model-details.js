// What is known about one version: inputs and outputs, the configuration in force, where it comes from, its reports.

import { ApiError, address, config, headerNames, metadata, modelPath, report, request } from "./api.js";
import { copyButton, errorPanel, onAccess, saveFile } from "./dialogs.js";
import { h, put } from "./dom.js";
import { bytes, count, moment, number, percent, plural, shape } from "./format.js";
import { icon } from "./icons.js";

const ABSENT = null;

export class VersionDetails {
  #abort = new AbortController();
  #unanswered = false;

  constructor(model, version) {
    [this.model, this.version] = [model.name, version.version];
    this.signature = h("div.card-body");
    this.config = h("div.card-body");
    this.origin = h("div.card-body");
    this.optimised = h("div.card-body");
    this.element = h(
      "div.details",
      {},
      h("div.page", {}, card("Inputs and outputs", this.signature), card("Configuration in force", this.config)),
      h("div.page", {}, card("Where it comes from", this.origin), card("Optimisation", this.optimised)),
    );
    this.facts = version;
    this.stopListening = onAccess(() => this.#fetch());
    this.#fetch();
  }

  leave() {
    this.#abort.abort();
    this.stopListening();
  }

  /** The server is there again: ask for what it did not answer. */
  again() {
    if (this.#unanswered) this.#fetch();
  }

  #fetch() {
    this.#unanswered = false;
    const options = { signal: this.#abort.signal };
    const { model, version } = this;
    this.#fill(this.signature, metadata(model, version, options), (content) => signatureTables(content));
    this.#fill(this.config, config(model, version, options), (content) => configText(content));
    const reportLink = this.facts.report && this.#report();
    // What the feed says is not there is not asked for: a 404 is an error in every log it passes.
    this.#fill(
      this.origin,
      this.facts.verified || this.facts.report ? report(model, version, "provenance", options) : ABSENT,
      (content) => [originFacts(content), reportLink],
      "It was put into the repository as it is, not imported with “tensorquay import”: there is no proof that it equals its source.",
    );
    this.#fill(
      this.optimised,
      this.facts.optimized ? report(model, version, "optimization", options) : ABSENT,
      (content) => [optimisationFacts(content, this.facts.optimized), reportLink],
      "It was not optimised. “tensorquay optimize” looks for what is measurably faster here and still right.",
    );
  }

  /** Show what `wanted` brings; `absent`: what a 404 means. */
  async #fill(place, wanted, show, absent) {
    if (wanted === ABSENT) {
      put(place, h("p.fine", {}, absent));
      return;
    }
    put(place, h("p.empty", {}, "Asking the server …"));
    try {
      put(place, show(await wanted));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 0) this.#unanswered = true;
      put(
        place,
        absent && error.status === 404 ? h("p.fine", {}, absent) : errorPanel(error, "This could not be read"),
      );
    }
  }

  #report() {
    const path = `${modelPath(this.model, this.version)}/report`;
    if (!headerNames().length) {
      return h(
        "p",
        {},
        h(
          "a",
          { href: address(path), target: "_blank", rel: "noopener" },
          icon("out"),
          " Open the whole report",
          h("span.unseen", {}, " in a new tab"),
        ),
      );
    }
    // A link cannot carry the header of a closed API: the page fetches the report and hands it over as a file.
    const problem = h("div");
    const save = async () => {
      try {
        const response = await request(path);
        saveFile("report.html", await response.arrayBuffer(), "text/html");
      } catch (error) {
        put(problem, errorPanel(error));
      }
    };
    return h(
      "div",
      {},
      h("button.small", { type: "button", onclick: save }, icon("save"), "Save the whole report"),
      problem,
    );
  }
}

function card(title, body) {
  return h("section.card", {}, h("h2", {}, title), body);
}

function table(head, rows) {
  return h(
    "div.scroll",
    { tabindex: "0", role: "region", "aria-label": head.join(", ") },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((value, i) => (i ? h("td", {}, value) : h("th", { scope: "row" }, value))),
          ),
        ),
      ),
    ),
  );
}

function facts(entries) {
  return h(
    "dl.facts",
    {},
    entries
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

const name = (value) => h("bdi.mono", {}, value);

function signatureTables(content) {
  const rows = (tensors) =>
    tensors.map((each) => [name(each.name), each.datatype, h("span.mono", {}, shape(each.shape))]);
  return [
    h("h3", {}, "Inputs"),
    table(["Name", "Type", "Shape"], rows(content.inputs)),
    h("h3", {}, "Outputs"),
    table(["Name", "Type", "Shape"], rows(content.outputs)),
    h("p.fine", {}, "−1 is any size."),
  ];
}

function configText(content) {
  const written = JSON.stringify(content, null, 2);
  return h(
    "details",
    {},
    h("summary", {}, "Everything, with what was found out by itself"),
    copyButton(() => written),
    h("pre", { tabindex: "0" }, h("code", {}, written)),
  );
}

/** Members of a file that somebody else wrote: what is missing or of another kind is left out. */
const obj = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const arr = (value) => (Array.isArray(value) ? value : []);
const str = (value) => (typeof value === "string" ? value : "");
const num = (value) => (typeof value === "number" ? value : null);

function originFacts(content) {
  const [source, conversion, proof] = [obj(content.source), obj(content.conversion), obj(content.proof)];
  const outputs = arr(proof.outputs).map(obj);
  const passed = proof.passed === true;
  return [
    facts([
      ["Source", str(source.shown) || str(source.kind)],
      [
        "Imported",
        `${str(content.imported_at).replace("T", " ").replace("Z", " UTC")}, Tensorquay ${str(content.tensorquay)}`,
      ],
      [
        "Exporter",
        [str(conversion.exporter), conversion.opset ? `operator set ${conversion.opset}` : ""]
          .filter(Boolean)
          .join(", "),
      ],
      ["SHA-256", str(source.sha256) && h("span.mono.wrap", {}, str(source.sha256))],
    ]),
    h("h3", {}, "Proof that it equals its source"),
    h(
      "p",
      {},
      h(
        "span.tag",
        { "data-tone": passed ? "good" : "bad" },
        icon(passed ? "ready" : "failed"),
        passed ? "equal" : "not equal",
      ),
      ` on ${plural(num(proof.cases) ?? 0, "case")}, ${plural(num(proof.comparisons) ?? 0, "comparison")}.`,
    ),
    outputs.length > 0 &&
      table(
        ["Output", "Largest error", "Relative", "Cosine", "Same top-1"],
        outputs.map((each) => [
          name(str(each.name)),
          exact(each.max_absolute),
          exact(each.max_relative),
          num(each.cosine ?? each.min_cosine)?.toFixed(6) ?? "–",
          percent(num(each.top1 ?? each.min_top1)),
        ]),
      ),
  ];
}

/** An error as small as it is. */
function exact(value) {
  const given = num(value);
  if (given === null) return "–";
  return given === 0 ? "0" : given.toPrecision(3);
}

function optimisationFacts(content, live) {
  const [machine, data, baseline] = [obj(content.machine), obj(content.data), obj(content.baseline)];
  const trials = arr(content.trials)
    .map(obj)
    .filter((each) => obj(each.variant).family !== "baseline");
  const timed = trials.filter((each) => num(each.score) !== null).sort((a, b) => b.score - a.score);
  const most = 8;
  return [
    h("p", {}, h("b", {}, str(content.sentence))),
    live &&
      h(
        "p",
        {},
        `Its settings are ${live.applied ? "" : "not "}in force here${live.stale ? `: ${live.stale}` : ""}.`,
      ),
    facts([
      ["Measured", [moment(Date.parse(str(content.at))), str(machine.cpu)].filter(Boolean).join(", ")],
      ["Compared with", baseline.version ? `version ${baseline.version}` : ""],
      [
        "Judged on",
        data.judging !== undefined
          ? `${count(num(data.judging))} samples${data.real ? " of yours" : ", drawn from a seed"}${data.labels ? ", with labels" : ""}`
          : "",
      ],
      ["Tried", `${plural(trials.length, "variant")}, ${count(timed.length)} of them timed`],
    ]),
    timed.length > 0 &&
      table(
        ["Variant", "Times as good", "Verdict", "Size"],
        timed
          .slice(0, most)
          .map((each) => [
            str(obj(each.variant).name),
            `${number(each.score)}${num(each.score_low) === null ? "" : ` (${number(each.score_low)} to ${number(each.score_high)})`}`,
            str(each.verdict),
            num(each.bytes) ? bytes(each.bytes) : "–",
          ]),
      ),
    timed.length > most && h("p.fine", {}, `The best ${most} of ${timed.length}; all are in the report.`),
  ];
}
