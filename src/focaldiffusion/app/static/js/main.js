// Entry: the bar at the top, and one screen at a time, chosen by the address.

import * as api from "./api.js";
import { notice } from "./announce.js";
import { element, fill } from "./dom.js";
import { showHelp } from "./help.js";
import { icon } from "./icons.js";
import * as jobs from "./jobs.js";
import * as keys from "./keys.js";
import { openHome } from "./open/home.js";
import { showQueue } from "./queue.js";
import * as theme from "./theme.js";

// The start page comes first and alone; the others are loaded when they are opened.
const SCREENS = [
  [/^#\/draft\/([\w-]+)$/, async () => (await import("./open/draft.js")).openDraft],
  [/^#\/job\/([\w-]+)$/, async () => (await import("./look/workspace.js")).openWorkspace],
  [/^/, async () => openHome],
];

const main = document.getElementById("main");
let leave = () => {};
let visit = 0;

/** Open the screen of the address; a screen answers with a function that closes it. */
async function route(about) {
  visit += 1;
  const own = visit;
  leave();
  leave = () => {};
  const [pattern, screen] = SCREENS.find(([shape]) => shape.test(location.hash));
  const [, id] = pattern.exec(location.hash);
  fill(main);
  main.className = "";
  // Tab goes on from the new screen, and screen readers follow.
  if (visit > 1) main.focus({ preventScroll: true });
  try {
    const open = await screen();
    if (own !== visit) return;
    const close = await open(main, about, id);
    // Another screen may have been opened in the meantime.
    if (own === visit) leave = close ?? leave;
    else close?.();
  } catch (failure) {
    if (own !== visit) return;
    notice(failure.message, "error");
    if (location.hash) location.hash = "";
  }
}

function bar() {
  const queueCount = element("span", { class: "count", hidden: true });
  const tool = (name, text, key, action) => element("button", {
    class: "plain bar-button", title: `${text} (${key})`, "aria-keyshortcuts": key, on: { click: action },
  }, icon(name), element("span", { class: "bar-text" }, text));
  const queue = tool("queue", "Jobs", "Q", showQueue);
  queue.append(queueCount);
  jobs.watch(() => {
    const active = jobs.all().filter(jobs.isActive).length;
    queueCount.hidden = active === 0;
    queueCount.textContent = active;
  });
  fill(document.getElementById("bar"),
    element("a", { class: "brand", href: "#/", "aria-label": "FocalDiffusion, start page" },
      element("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }),
      element("span", {}, "FocalDiffusion"),
    ),
    element("div", { id: "bar-title", class: "bar-title" }),
    element("nav", { "aria-label": "Page" },
      tool("plus", "Open", "N", () => { location.hash = "#/"; }),
      queue,
      tool("theme", "Theme", "L", theme.change),
      tool("help", "Help", "?", showHelp),
    ),
  );
}

async function start() {
  theme.recall();
  keys.listen();
  keys.bind("Page", [
    ["?", "this sheet", showHelp],
    ["q", "jobs", showQueue],
    ["n", "open another stack", () => { location.hash = "#/"; }],
    ["l", "dark or light", theme.change],
  ]);
  bar();
  try {
    const about = await api.about();
    window.addEventListener("hashchange", () => route(about));
    await Promise.all([jobs.follow(), route(about)]);
  } catch (failure) {
    notice(failure.message, "error");
  }
}

start();
