// Short messages: shown for some seconds, and spoken by screen readers.

import { element } from "./dom.js";
import { sentence } from "./format.js";

const SHOWN_MS = 7000;

/** Say something to screen readers alone. */
export function say(text) {
  document.getElementById("spoken").textContent = text;
}

/** Show a message and return it; `kind` is `note` or `error`. Errors stay until they are closed. */
export function notice(words, kind = "note") {
  const text = sentence(words);
  const notices = document.getElementById("notices");
  for (const shown of [...notices.children]) {
    if (shown.firstChild.textContent === text) shown.remove();
  }
  const box = element("div", { class: `notice ${kind}`, role: kind === "error" ? "alert" : null });
  const close = element("button", {
    class: "plain", "aria-label": "Close this message", on: { click: () => box.remove() },
  }, "×");
  box.append(element("p", {}, text), close);
  notices.append(box);
  while (notices.children.length > 3) notices.firstElementChild.remove();
  if (kind === "note") {
    say(text);
    setTimeout(() => box.remove(), SHOWN_MS);
  }
  return box;
}

/** Run an action of the user; a refusal becomes a message. */
export async function attempt(action) {
  try {
    return await action();
  } catch (failure) {
    if (failure.name !== "AbortError") notice(failure.message, "error");
    return undefined;
  }
}
