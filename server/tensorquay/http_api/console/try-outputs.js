// One output of the form: whether it is asked for, and as values or as its best classes.

import { h, uid } from "./dom.js";
import { shape } from "./format.js";
import { TYPES, elements } from "./tensors.js";

export class OutputChoice {
  /** `labelled`: the model names its classes. `changed()` is called whenever the choice changes. */
  constructor(spec, { labelled, changed }) {
    this.spec = spec;
    const [ask, classes, most] = ["ask", "classes", "most"].map(uid);
    this.ask = h("input", { id: ask, type: "checkbox", checked: true, onchange: changed });
    const kind = TYPES[spec.datatype]?.kind;
    const one = elements(spec.shape.slice(1), 2) === 1;
    this.offered =
      (kind === "float" || kind === "integer") && (labelled || (kind === "float" && spec.shape.length <= 2 && !one));
    this.classes = h("input", { id: classes, type: "checkbox", checked: labelled && this.offered, onchange: changed });
    const size = spec.shape.at(-1);
    this.most = h("input.dim", {
      id: most,
      type: "number",
      min: "1",
      max: "1000",
      step: "1",
      value: String(Math.min(5, size > 0 ? size : 5)),
      "aria-label": `How many classes of ${spec.name}`,
      onchange: changed,
    });
    this.element = h(
      "div.output-choice",
      {},
      h("label.check", { for: ask }, this.ask, h("bdi.mono", {}, spec.name)),
      h("span.tag", {}, spec.datatype),
      h("span.fine.mono", {}, shape(spec.shape)),
      this.offered &&
        h(
          "span.class-choice",
          {},
          h(
            "label.check",
            { for: classes },
            this.classes,
            h("span", {}, labelled ? "as labels, best" : "as classes, best"),
          ),
          this.most,
        ),
    );
  }

  get wanted() {
    return this.ask.checked;
  }

  read() {
    const most = Number(this.most.value);
    const classes = this.offered && this.classes.checked && Number.isInteger(most) && most > 0 ? most : 0;
    return { name: this.spec.name, datatype: this.spec.datatype, classes };
  }
}
