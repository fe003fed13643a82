// The theme, chosen before anything is painted: what was remembered, else what the system prefers. A classic script, so
// that it runs before the first frame; the button that changes it is main.js's.
(() => {
  "use strict";
  const KEY = "tensorquay-theme";
  const NAMES = ["auto", "light", "dark"];
  const remembered = () => {
    try {
      const name = localStorage.getItem(KEY);
      return NAMES.includes(name) ? name : "auto";
    } catch {
      return "auto"; // storage may be forbidden; the system's preference then holds
    }
  };
  const show = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  };
  let now = remembered();
  show(now);
  window.tensorquayTheme = {
    get name() {
      return now;
    },
    /** The next theme, remembered if the browser lets us. */
    next() {
      now = NAMES[(NAMES.indexOf(now) + 1) % NAMES.length];
      show(now);
      try {
        localStorage.setItem(KEY, now);
      } catch {
        // Then it holds for this page only.
      }
      return now;
    },
  };
})();
