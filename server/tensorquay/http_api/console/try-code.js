// The request of the form as curl and Python, in tabs, with the files they need when values are too many to write out.

import { copyButton, saveFile } from "./dialogs.js";
import { attribute, h, put, text, uid } from "./dom.js";
import { buildRequest } from "./infer.js";
import { npy } from "./npy.js";
import {
  REQUEST_FILE,
  SECRET,
  curl,
  hasBfloat,
  inputFile,
  needsInputFiles,
  needsRequestFile,
  ourPython,
  tritonPython,
  wantsBinary,
} from "./snippets.js";

const KINDS = [
  { key: "curl", label: "curl", write: curl, note: "" },
  {
    key: "triton",
    label: "Python, tritonclient",
    write: tritonPython,
    note: "Needs pip install 'tritonclient[http]'.",
  },
  { key: "ours", label: "Python, ours", write: ourPython, note: "Needs the package tensorquay, whose client it uses." },
];

export class CodePanel {
  #kind = KINDS[0];
  #content = null;
  #code = h("code");
  #note = h("p.fine");
  #files = h("div.files");

  constructor() {
    const panel = uid("code");
    this.tabs = KINDS.map((kind) =>
      h(
        "button.segment",
        {
          id: uid("tab"),
          type: "button",
          role: "tab",
          "aria-controls": panel,
          "data-code": kind.key,
          onclick: () => this.#choose(kind),
        },
        kind.label,
      ),
    );
    const list = h(
      "div.segments",
      { role: "tablist", "aria-label": "Language", onkeydown: (event) => this.#key(event) },
      this.tabs,
    );
    this.panel = h(
      "div",
      { id: panel, role: "tabpanel" },
      h("pre", { tabindex: "0" }, this.#code),
      this.#files,
      this.#note,
    );
    this.element = h(
      "div.code",
      {},
      h(
        "div.code-head",
        {},
        list,
        copyButton(() => this.#code.textContent),
      ),
      this.panel,
    );
    this.#choose(KINDS[0]);
  }

  /** `content`: as the functions of snippets.js take it. */
  show(content) {
    this.#content = content;
    this.#draw();
  }

  /** The form holds no request just now. */
  unavailable() {
    this.#content = null;
    this.#draw();
  }

  #choose(kind) {
    this.#kind = kind;
    this.tabs.forEach((tab, i) => {
      const chosen = KINDS[i] === kind;
      attribute(tab, "aria-selected", String(chosen));
      attribute(tab, "tabindex", chosen ? "0" : "-1");
      if (chosen) attribute(this.panel, "aria-labelledby", tab.id);
    });
    this.#draw();
  }

  #key(event) {
    const at = KINDS.indexOf(this.#kind);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: KINDS.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = (to + KINDS.length) % KINDS.length;
    this.#choose(KINDS[next]);
    this.tabs[next].focus();
  }

  #draw() {
    const content = this.#content;
    put(this.#files);
    if (!content) {
      text(this.#code, "# correct the values first");
      text(this.#note, "");
      return;
    }
    text(this.#code, this.#kind.write(content));
    const notes = [this.#kind.note];
    if (this.#kind.key === "triton" && hasBfloat(content.inputs))
      notes.push("For BF16 it has to be of 26.06 or later, with pip install ml_dtypes.");
    if (content.headers.length) notes.push(`Set ${SECRET} in the environment to the value of the header.`);
    if (this.#kind.key === "curl") this.#requestFile(content, notes);
    else if (needsInputFiles(content.inputs)) this.#inputFiles(content, notes);
    text(this.#note, notes.filter(Boolean).join(" "));
  }

  #requestFile({ inputs, outputs }, notes) {
    if (wantsBinary(outputs))
      notes.push("16-bit floats have no JSON form: the answer is binary and goes into answer.bin.");
    if (!needsRequestFile(inputs, outputs)) return;
    notes.push("Save the file where you run it.");
    put(
      this.#files,
      this.#save(REQUEST_FILE, () => buildRequest(inputs, outputs, { binaryOutputs: wantsBinary(outputs) }).body),
    );
  }

  #inputFiles({ inputs }, notes) {
    notes.push("Save the files where you run it.");
    put(
      this.#files,
      inputs.map((input, i) => input.datatype !== "BYTES" && this.#save(inputFile(i), () => npy(input))),
    );
  }

  #save(name, make) {
    return h("button.small", { type: "button", onclick: () => saveFile(name, make()) }, `Save ${name}`);
  }
}
