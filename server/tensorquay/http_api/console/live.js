// Follows the live feed: reads it, notices when it goes silent, and comes back with longer and longer pauses.
//
// `fetch` and not EventSource, which can neither send a header nor tell why it was refused.

import { request } from "./api.js";
import { EventParser } from "./sse.js";

/** Figures come every second, on very busy servers every thirty; a feed that is silent for longer is lost, whatever TCP says. */
const SILENT_MS = 45_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

export class Live {
  #store;
  #abort = null;
  #timer = null;
  #pause = FIRST_PAUSE_MS;
  #running = false;

  constructor(store) {
    this.#store = store;
  }

  /** Follow the feed until `stop`. */
  start() {
    if (this.#running) return;
    this.#running = true;
    this.#connect();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#abort?.abort();
  }

  /** Try now instead of at the end of the pause. */
  retry() {
    if (!this.#running || this.#store.connection.kind === "live") return;
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#pause = FIRST_PAUSE_MS;
    this.#connect();
  }

  async #connect() {
    const abort = new AbortController();
    this.#abort = abort;
    if (this.#store.connection.kind !== "lost") this.#store.connect({ kind: "connecting" });
    let why;
    try {
      why = await this.#read(abort);
    } catch (error) {
      why = { kind: kindOf(error), text: error.message, header: error.wantsHeader ?? "" };
    }
    if (!this.#running || this.#abort !== abort) return;
    // A closed API does not open by asking again: its header has to come first.
    if (why.kind === "denied") {
      this.#store.connect(why);
      return;
    }
    const pause = this.#pause * (0.75 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    this.#store.connect({ ...why, retryAt: performance.now() + pause });
    this.#timer = setTimeout(() => this.#connect(), pause);
  }

  /** Reads to the end and says why it ended. */
  async #read(abort) {
    let silent = false;
    let bye = false;
    let watch = 0;
    const heard = () => {
      clearTimeout(watch);
      watch = setTimeout(() => {
        silent = true;
        abort.abort();
      }, SILENT_MS);
    };
    heard();
    try {
      const response = await request("v2/live", { headers: { accept: "text/event-stream" }, signal: abort.signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        for (const event of parser.push(value)) {
          if (event.name === "bye") bye = true;
          this.#take(event);
        }
      }
    } catch (error) {
      if (silent) return { kind: "lost", text: `Nothing was heard from the server for ${SILENT_MS / 1000} seconds.` };
      if (error.status === undefined) return { kind: "lost", text: "The connection to the server broke." };
      throw error;
    } finally {
      clearTimeout(watch);
      abort.abort();
    }
    return { kind: "lost", text: bye ? "The server is shutting down." : "The server ended the live feed." };
  }

  #take(event) {
    const content = JSON.parse(event.data);
    if (this.#store.connection.kind !== "live") this.#store.connect({ kind: "live" });
    this.#pause = FIRST_PAUSE_MS;
    this.#store.take(event.name, content, performance.now());
  }
}

function kindOf(error) {
  return { 403: "denied", 404: "absent", 503: "full" }[error.status] ?? "lost";
}
