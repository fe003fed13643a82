// One input of the form: its shape, its values as fields, as text or from a picture, and what is wrong with them.

import { attribute, h, put, text, uid } from "./dom.js";
import { count, shape as shapeText } from "./format.js";
import { icon } from "./icons.js";
import { layoutOf } from "./image.js";
import { FILLS, MOST_ELEMENTS, MOST_FIELDS, MOST_TEXT, fill, firstFill, startingShape } from "./samples.js";
import { TYPES, ValueError, elements, parseValues, valuesText } from "./tensors.js";
import { ImagePicker } from "./try-picture.js";

export class InputEditor {
  #error = "";
  #values = [];
  #fill = "random";
  #made = true;
  #leader = "";

  /**
   * `spec`: of the metadata. `range`: the model's `image_range`. `changed()` is called whenever the request changes,
   * `reshaped(shape)` when somebody gave it another shape by its dimensions or as a nested list.
   */
  constructor(spec, { range, optional, changed, reshaped }) {
    this.spec = spec;
    [this.changed, this.reshaped] = [changed, reshaped];
    this.type = TYPES[spec.datatype];
    this.layout = layoutOf(spec.shape, spec.datatype);
    this.shape = startingShape(spec.shape, this.layout !== null);
    this.use = optional
      ? h("input", { id: uid("use"), type: "checkbox", checked: true, onchange: () => this.#used() })
      : null;
    this.dims = h("div.dims");
    this.area = h("div.values");
    this.problem = h("p.field-error", { id: uid("problem"), role: "status" });
    this.kind = h("div.segments", { role: "group", "aria-label": "How values are given" });
    this.picker =
      this.layout && new ImagePicker(spec, this.layout, { range, took: (shape, values) => this.#take(shape, values) });
    this.mode = this.picker ? "image" : this.#smallest();
    const title = h(
      "div.input-head",
      {},
      this.use && h("label.check", {}, this.use, h("span.unseen", {}, `Send ${spec.name}`)),
      h("h3", {}, h("bdi.mono", {}, spec.name)),
      optional && h("span.tag", {}, "optional"),
      h("span.tag", {}, spec.datatype),
      h("span.fine.mono", {}, shapeText(spec.shape)),
    );
    const fills = h(
      "div.fills",
      { role: "group", "aria-label": `Fill ${spec.name}` },
      Object.entries(FILLS).map(([key, label]) =>
        h("button.small", { type: "button", onclick: () => this.#refill(key) }, label),
      ),
    );
    this.body = h("div.input-body", {}, this.dims, this.kind, this.area, fills, this.problem);
    this.element = h("fieldset.input", { "aria-label": spec.name }, title, this.body);
    this.#drawDims();
    this.#refill(firstFill(spec));
  }

  leave() {
    this.picker?.leave();
  }

  /** Take the shape that was given to the input called `leader`, unless somebody's own values are in here. */
  follow(shape, leader) {
    if (!this.#made || shape.join() === this.shape.join()) return;
    this.shape = shape.slice();
    this.#leader = leader;
    this.#drawDims();
    this.#refill(this.#fill);
  }

  get used() {
    return !this.use || this.use.checked;
  }

  /** {name, datatype, shape, values}; throws ValueError saying what is wrong. */
  read() {
    if (this.#error) throw new ValueError(`${this.spec.name}: ${this.#error}`);
    return { name: this.spec.name, datatype: this.spec.datatype, shape: this.shape.slice(), values: this.#values };
  }

  #used() {
    this.body.hidden = !this.used;
    this.changed();
  }

  get #count() {
    return elements(this.shape);
  }

  #smallest() {
    return this.#count <= MOST_FIELDS && this.#count > 0 ? "fields" : "text";
  }

  #drawDims() {
    put(
      this.dims,
      this.spec.shape.map((size, axis) => {
        if (size >= 0) return [axis > 0 && h("span.times", {}, "×"), h("span.dim-fixed", {}, String(size))];
        const field = h("input.dim", {
          type: "number",
          min: "0",
          step: "1",
          inputmode: "numeric",
          value: String(this.shape[axis]),
          "aria-label": `Size of dimension ${axis + 1} of ${this.spec.name}`,
          onchange: () => this.#resize(axis, field),
        });
        return [axis > 0 && h("span.times", {}, "×"), field];
      }),
      !this.spec.shape.length && h("span.fine", {}, "a single value"),
      h("span.fine.dims-total", {}, ""),
    );
    this.#tellTotal();
  }

  #tellTotal() {
    const total = this.dims.querySelector(".dims-total");
    const why = this.#leader ? `, as ${this.#leader} has` : "";
    text(
      total,
      this.spec.shape.length ? `= ${count(this.#count)} ${this.#count === 1 ? "element" : "elements"}${why}` : "",
    );
  }

  #resize(axis, field) {
    const size = Number(field.value);
    const wrong = !field.value.trim() || !Number.isInteger(size) || size < 0;
    const shape = this.shape.with
      ? this.shape.with(axis, wrong ? 0 : size)
      : this.shape.map((old, i) => (i === axis ? size : old));
    const total = elements(shape);
    attribute(field, "aria-invalid", wrong || total > MOST_ELEMENTS ? "true" : null);
    if (wrong) return this.#fail("a dimension is a whole number, 0 or more");
    if (total > MOST_ELEMENTS)
      return this.#fail(
        `${count(total)} elements are more than this page makes up (${count(MOST_ELEMENTS)}); use the code`,
      );
    this.shape = shape;
    this.#leader = "";
    this.#tellTotal();
    this.#refill(this.#fill);
    return this.reshaped(shape);
  }

  #refill(kind) {
    this.#fill = kind;
    this.#made = true;
    this.#values = fill(kind, this.spec.datatype, this.#count);
    this.picker?.forget();
    if (this.mode === "fields" && this.#smallest() !== "fields") this.mode = "text";
    this.#draw();
    this.#fail("");
  }

  /** Values and shape from a picture. */
  #take(shape, values) {
    this.shape = shape;
    this.#made = false;
    this.#values = values;
    this.#leader = "";
    this.#drawDims();
    this.#fail("");
  }

  #fail(message) {
    this.#error = message;
    text(this.problem, message);
    this.changed();
  }

  #draw() {
    const small = this.#smallest() === "fields";
    const modes = [this.picker && ["image", "Picture"], small && ["fields", "Fields"], ["text", "JSON"]].filter(
      Boolean,
    );
    this.kind.hidden = modes.length < 2;
    put(
      this.kind,
      modes.map(([mode, label]) =>
        h(
          "button.segment",
          { type: "button", "aria-pressed": String(mode === this.mode), onclick: (event) => this.#turn(mode, event) },
          label,
        ),
      ),
    );
    if (this.mode === "image") put(this.area, this.picker.element);
    else if (this.mode === "fields") put(this.area, this.#fields());
    else put(this.area, this.#text());
  }

  #turn(mode, event) {
    this.mode = mode;
    if (this.#error && mode !== "text") this.#refill(this.#fill);
    else this.#draw();
    const label = event.currentTarget?.textContent ?? "";
    [...this.kind.children].find((each) => each.textContent === label)?.focus();
  }

  #fields() {
    const one = (value, i) => {
      const label = `${this.spec.name}, element ${i + 1}`;
      if (this.type.kind === "boolean") {
        const box = h("input", {
          type: "checkbox",
          checked: value,
          "aria-label": label,
          onchange: () => {
            this.#made = false;
            this.#values[i] = box.checked;
            word.textContent = String(box.checked);
            this.#fail("");
          },
        });
        const word = h("span", {}, String(value));
        return h("label.check", {}, box, word);
      }
      const words = this.type.kind === "text";
      const field = h(words ? "input.wide" : "input", {
        type: "text",
        inputmode: words ? "text" : "decimal",
        autocomplete: "off",
        spellcheck: "false",
        value: String(value),
        "aria-label": label,
        "aria-describedby": this.problem.id,
        oninput: () => {
          this.#made = false;
          try {
            const [read] = words ? [field.value] : parseValues(field.value, this.spec.datatype).values;
            this.#values[i] = read;
            attribute(field, "aria-invalid", null);
            const left = this.area.querySelector("[aria-invalid=true]");
            this.#fail(
              left
                ? `element ${[...this.area.querySelectorAll("input")].indexOf(left) + 1} is no ${this.spec.datatype} value`
                : "",
            );
          } catch (error) {
            if (!(error instanceof ValueError)) throw error;
            attribute(field, "aria-invalid", "true");
            this.#fail(`element ${i + 1}: ${error.message.replace(/^character \d+: /, "")}`);
          }
        },
      });
      return field;
    };
    return h(this.type.kind === "text" ? "div.fields.texts" : "div.fields", {}, Array.from(this.#values, one));
  }

  #text() {
    if (this.#count > MOST_TEXT) {
      return h(
        "p.kept",
        {},
        icon("info"),
        `${count(this.#count)} values, too many to be edited here. They are sent as binary data; fill them anew below, ` +
          "or use the code with your own.",
      );
    }
    const field = h("textarea", {
      rows: Math.min(
        14,
        Math.max(3, this.shape.length > 1 ? Math.min(14, this.#count / (this.shape.at(-1) || 1) + 1) : 3),
      ),
      spellcheck: "false",
      autocomplete: "off",
      "aria-label": `Values of ${this.spec.name} as JSON`,
      "aria-describedby": this.problem.id,
      value: valuesText(this.#values, this.shape, true),
    });
    field.addEventListener("input", () => this.#typed(field));
    return field;
  }

  #typed(field) {
    const before = this.shape;
    this.#made = false;
    try {
      this.#adopt(parseValues(field.value, this.spec.datatype));
      attribute(field, "aria-invalid", null);
      this.#fail("");
      if (this.shape !== before) this.reshaped(this.shape);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      attribute(field, "aria-invalid", "true");
      this.#fail(error.message);
    }
  }

  /** Take typed values. Nested ones say their shape, if the model can take it; flat ones must be as many as it has. */
  #adopt({ values, shape }) {
    const fits =
      shape.length === this.spec.shape.length &&
      shape.every((size, axis) => this.spec.shape[axis] < 0 || this.spec.shape[axis] === size);
    if (fits) {
      if (shape.join() !== this.shape.join()) {
        this.shape = shape;
        this.#leader = "";
        this.#drawDims();
      }
    } else if (shape.length > 1 && shape.join() !== this.shape.join()) {
      throw new ValueError(`the list is ${shapeText(shape)}, the model takes ${shapeText(this.spec.shape)}`);
    } else if (values.length !== this.#count) {
      throw new ValueError(
        `${count(this.#count)} values are needed for ${shapeText(this.shape)}, these are ${count(values.length)}`,
      );
    }
    this.#values = values;
  }
}
