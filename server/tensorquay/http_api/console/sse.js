// Server-sent events out of text that comes in pieces (WHATWG HTML, "server-sent events"). Pure.

/** Longest event that is waited for; what is longer is no live feed of ours. */
const LONGEST = 64 * 1024 * 1024;

export class EventParser {
  #rest = "";
  #name = "";
  #data = [];

  /** The events that `piece` completes, each `{name, data}`. Comments count as nothing. */
  push(piece) {
    const events = [];
    const text = this.#rest + piece;
    if (text.length > LONGEST) throw new Error(`an event of the live feed is longer than ${LONGEST} characters`);
    let from = 0;
    for (;;) {
      const end = text.indexOf("\n", from);
      if (end < 0) break;
      const line = text.charAt(end - 1) === "\r" && end > from ? text.slice(from, end - 1) : text.slice(from, end);
      from = end + 1;
      this.#line(line, events);
    }
    this.#rest = text.slice(from);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length) events.push({ name: this.#name || "message", data: this.#data.join("\n") });
      this.#name = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line.charAt(colon + 1) === " " ? 2 : 1));
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
  }
}
