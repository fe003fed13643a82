// Starts the page: the feed, the frame around the pages, which page is shown, what is said aloud.

import { headerNames } from "./api.js";
import { announce, askAccess, onAccess } from "./dialogs.js";
import { attribute, h, put, text } from "./dom.js";
import { age } from "./format.js";
import { icon } from "./icons.js";
import { Live } from "./live.js";
import { ModelPage } from "./page-model.js";
import { OverviewPage } from "./page-overview.js";
import { TryPage } from "./page-try.js";
import { parse } from "./routes.js";
import { kindOf, labelOf } from "./states.js";
import { Store } from "./store.js";

const PAGES = { overview: OverviewPage, model: ModelPage, try: TryPage };

const store = new Store();
const live = new Live(store);
const main = document.getElementById("main");
const banner = document.getElementById("banner");
const linkState = document.getElementById("link-state");
const foot = document.getElementById("foot");

let page = null;
let shown = "";

function show() {
  const hash = location.hash || "#/";
  if (!hash.startsWith("#/") || hash === shown) return;
  const first = shown === "";
  shown = hash;
  const route = parse(hash);
  page?.leave();
  const Page = PAGES[route.page] ?? LostPage;
  page = new Page(store, route);
  put(main, page.element);
  document.title = `${page.title} · Tensorquay`;
  for (const each of document.querySelectorAll("[data-page]")) {
    attribute(each, "aria-current", each.dataset.page === route.page ? "page" : null);
  }
  if (!first) {
    window.scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

class LostPage {
  title = "No such page";
  element = h(
    "section",
    {},
    h("h1", { tabindex: "-1" }, "No such page"),
    h("p", {}, h("a", { href: "#/" }, "Go to the overview")),
  );
  leave() {}
}

// -- the connection

const parts = { dot: h("span.dot"), word: h("span") };
put(linkState, parts.dot, parts.word);
const said = h("p");
const retry = h("button.small", { type: "button", onclick: () => live.retry() }, "Try now");
const give = h(
  "button.small",
  { type: "button", onclick: () => askAccess(store.connection.header) },
  icon("lock"),
  "Give the header",
);
let saidKind = "";

/** How old the figures on the page are, in words. */
function figuresAge() {
  return store.cameAt === null ? "" : age(performance.now() - store.cameAt);
}

const TITLES = {
  lost: "Connection lost.",
  full: "Too many readers watch this server.",
  denied: "The live figures are closed off.",
  absent: "This server has no live feed.",
};

function tellConnection() {
  const { kind, text: why, retryAt } = store.connection;
  const late = kind === "live" && store.overdue(performance.now());
  attribute(linkState, "data-kind", late ? "late" : kind);
  const wait = retryAt === null ? 0 : Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
  const words = {
    live: late ? `Live, ${figuresAge()} old` : "Live",
    connecting: "Connecting",
    denied: "Closed off",
    absent: "No live feed",
  };
  text(parts.word, words[kind] ?? (kind === "full" ? "Not live" : "Reconnecting"));
  document.body.classList.toggle("stale", kind !== "live" && store.cameAt !== null);
  const title = TITLES[kind];
  if (!title) {
    // A connection that is being made again keeps the words that said it was lost.
    if (kind === "live" && saidKind) {
      put(banner);
      saidKind = "";
      announce("Connected again.");
    }
    return;
  }
  const key = `${kind} ${why}`;
  if (key !== saidKind) {
    saidKind = key;
    put(
      banner,
      h(
        "div.banner-in",
        {},
        icon("warning"),
        h("p", {}, h("b", {}, title), " ", why),
        said,
        kind === "denied" ? give : retry,
      ),
    );
  }
  const shownAge = store.cameAt === null ? "" : `What is shown is ${figuresAge()} old. `;
  text(said, `${shownAge}${retryAt === null ? "" : wait ? `Next try in ${wait} s.` : "Trying now …"}`);
}
// The countdown changes each second: not something to be read out.
said.setAttribute("aria-live", "off");

// -- what changed

let states = null;

function tellStates() {
  const now = new Map();
  for (const model of store.models.values()) {
    for (const version of model.versions) now.set(JSON.stringify([model.name, version.version]), kindOf(version));
  }
  if (states) {
    const news = [...now].filter(([key, kind]) => states.get(key) !== kind);
    const lines = news.slice(0, 3).map(([key, kind]) => {
      const [model, version] = JSON.parse(key);
      return `${model} version ${version}: ${labelOf(kind)}`;
    });
    if (news.length > 3) lines.push(`and ${news.length - 3} more`);
    if (lines.length) announce(lines.join(", "));
  }
  states = now;
}

function tellServer() {
  const { name, version } = store.server;
  text(
    foot,
    `Tensorquay ${version}, server id “${name}”. Percentiles are estimates within the buckets of the server's histograms.`,
  );
}

// -- buttons of the frame

const themeButton = document.getElementById("theme");
const THEMES = {
  auto: ["auto", "Theme: as the system"],
  light: ["sun", "Theme: light"],
  dark: ["moon", "Theme: dark"],
};

function tellTheme(name) {
  const [picture, label] = THEMES[name];
  put(themeButton, icon(picture));
  attribute(themeButton, "aria-label", label);
  attribute(themeButton, "title", label);
}

tellTheme(window.tensorquayTheme.name);
themeButton.addEventListener("click", () => {
  const name = window.tensorquayTheme.next();
  tellTheme(name);
  announce(THEMES[name][1]);
});

const accessButton = document.getElementById("access");
function tellAccess() {
  const names = headerNames();
  put(accessButton, icon("lock"), h("span", {}, "Access"));
  accessButton.hidden = names.length === 0;
  attribute(accessButton, "title", names.length ? `Headers in use: ${names.join(", ")}` : "Headers of closed APIs");
}
tellAccess();
accessButton.addEventListener("click", () => askAccess(store.connection.header));
onAccess(() => {
  tellAccess();
  live.retry();
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

// -- life

store.subscribe((what) => {
  if (what === "models") tellStates();
  if (what === "server") tellServer();
  if (what === "connection" || what === "figures") tellConnection();
});
setInterval(tellConnection, 1000);

window.addEventListener("hashchange", show);
window.addEventListener("online", () => live.retry());

// A tab nobody looks at gives its place back: a browser keeps few connections to a server, and the server few readers.
const UNSEEN_MS = 15_000;
let unseen = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(() => live.stop(), UNSEEN_MS);
  else live.start();
});

window.addEventListener("pagehide", () => live.stop());
window.addEventListener("pageshow", (event) => event.persisted && live.start());

show();
// One that was opened in the background takes a place when it is first looked at.
if (!document.hidden) live.start();
