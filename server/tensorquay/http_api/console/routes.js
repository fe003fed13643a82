// Addresses of the pages: "#/", "#/model/NAME[/VERSION]", "#/try[/NAME[/VERSION]]". Pure.

/** {page, model, version} of a hash; page "lost" for what is none of ours. */
export function parse(hash) {
  const path = hash.replace(/^#\/?/, "");
  if (path === "") return { page: "overview", model: "", version: "" };
  const [page, ...rest] = path.split("/");
  let names;
  try {
    names = rest.map(decodeURIComponent);
  } catch {
    return { page: "lost", model: "", version: "" };
  }
  const [model = "", version = ""] = names;
  const known = names.length <= 2 && /^\d*$/.test(version) && (page === "try" || (page === "model" && model !== ""));
  return known ? { page, model, version } : { page: "lost", model: "", version: "" };
}

const link = (page, model, version) =>
  ["#", page, ...[model, version].filter(Boolean).map(encodeURIComponent)].join("/");

export const modelLink = (model, version = "") => link("model", model, version);
export const tryLink = (model = "", version = "") => link("try", model, version);
