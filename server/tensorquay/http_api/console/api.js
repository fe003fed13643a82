// Calls to the server the page came from: addresses, the headers of closed APIs, errors as values that say something.

import { bytes } from "./format.js";

/** Where the page is served, without a query: everything else is beside it, also behind a proxy that adds a path. */
const BASE = new URL(".", document.baseURI).href;

/** Headers of closed APIs, by lower-case name. In memory only: they end with the page. */
const access = new Map();

/** An answer that was not 2xx (`status`), or none at all (`status` 0). `message` is the server's own sentence. */
export class ApiError extends Error {
  constructor(status, message, facts = {}) {
    super(message);
    this.status = status;
    this.code = facts.code ?? "";
    this.facts = facts;
  }

  /** The header that a closed API wants, when that is what is wrong; else "". */
  get wantsHeader() {
    return this.status === 403 ? (/expecting header '([^']+)'/.exec(this.message)?.[1] ?? "") : "";
  }
}

/** Send `value` in `name` with every request from now on. */
export function useHeader(name, value) {
  access.set(name.toLowerCase(), value);
}

/** Names of the headers in use; their values stay here. */
export function headerNames() {
  return [...access.keys()];
}

export function address(path) {
  return new URL(path, BASE).href;
}

/** "v2/models/NAME" or "v2/models/NAME/versions/N", whatever is in the name. */
export function modelPath(model, version = "") {
  const path = `v2/models/${encodeURIComponent(model)}`;
  return version ? `${path}/versions/${encodeURIComponent(version)}` : path;
}

/** One request; raises ApiError unless it is answered with 2xx. */
export async function request(path, { method = "GET", headers = {}, body, signal } = {}) {
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers: { ...Object.fromEntries(access), ...headers },
      body,
      signal,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The whole body of `response`; throws ApiError when it breaks off, or has more than `most` bytes. */
export async function bodyOf(response, most) {
  const reader = response.body.getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The answer broke off.");
    }
    if (piece.done) return new Blob(parts).arrayBuffer();
    parts.push(piece.value);
    size += piece.value.length;
    if (size > most) {
      reader.cancel();
      throw new ApiError(
        response.status,
        `The answer has more than ${bytes(most)}, this page reads no more: ask for fewer rows or outputs, or use the code.`,
      );
    }
  }
}

async function refusal(response) {
  let facts = {};
  let text = "";
  try {
    text = await response.text();
    facts = JSON.parse(text);
  } catch {
    // Not ours: a proxy's page, or a connection that broke off. What there is of it is said below.
  }
  const said = typeof facts?.error === "string" ? facts.error : text.slice(0, 500).trim();
  return new ApiError(response.status, said || `${response.status} ${response.statusText}`.trim(), facts ?? {});
}

async function getJson(path, options) {
  const response = await request(path, options);
  return response.json();
}

export const metadata = (model, version, options) => getJson(modelPath(model, version), options);
export const config = (model, version, options) => getJson(`${modelPath(model, version)}/config`, options);
export const report = (model, version, kind, options) => getJson(`${modelPath(model, version)}/${kind}`, options);

const JSON_BODY = { "content-type": "application/json" };

/** Load or reload a model. `override`: a configuration as JSON that takes the place of the one on disk; "": none does. */
export function load(model, override) {
  const parameters = override === undefined ? {} : { config: override };
  return request(`v2/repository/models/${encodeURIComponent(model)}/load`, {
    method: "POST",
    headers: JSON_BODY,
    body: JSON.stringify({ parameters }),
  });
}

export function unload(model) {
  return request(`v2/repository/models/${encodeURIComponent(model)}/unload`, {
    method: "POST",
    headers: JSON_BODY,
    body: "{}",
  });
}

/** What to do about an error, in a sentence, or "" where its own text says it. */
export function advice(error) {
  if (!(error instanceof ApiError)) return "";
  switch (error.status) {
    case 0:
      return "Check that the server runs and can be reached. The page finds it again by itself; then ask again.";
    case 400:
      return "The request does not fit the model: correct the value that is named and send it again.";
    case 403:
      return error.wantsHeader ? "This API is closed off: give the header it wants." : "";
    case 404:
      return "Nothing of that name is served now: see its state on the model's page.";
    case 413:
      return "The server takes no body of that size (--http-max-input-size).";
    case 429:
      return "The server has more work than it takes in. Try again in a moment.";
    case 501:
      return "This server does not offer that, or it is switched off.";
    case 503:
      return "Not now: the version is loading or unloading, its queue is full, or the server is stopping.";
    case 504:
      return "The time for it ran out.";
    default:
      return error.status >= 500 ? "The model or the server failed; its log has the details." : "";
  }
}
