// Makes and keeps elements. What comes from the server gets into the page here and only as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `h("a.button", {href, onclick}, "text", child, …)`. Functions named on… are listeners, true and false set
 * and leave out an attribute, null and undefined children are left out, strings become text nodes.
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return fill(document.createElement(name || "div"), classes, properties, children);
}

/** The same in SVG's namespace. */
export function svg(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return fill(document.createElementNS(SVG, name), classes, properties, children);
}

function fill(element, classes, properties, children) {
  if (classes.length) element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "indeterminate") element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Replace what is in `element`. */
export function put(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Set a text if it is another: no work for the browser, and nothing for a screen reader, when it is the same. */
export function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set or take away an attribute, if that changes anything. */
export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * Keep the children of `parent` in step with `items`: made once per key, updated in place, moved only when the order
 * changed, so that focus and selection stay where they are.
 *
 * create(item) → {element, update(item)}; kept in the Map `kept`, which belongs to the caller.
 */
export function reconcile(parent, items, key, create, kept) {
  const wanted = new Set();
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    wanted.add(id);
    let part = kept.get(id);
    if (!part) {
      part = create(item);
      kept.set(id, part);
    }
    part.update(item);
    if (part.element === at) at = at.nextElementSibling;
    else parent.insertBefore(part.element, at);
  }
  for (const [id, part] of kept) {
    if (wanted.has(id)) continue;
    part.element.remove();
    kept.delete(id);
  }
}

let made = 0;

/** An id for `for` and `aria-…`, its own in the page. */
export function uid(prefix) {
  made += 1;
  return `${prefix}-${made}`;
}
