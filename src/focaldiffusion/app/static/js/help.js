// The help sheet: every key that works now.

import { element, fill } from "./dom.js";
import { bound } from "./keys.js";

const NAMES = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓",
  Mod: navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl", Escape: "Esc",
};

function keyCaps(keys) {
  return keys.split(" ").flatMap((key, index) => {
    const caps = key.split(/(?<=.)\+/).map((cap) => element("kbd", {}, NAMES[cap] ?? upper(cap)));
    return index ? [" ", ...caps] : caps;
  });
}

const upper = (cap) => (cap.length === 1 ? cap.toUpperCase() : cap);

/** Show the sheet. */
export function showHelp() {
  const groups = [...bound()].map(([group, entries]) => element("section", {},
    element("h3", {}, group),
    element("dl", {}, ...entries.filter(({ meaning }) => meaning).map(({ key, meaning }) => element("div", {},
      element("dt", {}, ...keyCaps(key)),
      element("dd", {}, meaning),
    ))),
  ));
  const dialog = element("dialog", { class: "sheet", "aria-labelledby": "help-title" });
  fill(dialog,
    element("header", {},
      element("h2", { id: "help-title" }, "Keyboard"),
      element("button", { class: "plain", "aria-label": "Close", on: { click: () => dialog.close() } }, "×"),
    ),
    element("div", { class: "help-groups" }, ...groups),
    element("p", { class: "muted" },
      "Mouse: drag moves the image, the wheel zooms, a click uses the tool. "
      + "Touch: one finger moves, two fingers zoom, a tap uses the tool."),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => event.key === "?" && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}
