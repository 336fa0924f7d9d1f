// Start: open a stack, or go on with an earlier one.

import * as api from "../api.js";
import { attempt, notice } from "../announce.js";
import { element, fill } from "../dom.js";
import { bytes, counted } from "../format.js";
import { icon } from "../icons.js";
import * as jobs from "../jobs.js";
import * as keys from "../keys.js";
import { progressBar, stateOf } from "../queue.js";
import { droppedFiles, inOrder, refusal } from "./dropped.js";
import { chooseFolder } from "./folders.js";

let isOpening = false;

/** Open one stack at a time, however often somebody clicks. */
async function open(making, status) {
  if (isOpening) return;
  isOpening = true;
  if (!status.hasChildNodes()) fill(status, element("span", {}, "Opening the stack …"));
  const draft = await attempt(making);
  isOpening = false;
  fill(status);
  if (draft) location.hash = `#/draft/${draft.id}`;
}

async function upload(files, about, status) {
  if (isOpening) return;
  const sentence = refusal(files, about.limits, bytes);
  if (sentence) {
    notice(sentence, "error");
    return;
  }
  const text = element("span");
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Upload" });
  fill(status, bar, text);
  await open(() => api.uploaded(files, (share) => {
    bar.value = share;
    text.textContent = share < 1
      ? `Copying ${counted(files.length, "file")}, ${Math.round(share * 100)} %`
      : "Reading the frames";
  }), status);
}

function dropZone(about, status) {
  const input = (attributes) => element("input", {
    type: "file", multiple: true, class: "unseen", tabindex: "-1", ...attributes,
    on: { change: (event) => upload(inOrder(event.target.files), about, status) },
  });
  const files = input({ "aria-label": "Frames to open" });
  const folder = input({ "aria-label": "Folder to open", webkitdirectory: true });
  const zone = element("section", { class: "drop", "aria-label": "Open frames" },
    element("div", { class: "drop-rings", "aria-hidden": "true" },
      element("span"), element("span"), element("span")),
    element("h1", {}, "Drop a focal stack"),
    element("p", { class: "muted" },
      "Photographs of one scene, each focused at another distance. "
      + "They stay on this machine."),
    element("div", { class: "row centred" },
      element("button", { class: "primary", on: { click: () => files.click() } }, "Choose frames"),
      element("button", { on: { click: () => folder.click() } }, "Choose a folder"),
      about.roots.length ? element("button", {
        on: { click: () => chooseFolder(about.roots, (source) => open(() => api.draftOf(source), status)) },
      }, icon("folder"), "Folders of this machine") : null,
    ),
    element("p", { class: "muted small-text" },
      `Up to ${about.limits.files} files, ${bytes(about.limits.total_bytes)} in all.`),
    status, files, folder,
  );
  return { zone, take: (list) => upload(list, about, status) };
}

function examples(about, status) {
  if (!about.examples.length) return null;
  const cards = about.examples.map((example) => element("button", {
    class: "picture-card", on: { click: () => open(() => api.draftOf({ example: example.id }), status) },
  },
  example.thumbnail
    ? element("img", { src: example.thumbnail, alt: "", loading: "lazy" })
    : element("div", { class: "no-picture" }, icon("look")),
  element("span", { class: "card-title" }, example.name),
  element("span", { class: "muted" }, counted(example.frames, "frame")),
  ));
  return element("section", { "aria-labelledby": "examples-title" },
    element("h2", { id: "examples-title" }, "Examples"),
    element("div", { class: "cards" }, ...cards));
}

function recentCard(job) {
  const picture = job.state === "done" || job.draft_ready
    ? element("img", { src: api.tileUrl(job.id, "image", 0, 0, 0, {}), alt: "", loading: "lazy" })
    : element("div", { class: "no-picture" }, icon(job.state === "failed" ? "warning" : "queue"));
  return element("a", { class: "picture-card", href: `#/job/${job.id}` },
    picture,
    element("span", { class: "card-title" }, job.name),
    jobs.isActive(job) ? progressBar(job) : null,
    element("span", { class: "muted" }, stateOf(job)));
}

/** Show the start page. */
export function openHome(main, about) {
  main.className = "home";
  fill(document.getElementById("bar-title"));
  document.title = "FocalDiffusion";
  const status = element("div", { class: "drop-status", role: "status" });
  const { zone, take } = dropZone(about, status);
  const recent = element("section", { "aria-labelledby": "recent-title" });
  let pictured = "";
  const showRecent = (job) => {
    const list = jobs.all();
    // Progress arrives often: the cards are rebuilt only if a picture or state changes.
    const now = JSON.stringify(list.map(({ id, state, draft_ready: ready, stage }) => [id, state, ready, stage]));
    if (job && now === pictured) return;
    pictured = now;
    fill(recent, ...(list.length ? [
      element("h2", { id: "recent-title" }, "Earlier stacks"),
      element("div", { class: "cards" }, ...list.map(recentCard)),
    ] : []));
  };
  showRecent(null);
  fill(main, element("div", { class: "home-open" }, zone, examples(about, status)), recent);

  const unwatch = jobs.watch(showRecent);
  const over = (event) => {
    event.preventDefault();
    zone.classList.add("over");
  };
  const left = (event) => event.relatedTarget === null && zone.classList.remove("over");
  const dropped = async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    await attempt(async () => take(await droppedFiles(event.dataTransfer)));
  };
  window.addEventListener("dragover", over);
  window.addEventListener("dragleave", left);
  window.addEventListener("drop", dropped);
  const unbind = keys.bind("Start", [
    ["o", "choose frames", () => zone.querySelector("button").click()],
    ["e", "open the first example", () => main.querySelector(".home-open .picture-card")?.click()],
  ]);
  return () => {
    unwatch();
    unbind();
    window.removeEventListener("dragover", over);
    window.removeEventListener("dragleave", left);
    window.removeEventListener("drop", dropped);
  };
}
