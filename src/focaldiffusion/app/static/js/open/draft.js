// A stack before the run: its frames in focus order, what is known, and what is doubtful.

import * as api from "../api.js";
import { attempt } from "../announce.js";
import { element, fill } from "../dom.js";
import { counted } from "../format.js";
import { icon } from "../icons.js";
import * as jobs from "../jobs.js";
import * as keys from "../keys.js";
import { frameCards } from "./frames.js";
import { knowledgeForm } from "./knowledge.js";
import { optionsForm } from "./options.js";

const GRADES = {
  calibrated: "Focus distances and lens are known: depth in metres",
  "focus distances": "Focus distances are known: depth in metres",
  "stage positions": "Stage positions are known: height in metres",
  order: "Only the order is known: relative depth",
};

function findings(draft) {
  const rows = [
    ...draft.errors.map((sentence) => ["error", sentence]),
    ...draft.warnings.map((sentence) => ["warning", sentence]),
  ];
  if (!rows.length) return null;
  return element("ul", { class: "findings", "aria-label": "Findings" }, ...rows.map(([kind, sentence]) =>
    element("li", { class: kind }, icon("warning"), element("span", {}, sentence))));
}

/** Show a draft. */
export async function openDraft(main, about, id) {
  let draft = await api.draft(id);
  main.className = "draft";
  document.title = `${draft.name} · FocalDiffusion`;
  fill(document.getElementById("bar-title"), element("span", {}, draft.name));

  const change = async (changes) => {
    const answer = await attempt(() => api.corrected(id, changes));
    if (answer) draft = answer;
    show();
  };
  const options = optionsForm();
  const start = element("button", { class: "primary large", on: { click: run } }, icon("play"), "Reconstruct");
  const head = element("div", { class: "draft-head" });
  const frames = element("div", { class: "frames-area" });
  const side = element("div", { class: "knowledge" });

  let isStarting = false;

  async function run() {
    isStarting = true;
    start.disabled = true;
    const job = await attempt(() => api.started(id, options.chosen()));
    if (!job) {
      isStarting = false;
      show();
      return;
    }
    jobs.take(job);
    location.hash = `#/job/${job.id}`;
  }

  function show() {
    const kept = draft.frames.filter((frame) => !frame.left_out).length;
    const [first] = draft.frames;
    fill(head,
      element("h1", {}, draft.name),
      element("p", { class: "muted" },
        `${counted(kept, "frame")}${first?.width ? ` · ${first.width} × ${first.height} px` : ""}`),
      element("p", { class: "grade" }, GRADES[draft.grade] ?? draft.grade ?? ""),
      draft.checking ? element("p", { class: "muted", role: "status" }, "Checking order and motion of the frames …") : null,
      findings(draft));
    const focused = document.activeElement?.id;
    fill(frames, frameCards(draft, change));
    fill(side, knowledgeForm(draft, change));
    if (focused) document.getElementById(focused)?.focus();
    start.disabled = isStarting || draft.errors.length > 0 || kept < 2;
  }

  show();
  fill(main,
    element("div", { class: "draft-main" }, head, frames),
    element("aside", { class: "draft-side", "aria-label": "Settings" },
      side,
      element("section", {},
        element("h2", {}, "Run"),
        options.node,
        start)));
  const unwatch = jobs.watchDrafts((checked) => {
    if (checked.id !== id) return;
    draft = checked;
    show();
  });
  const unbind = keys.bind("Stack", [["Mod+Enter", "reconstruct", () => start.disabled || run()]]);
  return () => {
    unwatch();
    unbind();
  };
}
