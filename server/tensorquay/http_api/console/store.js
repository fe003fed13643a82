// What the page knows of the server, from the live feed and nothing else: facts, models, the figures of five minutes,
// and how the connection is. Pages read it and are told what changed; nobody else writes it.

/** How far back the page looks. */
export const WINDOW_MS = 300_000;

/** Figures are overdue when none came for that long, or for two of their intervals. */
const OVERDUE_MS = 3000;

/** A point of the history names the busiest versions only, that many: of the others it says nothing. */
const REMEMBERED = 24;
const cut = new WeakSet();

export class Store {
  #listeners = new Set();

  /** How the feed is: {kind: connecting | live | lost | full | denied | absent, text, retryAt, header}. */
  connection = { kind: "connecting", text: "", retryAt: null, header: "" };
  /** The server's facts of `hello`, or null before the first. */
  server = null;
  /** Models by name, in the server's order. */
  models = new Map();
  mayLoad = false;
  /** Whether `models` was ever told: an empty list and no list are different things. */
  told = false;
  /** `figures` of the last five minutes, oldest first; none is of a later time than the newest. */
  points = [];
  /** When the newest figures came, by this page's monotonic clock; null: none yet. */
  cameAt = null;

  /** `listener(what)` is called after each change: connection, server, models, figures. Returns how to stop it. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  connect(connection) {
    this.connection = { text: "", retryAt: null, header: "", ...connection };
    this.#tell("connection");
  }

  /** One event of the feed. Unknown ones are a newer server's and are passed over. */
  take(name, content, nowMs) {
    if (name === "hello") {
      this.server = content.server;
      this.#tell("server");
    } else if (name === "models") {
      this.models = new Map(content.models.map((model) => [model.name, model]));
      this.mayLoad = content.may_load === true;
      this.told = true;
      this.#tell("models");
    } else if (name === "history") {
      this.points = content.points.slice();
      if (this.points.length) this.cameAt = nowMs;
      for (const point of this.points) if (point.versions.length >= REMEMBERED) cut.add(point);
      this.#trim();
      this.#tell("figures");
    } else if (name === "figures") {
      this.points.push(content);
      this.cameAt = nowMs;
      this.#trim();
      this.#tell("figures");
    }
  }

  /** The newest figures, or null. */
  get latest() {
    return this.points.length ? this.points[this.points.length - 1] : null;
  }

  /** Whether the next figures should have come by `nowMs`. */
  overdue(nowMs) {
    return this.cameAt !== null && nowMs - this.cameAt > Math.max(OVERDUE_MS, 2000 * (this.latest?.seconds ?? 0));
  }

  /** Drop what is too old, and what is of the future: it was measured before the server's clock was set back. */
  #trim() {
    const newest = this.latest?.at_ms;
    this.points = this.points.filter(({ at_ms: at }) => at <= newest && at >= newest - WINDOW_MS);
  }

  #tell(what) {
    for (const listener of [...this.#listeners]) listener(what);
  }
}

/** Whether a version that `point` does not name was idle then; of a point that was cut nobody knows. */
export function namesAll(point) {
  return !cut.has(point);
}

const indexed = new WeakMap();

/** What `point` says of a version, or null when it was idle: the feed leaves those out. */
export function versionAt(point, model, version) {
  let byKey = indexed.get(point);
  if (!byKey) {
    byKey = new Map();
    for (const each of point.versions) {
      if (!byKey.has(each.model)) byKey.set(each.model, new Map());
      byKey.get(each.model).set(each.version, each);
    }
    indexed.set(point, byKey);
  }
  return byKey.get(model)?.get(version) ?? null;
}
