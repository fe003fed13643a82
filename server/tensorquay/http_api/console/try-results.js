// An answer on the page: labels and classes, bars for probabilities, tables for numbers, texts as they are.

import { bar } from "./chart.js";
import { copyButton } from "./dialogs.js";
import { h } from "./dom.js";
import { bytes, count, duration, number, shape } from "./format.js";
import { classOf } from "./infer.js";
import { BINARY_ONLY, TYPES, elements, valueText, valuesText } from "./tensors.js";

/** Rows of an output that are shown, and columns of a row. */
const MOST_ROWS = 8;
const MOST_COLUMNS = 16;
const MOST_BARS = 10;
const MOST_CHARACTERS = 2000;

/** `asked`: outputs of the request, which say what came back as classes. */
export function resultView(answer, asked, { took, sent, got }) {
  const classes = new Map(asked.map((output) => [output.name, output.classes]));
  return [
    h(
      "dl.line-facts.timing",
      {},
      [
        ["Took", duration(took)],
        ["Version", answer.version],
        ["Sent", bytes(sent)],
        ["Answer", bytes(got)],
      ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
    answer.outputs.map((output) => outputView(output, classes.get(output.name) > 0)),
  ];
}

function outputView(output, asClasses) {
  return h(
    "section.output",
    { "aria-label": output.name },
    h(
      "div.output-head",
      {},
      h("h3", {}, h("bdi.mono", {}, output.name)),
      h("span.tag", {}, output.datatype),
      h("span.fine.mono", {}, shape(output.shape)),
      copyButton(() => valuesText(output.values, output.shape), "Copy values"),
    ),
    asClasses ? classRows(output) : values(output),
  );
}

function rowsOf(output) {
  const width = output.shape.length > 1 ? elements(output.shape.slice(1)) : output.values.length;
  const rows = output.shape.length > 1 ? output.shape[0] : 1;
  return { width, rows, row: (i) => output.values.slice(i * width, (i + 1) * width) };
}

function many(rows, draw) {
  const shown = Array.from({ length: Math.min(rows, MOST_ROWS) }, (_, i) =>
    h("div.row-of", {}, rows > 1 && h("p.row-name", {}, `Row ${i + 1}`), draw(i)),
  );
  return [shown, rows > MOST_ROWS && h("p.fine", {}, `and ${count(rows - MOST_ROWS)} more rows`)];
}

function classRows(output) {
  const { rows, row } = rowsOf(output);
  return many(rows, (i) =>
    bars(
      row(i)
        .map(classOf)
        .map((each) => ({
          name: each.label || `class ${each.index}`,
          sub: each.label ? String(each.index) : "",
          value: each.value,
        })),
    ),
  );
}

/** Entries {name, sub, value} with bars; the best one stands out. Values beyond 0 … 1 are drawn against the largest. */
function bars(entries) {
  const largest = Math.max(...entries.map((each) => Math.abs(each.value)).filter(Number.isFinite), 0);
  const scale = largest <= 1 ? 1 : largest;
  return h(
    "ol.bars",
    {},
    entries.map((each, i) =>
      h(
        "li",
        { "data-best": i === 0 },
        h("span.bar-name", {}, h("bdi", {}, each.name), each.sub && h("span.fine", {}, ` ${each.sub}`)),
        bar(Math.max(0, each.value) / scale),
        h("span.num", {}, score(each.value)),
      ),
    ),
  );
}

function score(value) {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) <= 1 ? value.toFixed(4) : number(value);
}

function values(output) {
  if (output.values.length === 0) return h("p.empty", {}, "It is empty.");
  const kind = TYPES[output.datatype].kind;
  if (kind === "text") return texts(output);
  const { rows, width, row } = rowsOf(output);
  if (output.values.length === 1) return h("p.single", {}, cell(output.values[0], output.datatype));
  if (
    kind === "float" &&
    output.shape.length === 2 &&
    width > 1 &&
    width <= 1000 &&
    probabilities(output.values, width)
  ) {
    return many(rows, (i) => {
      const all = row(i)
        .map((value, index) => ({ name: `${index}`, sub: "", value }))
        .sort((a, b) => b.value - a.value);
      return [
        bars(all.slice(0, MOST_BARS)),
        all.length > MOST_BARS && h("p.fine", {}, `and ${count(all.length - MOST_BARS)} smaller ones`),
      ];
    });
  }
  return grid(output);
}

/** Rows that are not negative and sum up to 1. */
function probabilities(all, width) {
  for (let from = 0; from < all.length; from += width) {
    let sum = 0;
    for (let i = from; i < from + width; i += 1) {
      if (!(all[i] >= 0 && all[i] <= 1.001)) return false;
      sum += all[i];
    }
    if (Math.abs(sum - 1) > 0.01) return false;
  }
  return true;
}

function cell(value, datatype) {
  if (typeof value !== "number" || TYPES[datatype].kind !== "float" || !Number.isFinite(value)) return valueText(value);
  return String(Number(value.toPrecision(BINARY_ONLY.has(datatype) ? 4 : datatype === "FP64" ? 10 : 7)));
}

function texts(output) {
  const shown = output.values.slice(0, 50);
  return [
    h(
      "ol.texts",
      {},
      shown.map((value) =>
        h(
          "li",
          {},
          h("bdi", {}, value.slice(0, MOST_CHARACTERS)),
          value.length > MOST_CHARACTERS && h("p.fine", {}, `the first of ${count(value.length)} characters`),
        ),
      ),
    ),
    output.values.length > shown.length && h("p.fine", {}, `and ${count(output.values.length - shown.length)} more`),
  ];
}

/** Numbers as a table: the last dimension goes across, everything before it down. */
function grid(output) {
  const across = output.shape.length > 1 ? output.shape.at(-1) : output.values.length;
  const down = Math.max(1, Math.floor(output.values.length / Math.max(1, across)));
  const flat = output.shape.length <= 1;
  const columns = Math.min(across, flat ? 24 : MOST_COLUMNS);
  const rows = Math.min(down, MOST_ROWS * 2);
  const body = Array.from({ length: rows }, (_, i) =>
    h(
      "tr",
      {},
      !flat && h("th", { scope: "row" }, place(i, output.shape)),
      Array.from({ length: columns }, (_, j) => h("td.num", {}, cell(output.values[i * across + j], output.datatype))),
      across > columns && h("td.fine", {}, "…"),
    ),
  );
  return [
    h(
      "div.scroll",
      { tabindex: "0", role: "region", "aria-label": `Values of ${output.name}` },
      h("table.grid", {}, h("tbody", {}, body)),
    ),
    (down > rows || across > columns) &&
      h("p.fine", {}, `${count(rows * columns)} of ${count(output.values.length)} values are shown.`),
  ];
}

/** The index of row `i` over all dimensions but the last. */
function place(i, dims) {
  const index = [];
  let rest = i;
  for (const size of dims.slice(0, -1).reverse()) {
    index.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return index.join(", ");
}
