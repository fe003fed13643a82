// A form made from a model's metadata, that sends a real prediction and shows the answer, and the same as code.

import { ApiError, address, bodyOf, config, headerNames, metadata, modelPath, request } from "./api.js";
import { announce, errorPanel, onAccess } from "./dialogs.js";
import { attribute, h, put, text, uid } from "./dom.js";
import { bytes, duration } from "./format.js";
import { icon } from "./icons.js";
import { buildRequest, readAnswer } from "./infer.js";
import { modelLink, tryLink } from "./routes.js";
import { tied } from "./samples.js";
import { ValueError } from "./tensors.js";
import { CodePanel } from "./try-code.js";
import { InputEditor } from "./try-input.js";
import { OutputChoice } from "./try-outputs.js";
import { resultView } from "./try-results.js";

/** A longer answer is not read: the page would hold several times that. */
const MOST_ANSWER = 32 * 1024 * 1024;

export class TryPage {
  #sub = h("p.fine");
  #place = h("div.page");
  #form = null;
  #shown = "";
  #unanswered = false;

  constructor(store, { model, version }) {
    this.store = store;
    [this.model, this.version] = [model, version];
    this.title = model ? `Try ${model}` : "Try it";
    this.select = h("select", { id: uid("model"), onchange: () => (location.hash = tryLink(this.select.value)) });
    this.versions = h("select", {
      id: uid("version"),
      onchange: () => (location.hash = tryLink(this.model, this.versions.value)),
    });
    this.element = h(
      "div.page",
      {},
      h("div.page-head", {}, h("h1", { tabindex: "-1" }, model ? ["Try ", h("bdi", {}, model)] : "Try it"), this.#sub),
      h(
        "div.chooser",
        {},
        h("div.field", {}, h("label", { for: this.select.id }, "Model"), this.select),
        h("div.field", {}, h("label", { for: this.versions.id }, "Version"), this.versions),
        model && h("a", { href: modelLink(model, version) }, "See its figures"),
      ),
      this.#place,
    );
    const unsubscribe = store.subscribe((what) => {
      if (what === "models") this.#choices();
      if (what === "connection" && store.connection.kind === "live" && this.#unanswered) this.#open();
    });
    const unlisten = onAccess(() => this.#open());
    this.stop = () => {
      unsubscribe();
      unlisten();
    };
    this.#choices();
    this.#open();
  }

  leave() {
    this.stop();
    this.#form?.leave();
  }

  #choices() {
    const models = [...this.store.models.values()].filter((model) =>
      model.versions.some((each) => each.state === "READY"),
    );
    const here = this.store.models.get(this.model);
    const ready = (here?.versions ?? []).filter((each) => each.state === "READY");
    const signature = JSON.stringify([
      models.map((each) => each.name),
      ready.map((each) => each.version),
      this.store.told,
    ]);
    if (signature === this.#shown) return;
    this.#shown = signature;
    const names = models.map((model) => model.name);
    if (this.model && !names.includes(this.model)) names.unshift(this.model);
    put(
      this.select,
      !this.model && h("option", { value: "" }, "Choose a model"),
      names.map((name) => h("option", { value: name }, name)),
    );
    this.select.value = this.model;
    const numbers = ready.map((each) => each.version);
    if (this.version && !numbers.includes(this.version)) numbers.unshift(this.version);
    const first = ready.find((each) => each.serving_default)?.version;
    put(
      this.versions,
      h("option", { value: "" }, first ? `Default (${first} now)` : "Default"),
      numbers.map((number) => h("option", { value: number }, number)),
    );
    this.versions.value = this.version;
    this.versions.disabled = !this.model;
    if (!this.model)
      text(
        this.#sub,
        this.store.told && !names.length
          ? "Nothing is ready to be asked: no model serves."
          : "Choose a model to get a form made from its metadata.",
      );
    else if (this.store.told && !ready.length)
      text(this.#sub, "Nothing of this model serves now: requests will be refused.");
    else text(this.#sub, "");
    // Most servers have something to try at once: with one model there is nothing to choose.
    if (!this.model && names.length === 1) location.replace(tryLink(names[0]));
  }

  async #open() {
    this.#form?.leave();
    this.#form = null;
    if (!this.model) {
      put(this.#place);
      return;
    }
    put(this.#place, h("p.empty", {}, "Asking for its metadata …"));
    const asked = await Promise.allSettled([metadata(this.model, this.version), config(this.model, this.version)]);
    const [described, configured] = asked;
    this.#unanswered = described.reason?.status === 0;
    if (described.status === "rejected") {
      if (!(described.reason instanceof ApiError)) throw described.reason;
      put(
        this.#place,
        errorPanel(described.reason, "The form cannot be made"),
        h("p", {}, h("a", { href: modelLink(this.model) }, "See the model")),
      );
      return;
    }
    // Without the configuration (its API may be closed) there are no labels and no range of pixels; the form works.
    this.#form = new TryForm(
      this.model,
      this.version,
      described.value,
      configured.status === "fulfilled" ? configured.value : {},
    );
    put(this.#place, this.#form.element);
  }
}

class TryForm {
  #result = h("div.result", { "aria-live": "off" });
  #sum = h("p.fine");
  #abort = null;

  constructor(model, version, described, configured) {
    [this.model, this.version] = [model, version];
    const range = configured.parameters?.image_range?.string_value;
    const labels = new Map((configured.output ?? []).map((each) => [each.name, each.label_filename]));
    const optional = new Set((configured.input ?? []).filter((each) => each.optional).map((each) => each.name));
    this.inputs = described.inputs.map(
      (spec) =>
        new InputEditor(spec, {
          range,
          optional: optional.has(spec.name),
          changed: () => this.#changed(),
          reshaped: (shape) => this.#reshaped(spec, shape),
        }),
    );
    this.outputs = described.outputs.map(
      (spec) => new OutputChoice(spec, { labelled: Boolean(labels.get(spec.name)), changed: () => this.#changed() }),
    );
    this.code = new CodePanel();
    this.send = h("button.primary", { type: "submit" }, icon("play"), h("span", {}, "Send"));
    this.cancel = h("button", { type: "button", hidden: true, onclick: () => this.#abort?.abort() }, "Cancel");
    const form = h(
      "form.try-form",
      {
        novalidate: true,
        onsubmit: (event) => this.#submit(event),
        onkeydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#submit(event);
        },
      },
      h(
        "section.card",
        {},
        h("h2", {}, "Inputs"),
        this.inputs.map((each) => each.element),
      ),
      h(
        "section.card",
        {},
        h("h2", {}, "Outputs"),
        h(
          "div.output-choices",
          {},
          this.outputs.map((each) => each.element),
        ),
      ),
      h("div.send-line", {}, this.send, this.cancel, this.#sum),
    );
    this.element = h(
      "div.try",
      {},
      form,
      h(
        "div.try-side",
        {},
        h("section.card", {}, h("h2", {}, "Answer"), this.#result),
        h("section.card", {}, h("h2", {}, "The same as code"), this.code.element),
      ),
    );
    put(this.#result, h("p.empty", {}, "Send the request to see what the model answers."));
    this.#changed();
  }

  leave() {
    this.#abort?.abort();
    for (const input of this.inputs) input.leave();
  }

  /** The request as it stands; throws ValueError. */
  #read() {
    const inputs = this.inputs.filter((each) => each.used).map((each) => each.read());
    const outputs = this.outputs.filter((each) => each.wanted).map((each) => each.read());
    if (!outputs.length) throw new ValueError("Ask for one output at least.");
    return { inputs, outputs };
  }

  /** One input was given another shape: those that are tied to it get it too. */
  #reshaped(spec, shape) {
    for (const each of this.inputs) if (each.spec !== spec && tied(each.spec, spec)) each.follow(shape, spec.name);
  }

  #changed() {
    if (!this.code) return; // inputs tell of their first values while the form is still being made
    try {
      const content = this.#read();
      const built = buildRequest(content.inputs, content.outputs);
      text(this.#sum, `${bytes(built.bytes)}, ${built.json ? "as JSON" : "as binary tensor data"}`);
      attribute(this.#sum, "data-tone", null);
      this.code.show({
        ...content,
        origin: address(""),
        model: this.model,
        version: this.version,
        headers: headerNames(),
      });
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      text(this.#sum, error.message);
      attribute(this.#sum, "data-tone", "bad");
      this.code.unavailable();
    }
  }

  async #submit(event) {
    event.preventDefault();
    if (this.#abort) return;
    let content;
    try {
      content = this.#read();
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      announce(error.message);
      (this.element.querySelector("[aria-invalid=true]") ?? this.send).focus();
      return;
    }
    const built = buildRequest(content.inputs, content.outputs);
    this.#abort = new AbortController();
    this.#busy(true);
    const started = performance.now();
    try {
      const response = await request(`${modelPath(this.model, this.version)}/infer`, {
        method: "POST",
        headers: built.headers,
        body: built.body,
        signal: this.#abort.signal,
      });
      const raw = await bodyOf(response, MOST_ANSWER);
      const took = performance.now() - started;
      const answer = readAnswer(response.headers, raw);
      put(this.#result, resultView(answer, content.outputs, { took, sent: built.bytes, got: raw.byteLength }));
      this.#result.scrollIntoView({ block: "nearest" });
      announce(`Answered in ${duration(took)} by version ${answer.version}`);
    } catch (error) {
      if (error.name === "AbortError")
        put(this.#result, h("p.empty", {}, "Cancelled: the server was told that nobody waits for the answer."));
      else
        put(
          this.#result,
          errorPanel(
            error instanceof ApiError ? error : new ApiError(200, `The answer could not be read: ${error.message}`),
            "No answer to show",
          ),
        );
    } finally {
      this.#abort = null;
      this.#busy(false);
    }
  }

  #busy(busy) {
    // A button that is disabled, or gone, loses the keyboard's focus.
    const held = document.activeElement === this.cancel;
    attribute(this.send, "aria-disabled", busy ? "true" : null);
    this.cancel.hidden = !busy;
    if (held && !busy) this.send.focus();
    put(
      this.send,
      busy ? h("span.spinner", { "aria-hidden": "true" }) : icon("play"),
      h("span", {}, busy ? "Waiting …" : "Send"),
    );
    this.#result.classList.toggle("waiting", busy);
  }
}
