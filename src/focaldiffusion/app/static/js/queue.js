// The queue: every job with its progress, and what can be done with it.

import * as api from "./api.js";
import { attempt } from "./announce.js";
import { element, fill } from "./dom.js";
import { seconds } from "./format.js";
import * as jobs from "./jobs.js";

const STATES = {
  queued: "waiting", running: "running", done: "done", failed: "failed",
  cancelled: "cancelled", interrupted: "interrupted",
};

/** State of a job in words. */
export function stateOf(job) {
  if (job.state !== "running") return STATES[job.state];
  const left = seconds(job.time_left_s);
  return [job.stage, left && `${left} left`].filter(Boolean).join(" · ");
}

/** A progress bar with its share read out. */
export function progressBar(job) {
  const share = Math.round((job.progress ?? 0) * 100);
  const bar = element("div", {
    class: "progress", role: "progressbar", "aria-label": `Progress of ${job.name}`,
    "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": share,
  }, element("div"));
  bar.firstChild.style.width = `${share}%`;
  return bar;
}

function button(text, job, action) {
  return element("button", {
    class: "small", "aria-label": `${text} ${job.name}`, on: { click: () => attempt(action) },
  }, text);
}

function actions(job) {
  const list = [];
  if (jobs.isActive(job)) list.push(button("Cancel", job, () => api.cancelled(job.id)));
  if (["failed", "cancelled", "interrupted"].includes(job.state)) {
    list.push(button("Try again", job, () => api.retried(job.id)));
  }
  if (!jobs.isActive(job)) {
    list.push(button("Remove", job, async () => {
      await api.removed(job.id);
      jobs.forget(job.id);
    }));
  }
  return list;
}

function row(job) {
  return element("li", { class: `job ${job.state}` },
    element("div", { class: "job-head" },
      element("a", { href: `#/job/${job.id}` }, job.name),
      element("span", { class: "muted" }, stateOf(job)),
    ),
    jobs.isActive(job) ? progressBar(job) : null,
    job.error ? element("p", { class: "error-text" }, job.error) : null,
    element("div", { class: "row" }, ...actions(job)),
  );
}

/** Show the queue in a sheet at the side. */
export function showQueue() {
  const list = element("ul", { class: "job-list" });
  const dialog = element("dialog", { class: "sheet side", "aria-labelledby": "queue-title" },
    element("header", {},
      element("h2", { id: "queue-title" }, "Jobs"),
      element("button", { class: "plain", "aria-label": "Close", on: { click: () => dialog.close() } }, "×"),
    ),
    list,
  );
  const show = () => {
    const focused = document.activeElement?.getAttribute?.("aria-label");
    const rows = jobs.all().map(row);
    fill(list, ...(rows.length ? rows : [element("li", { class: "muted" }, "Nothing yet.")]));
    // The list is rebuilt while somebody walks through it by keyboard.
    if (focused && !list.contains(document.activeElement)) {
      [...list.querySelectorAll("button")]
        .find((item) => item.getAttribute("aria-label") === focused)?.focus();
    }
  };
  const unwatch = jobs.watch(show);
  show();
  dialog.addEventListener("close", () => {
    unwatch();
    dialog.remove();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("a")) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
}
