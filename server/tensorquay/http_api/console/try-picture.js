// A picture for an input: dropped or chosen, resized as the model wants it, shown as the model sees it.

import { h, put, text, uid } from "./dom.js";
import { shape as shapeText } from "./format.js";
import { icon } from "./icons.js";
import { RANGES, parseRange, resize, tensorValues } from "./image.js";
import { TYPES } from "./tensors.js";

/** A picture is read at that many pixels a side at most; models take far fewer. */
const LARGEST = 4096;
/** A model that takes any size gets at most that many pixels a side. */
const LARGEST_FREE = 512;

export class ImagePicker {
  /** The picture at the model's size, once it was resized: {width, height} of its own, bytes, {toWidth, toHeight}. */
  #seen = null;
  #url = "";

  /** `took(shape, values)` is called with each new tensor. */
  constructor(spec, layout, { range, took }) {
    [this.spec, this.layout, this.took] = [spec, layout, took];
    const own = range ? parseRange(range) : null;
    const start = own ?? (TYPES[spec.datatype].kind === "integer" ? RANGES.bytes : RANGES.unit);
    const [file, preset, low, high, invert] = ["file", "range", "low", "high", "invert"].map(uid);
    this.file = h("input.unseen", {
      id: file,
      type: "file",
      accept: "image/*",
      onchange: () => this.file.files[0] && this.#open(this.file.files[0]),
    });
    this.drop = h(
      "label.drop",
      { for: file },
      icon("image"),
      h("span", {}, h("b", {}, "Choose a picture"), " or drop it here"),
    );
    this.preset = h(
      "select",
      { id: preset, onchange: () => this.#preset() },
      [
        own && ["model", `${own.low} to ${own.high} (the model's)`],
        ...Object.entries(RANGES)
          .filter(([key]) => key !== "imagenet" || layout.channels === 3)
          .map(([key, each]) => [key, each.name]),
        ["own", "Your own"],
      ]
        .filter(Boolean)
        .map(([value, label]) => h("option", { value }, label)),
    );
    this.preset.value = own ? "model" : TYPES[spec.datatype].kind === "integer" ? "bytes" : "unit";
    this.own = own;
    this.low = h("input.dim", {
      id: low,
      type: "number",
      step: "any",
      value: String(start.low),
      onchange: () => this.#make(),
    });
    this.high = h("input.dim", {
      id: high,
      type: "number",
      step: "any",
      value: String(start.high),
      onchange: () => this.#make(),
    });
    this.invert = h("input", { id: invert, type: "checkbox", onchange: () => this.#make() });
    this.bounds = h(
      "div.field.pair",
      { hidden: true },
      h("label", { for: low }, "Black is"),
      this.low,
      h("label", { for: high }, "white is"),
      this.high,
    );
    this.original = h("img.thumb", { alt: "The picture as it was given" });
    this.canvas = h("canvas.seen", { role: "img", "aria-label": "The picture as the model sees it" });
    this.note = h("p.fine", {}, "Until there is one, random values are sent.");
    this.shown = h(
      "div.pictures",
      { hidden: true },
      h("figure", {}, this.original, h("figcaption", {}, "Given")),
      h("span.arrow", { "aria-hidden": "true" }, "→"),
      h("figure", {}, this.canvas, h("figcaption", {}, "Seen by the model")),
    );
    this.element = h(
      "div.picker",
      {},
      this.file,
      this.drop,
      this.shown,
      h(
        "div.picker-options",
        {},
        h("div.field", {}, h("label", { for: preset }, "Pixels become"), this.preset),
        this.bounds,
        h("label.check", { for: invert }, this.invert, h("span", {}, "Swap black and white")),
      ),
      this.note,
    );
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.drop.classList.add("over");
    });
    this.element.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      if (event.dataTransfer.files[0]) this.#open(event.dataTransfer.files[0]);
    });
  }

  leave() {
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  /** Other values take the picture's place. */
  forget() {
    if (!this.#seen) return;
    this.#seen = null;
    this.shown.hidden = true;
    this.file.value = "";
    text(this.note, "The picture was replaced by other values.");
  }

  async #open(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      this.#seen = null;
      this.shown.hidden = true;
      put(
        this.note,
        h("span.field-error", { role: "alert" }, `“${file.name}” cannot be read as a picture by this browser.`),
      );
      return;
    }
    const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((size) => Math.max(1, Math.round(size * shrink)));
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    this.#seen = this.#resized(context.getImageData(0, 0, width, height));
    this.leave();
    this.#url = URL.createObjectURL(file);
    this.original.src = this.#url;
    this.shown.hidden = false;
    this.#make();
  }

  #preset() {
    this.bounds.hidden = this.preset.value !== "own";
    this.#make();
  }

  get #range() {
    if (this.preset.value === "model") return this.own;
    if (this.preset.value !== "own") return RANGES[this.preset.value];
    return { low: Number(this.low.value), high: Number(this.high.value) };
  }

  /** What of a picture does not depend on the range: most of the work. */
  #resized({ width, height, data }) {
    const { layout } = this;
    const free = Math.min(1, LARGEST_FREE / Math.max(width, height));
    const toWidth = layout.width > 0 ? layout.width : Math.max(1, Math.round(width * free));
    const toHeight = layout.height > 0 ? layout.height : Math.max(1, Math.round(height * free));
    return { width, height, toWidth, toHeight, bytes: resize(data, width, height, layout.channels, toWidth, toHeight) };
  }

  #make() {
    if (!this.#seen) return;
    const { layout } = this;
    const { width, height, toWidth, toHeight, bytes } = this.#seen;
    this.#show(bytes, toWidth, toHeight);
    const pixels = layout.first ? [layout.channels, toHeight, toWidth] : [toHeight, toWidth, layout.channels];
    const shape = layout.batched ? [1, ...pixels] : pixels;
    text(this.note, `${width} × ${height} pixels became ${shapeText(shape)}.`);
    this.took(
      shape,
      tensorValues(bytes, toWidth, toHeight, layout, this.spec.datatype, this.#range, this.invert.checked),
    );
  }

  #show(bytes, width, height) {
    const { channels } = this.layout;
    this.canvas.width = width;
    this.canvas.height = height;
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i += 1) {
      for (let c = 0; c < 3; c += 1) {
        const value = bytes[i * channels + (channels === 1 ? 0 : c)];
        image.data[4 * i + c] = this.invert.checked ? 255 - value : value;
      }
      image.data[4 * i + 3] = channels === 4 ? bytes[4 * i + 3] : 255;
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }
}
