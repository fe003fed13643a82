// Line charts and sparklines as SVG: axes with units, a read-out under pointer or arrow keys, gaps where there is no data.

import { h, put, svg, uid } from "./dom.js";
import { age, number } from "./format.js";
import { runs, ticks, windowOf } from "./series.js";

const HEIGHT = 168;
const LEFT = 48;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;

const round = (value) => Math.round(value * 10) / 10;

/** `path` data of `values` with `x(at)` and `y(value)`; a value that stands alone becomes a dash that can be seen. */
function path(values, x, y) {
  return runs(values)
    .map((run) =>
      run.length === 1
        ? `M${round(x(run[0].at) - 2)} ${round(y(run[0].value))}h4`
        : run.map((each, i) => `${i ? "L" : "M"}${round(x(each.at))} ${round(y(each.value))}`).join(""),
    )
    .join("");
}

/** A line of five minutes without axes, for a tile. Its number stands beside it, so it says nothing by itself. */
export class Sparkline {
  #line = svg("path.spark-line");
  #area = svg("path.spark-area");
  element = svg(
    "svg.spark",
    { viewBox: "0 0 120 32", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    this.#area,
    this.#line,
  );

  /** `values`: [{at, value}] in ms; `least`: what the top means at least. */
  update(values, least = 0) {
    const end = values.length ? values[values.length - 1].at : 0;
    const span = windowOf(values);
    const largest = Math.max(least, ...values.map((each) => each.value ?? 0)) || 1;
    const x = (at) => 120 * (1 - (end - at) / span);
    const y = (value) => 30 - (28 * value) / largest;
    this.#line.setAttribute("d", path(values, x, y));
    const areas = runs(values).map(
      (run) =>
        `M${round(x(run[0].at))} 32${run.map((each) => `L${round(x(each.at))} ${round(y(each.value))}`).join("")}` +
        `L${round(x(run[run.length - 1].at))} 32Z`,
    );
    this.#area.setAttribute("d", areas.join(""));
  }
}

/**
 * One chart. Args: title; unit: what the axis counts; format: a value as text with its unit; least: smallest step of the
 * axis.
 * `update(lines)`: [{name, values: [{at, value}]}], at most five, told apart by colour and dashes.
 */
export class Chart {
  #lines = [];
  #width = 480;
  #format;
  #least;
  #at = null;
  #paths = [];
  #times = [];
  #span = 60_000;
  #drawn = "";

  constructor({ title, unit, format = number, least = 0 }) {
    const id = uid("chart");
    this.#format = format;
    this.#least = least;
    this.grid = svg("g.chart-grid");
    this.plot = svg("g.chart-plot");
    this.cursor = svg("line.chart-cursor", { y1: TOP, y2: HEIGHT - BOTTOM });
    this.canvas = svg(
      "svg.chart-canvas",
      {
        height: HEIGHT,
        role: "slider",
        tabindex: "0",
        "aria-labelledby": id,
        "aria-valuemin": 0,
        "aria-orientation": "horizontal",
      },
      this.grid,
      this.plot,
      this.cursor,
    );
    this.legend = h("div.chart-legend");
    this.readout = h("div.chart-readout", { hidden: true });
    this.empty = h("p.chart-empty", {}, "No data yet");
    this.body = h("div.chart-body", {}, this.canvas, this.readout, this.empty);
    this.element = h(
      "figure.chart",
      {},
      h("figcaption", {}, h("span.chart-title", { id }, title), h("span.chart-unit", {}, unit), this.legend),
      this.body,
    );
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => document.activeElement !== this.canvas && this.#read(null));
    this.canvas.addEventListener("blur", () => this.#read(null));
    this.canvas.addEventListener(
      "focus",
      () => this.canvas.matches(":focus-visible") && this.#read(this.#times.length - 1),
    );
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width > 0 && width !== this.#width) {
        this.#width = width;
        this.#draw();
      }
    });
    this.observer.observe(this.body);
  }

  leave() {
    this.observer.disconnect();
  }

  update(lines) {
    this.#lines = lines;
    const names = lines.map((line) => line.name).join("\n");
    if (names !== this.#drawn) {
      this.#drawn = names;
      put(
        this.legend,
        lines.length > 1 &&
          lines.map((line, i) =>
            h(
              "span.chart-key",
              {},
              svg(
                "svg.chart-swatch",
                { viewBox: "0 0 18 8", "aria-hidden": "true" },
                svg(`path.line.line-${i}`, { d: "M1 4H17" }),
              ),
              line.name,
            ),
          ),
      );
      this.#paths = lines.map((_, i) => svg(`path.line.line-${i}`));
      put(this.plot, this.#paths);
    }
    this.#draw();
  }

  #x(at) {
    const end = this.#times.length ? this.#times[this.#times.length - 1] : 0;
    return LEFT + (this.#width - LEFT - RIGHT) * (1 - (end - at) / this.#span);
  }

  #draw() {
    this.#times = (this.#lines[0]?.values ?? []).map((each) => each.at);
    this.#span = windowOf(this.#lines[0]?.values ?? []);
    const values = this.#lines.flatMap((line) => line.values.map((each) => each.value ?? 0));
    const any = this.#lines.some((line) => line.values.some((each) => each.value !== null));
    this.empty.hidden = any;
    const marks = ticks(Math.max(0, ...values), 4, this.#least);
    const top = marks[marks.length - 1];
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    this.canvas.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    const end = this.#times[this.#times.length - 1] ?? 0;
    const marked = this.#span > 60_000 ? 60_000 : 15_000;
    const agos = Array.from({ length: Math.floor(this.#span / marked) + 1 }, (_, i) => i * marked);
    put(
      this.grid,
      marks.map((mark) => [
        svg("line", { x1: LEFT, x2: this.#width - RIGHT, y1: round(y(mark)), y2: round(y(mark)) }),
        svg("text", { x: LEFT - 6, y: round(y(mark)) + 4, "text-anchor": "end" }, axis(mark)),
      ]),
      agos.map((ago) =>
        svg(
          "text",
          { x: round(this.#x(end - ago)), y: HEIGHT - 5, "text-anchor": ago === 0 ? "end" : "middle" },
          ago === 0 ? "now" : `−${age(ago)}`,
        ),
      ),
    );
    this.#lines.forEach((line, i) =>
      this.#paths[i].setAttribute(
        "d",
        path(line.values, (at) => this.#x(at), y),
      ),
    );
    this.canvas.setAttribute("aria-valuemax", Math.max(0, this.#times.length - 1));
    this.#read(this.#at === null ? null : this.#nearest(this.#at));
  }

  #nearest(at) {
    let best = this.#times.length - 1;
    for (let i = 0; i < this.#times.length; i += 1) {
      if (Math.abs(this.#times[i] - at) < Math.abs(this.#times[best] - at)) best = i;
    }
    return best;
  }

  #point(event) {
    if (!this.#times.length) return;
    const box = this.canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - RIGHT);
    this.#read(this.#nearest(this.#times[this.#times.length - 1] - this.#span * (1 - share)));
  }

  #key(event) {
    const last = this.#times.length - 1;
    const now = this.#at === null ? last : this.#nearest(this.#at);
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now + 30, PageDown: now - 30, Home: 0, End: last }[
      event.key
    ];
    if (to === undefined) return;
    event.preventDefault();
    this.#read(Math.min(last, Math.max(0, to)));
  }

  /** Show what the lines say at point `index`; null: nothing. */
  #read(index) {
    const at = index === null || index < 0 ? undefined : this.#times[index];
    this.#at = at ?? null;
    this.readout.hidden = at === undefined;
    this.cursor.classList.toggle("shown", at !== undefined);
    const said = at === undefined ? -1 : index;
    this.canvas.setAttribute("aria-valuenow", Math.max(0, said < 0 ? this.#times.length - 1 : said));
    const from = said < 0 ? this.#times.length - 1 : said;
    const ago = this.#times.length ? this.#times[this.#times.length - 1] - this.#times[from] : 0;
    const when = ago < 500 ? "now" : `${age(ago)} ago`;
    const words = this.#lines.map((line) => [line.name, this.#value(line.values[from]?.value ?? null)]);
    this.canvas.setAttribute(
      "aria-valuetext",
      this.#times.length ? `${when}: ${words.map((each) => each.join(" ")).join(", ")}` : "no data",
    );
    if (at === undefined) return;
    const x = round(this.#x(at));
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    put(
      this.readout,
      h("div.chart-when", {}, when),
      words.map(([name, value]) => h("div", {}, h("span", {}, name), " ", h("b", {}, value))),
    );
    const right = x > this.#width / 2;
    this.readout.classList.toggle("left", right);
    this.readout.style.setProperty("--at", `${right ? this.#width - x : x}px`);
  }

  #value(value) {
    return value === null ? "no data" : this.#format(value);
  }
}

/** A mark of an axis: short. */
function axis(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`;
  return value >= 1000 ? number(value) : String(Number(value.toPrecision(3)));
}

/** A horizontal bar of a share 0 … 1, for tables. */
export function bar(share) {
  const inner = h("span.bar-fill");
  inner.style.setProperty("--share", `${Math.max(0, Math.min(1, share)) * 100}%`);
  return h("span.bar", { "aria-hidden": "true" }, inner);
}
