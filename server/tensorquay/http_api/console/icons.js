// The page's few icons, drawn here: 16 × 16, stroked in the colour of the text beside them.

import { svg } from "./dom.js";

const PATHS = {
  ready: ["M3 8.5l3.2 3.2L13 5"],
  failed: ["M4 4l8 8", "M12 4l-8 8"],
  loading: ["M8 2.5a5.5 5.5 0 1 1-5.5 5.5"],
  unloading: ["M8 3v7", "M5 7.5L8 10.5 11 7.5", "M3.5 13h9"],
  off: ["M4 8h8"],
  warning: ["M8 2.5L14.2 13H1.8L8 2.5z", "M8 6.5v3", "M8 11.4v.2"],
  info: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 7.3v3.6", "M8 5v.2"],
  search: ["M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9z", "M10.3 10.3L14 14"],
  copy: ["M5.5 5.5h8v8h-8z", "M10.5 5.5v-3h-8v8h3"],
  sun: [
    "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
    "M8 1v1.5",
    "M8 13.5V15",
    "M1 8h1.5",
    "M13.5 8H15",
    "M3 3l1.1 1.1",
    "M11.9 11.9L13 13",
    "M13 3l-1.1 1.1",
    "M4.1 11.9L3 13",
  ],
  moon: ["M13.5 9.5A5.8 5.8 0 0 1 6.5 2.5a5.8 5.8 0 1 0 7 7z"],
  auto: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 2v12", "M10 3.2v9.6", "M12 4.6v6.8"],
  back: ["M9.5 3.5L5 8l4.5 4.5"],
  next: ["M6.5 3.5L11 8l-4.5 4.5"],
  out: ["M6 3.5H3v9.5h9.5v-3", "M9 2.5h4.5V7", "M13 3L7.5 8.5"],
  play: ["M5 3.2v9.6L12.6 8z"],
  image: ["M2 3h12v10H2z", "M2 11l3.5-3.5L9 11l2-2 3 3", "M10.6 6.2v.1"],
  save: ["M8 2.5v7", "M5 7l3 3 3-3", "M2.5 11v2.5h11V11"],
  lock: ["M3.5 7h9v6.5h-9z", "M5.5 7V5a2.5 2.5 0 0 1 5 0v2"],
};

/** An icon that says nothing by itself: the text beside it does. */
export function icon(name) {
  return svg(
    "svg.icon",
    { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    PATHS[name].map((d) => svg("path", { d })),
  );
}
