// Questions and errors: confirming what changes the server, the headers of closed APIs, error panels, copying.

import { advice, useHeader } from "./api.js";
import { h, put, uid } from "./dom.js";
import { icon } from "./icons.js";

/** Say something to those who do not see the page, once. */
export function announce(text) {
  const said = document.getElementById("said");
  said.textContent = "";
  said.textContent = text;
}

/** An error as a panel: status, the server's sentence, what to do. */
export function errorPanel(error, title = "That did not work") {
  const status = error.status ? `HTTP ${error.status}${error.code ? ` · ${error.code}` : ""}` : "";
  const todo = advice(error);
  return h(
    "div.notice.bad",
    { role: "alert" },
    h("p.notice-title", {}, icon("failed"), h("span", {}, title), status && h("span.notice-status", {}, status)),
    h("p.server-said", {}, error.message),
    todo && h("p.notice-todo", {}, todo),
    error.wantsHeader &&
      h(
        "p",
        {},
        h("button", { type: "button", onclick: () => askAccess(error.wantsHeader) }, icon("lock"), "Give the header"),
      ),
  );
}

/** When what had the keyboard's focus is gone, the page's heading has it: not the top of the document. */
export function keepFocus() {
  if (document.activeElement === document.body) document.querySelector("main h1")?.focus({ preventScroll: true });
}

function modal(title, content, buttons) {
  const id = uid("dialog");
  const dialog = h(
    "dialog.dialog",
    { "aria-labelledby": id },
    h("h2", { id }, title),
    content,
    h("div.dialog-buttons", {}, buttons),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    keepFocus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Ask before something changes, do it, and show how it went: the dialog stays while it is done, and with the server's
 * sentence when it failed. `act` is called once per confirmation.
 */
export function confirmAction({ title, says, verb, doing, done, tone = "", act }) {
  const problem = h("div", { "aria-live": "assertive" });
  const go = h(tone ? `button.primary.${tone}` : "button.primary", { type: "button", onclick: perform }, verb);
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const content = h(
    "div.dialog-says",
    {},
    says.map((line) => (line instanceof Node ? line : h("p", {}, line))),
    problem,
  );
  const dialog = modal(title, content, [cancel, go]);
  cancel.focus();

  async function perform() {
    go.disabled = true;
    put(go, h("span.spinner", { "aria-hidden": "true" }), doing);
    put(problem);
    cancel.textContent = "Hide";
    try {
      await act();
      announce(done);
      dialog.close();
    } catch (error) {
      const panel = errorPanel(error);
      put(problem, panel);
      cancel.textContent = "Close";
      go.disabled = false;
      put(go, "Try again");
      if (!dialog.open) announce(`${title}: ${error.message}`);
    }
  }
}

const granted = new Set();

/** `listener()` is called whenever a header was given. */
export function onAccess(listener) {
  granted.add(listener);
  return () => granted.delete(listener);
}

/** Ask for a closed API's header and its value; they stay in memory. */
export function askAccess(name = "") {
  const field = h("input", {
    id: uid("header"),
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "off",
    value: name,
  });
  const secret = h("input", { id: uid("value"), type: "password", autocomplete: "off", spellcheck: "false" });
  const problem = h("p.field-error", { role: "alert" });
  const submit = (event) => {
    event.preventDefault();
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(field.value.trim())) {
      problem.textContent = "A header's name is letters, digits and hyphens.";
      field.focus();
      return;
    }
    if (!/^[\x20-\x7e\xa0-\xff]*$/.test(secret.value)) {
      problem.textContent = "A header's value has Latin letters, digits and signs only.";
      secret.focus();
      return;
    }
    useHeader(field.value.trim(), secret.value);
    dialog.close();
    for (const listener of [...granted]) listener();
  };
  const form = h(
    "form",
    { onsubmit: submit },
    h(
      "p",
      {},
      "This server closes some of its APIs off (--http-restricted-api). Name the header that opens them and its value. " +
        "Both are kept in this page's memory only, and sent to this server only.",
    ),
    h("label", { for: field.id }, "Header"),
    field,
    h("label", { for: secret.id }, "Value"),
    secret,
    problem,
    h(
      "div.dialog-buttons",
      {},
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button.primary", { type: "submit" }, "Use it"),
    ),
  );
  const dialog = modal("Access", form, []);
  (name ? secret : field).focus();
}

/** A button that copies what `read()` gives, and says so. */
export function copyButton(read, label = "Copy") {
  const word = h("span", {}, label);
  const button = h("button.small", { type: "button", onclick: copy }, icon("copy"), word);
  let timer = 0;
  async function copy() {
    const said = (await toClipboard(read())) ? "Copied" : "Not allowed: select it and copy";
    word.textContent = said;
    announce(said);
    clearTimeout(timer);
    timer = setTimeout(() => (word.textContent = label), 2500);
  }
  return button;
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard without a secure context; the old way works from a click.
    const area = h("textarea.unseen", { value: text, readonly: true });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Give `bytes` to the reader as a file. */
export function saveFile(name, bytes, type = "application/octet-stream") {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
