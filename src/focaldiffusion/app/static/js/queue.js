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
  return advance(element("div", {
    class: "progress", role: "progressbar", "aria-label": `Progress of ${job.name}`,
    "aria-valuemin": "0", "aria-valuemax": "100",
  }, element("div")), job);
}

/** Move a progress bar to where its job is. */
export function advance(bar, job) {
  const share = Math.round((job.progress ?? 0) * 100);
  bar.setAttribute("aria-valuenow", share);
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

/** A job in the list. While it runs only words and bar change: buttons stay where they are. */
class Row {
  constructor(job) {
    this.state = job.state;
    this.said = element("span", { class: "muted" });
    this.bar = jobs.isActive(job) ? progressBar(job) : null;
    this.node = element("li", { class: `job ${job.state}` },
      element("div", { class: "job-head" },
        element("a", { href: `#/job/${job.id}` }, job.name),
        this.said,
      ),
      this.bar,
      job.error ? element("p", { class: "error-text" }, job.error) : null,
      element("div", { class: "row" }, ...actions(job)),
    );
    this.update(job);
  }

  update(job) {
    this.said.textContent = stateOf(job);
    if (this.bar) advance(this.bar, job);
  }
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
  let rows = new Map();
  let order = "";
  const show = () => {
    const all = jobs.all();
    rows = new Map(all.map((job) => {
      const kept = rows.get(job.id);
      return [job.id, kept?.state === job.state ? kept : new Row(job)];
    }));
    all.forEach((job) => rows.get(job.id).update(job));
    const now = JSON.stringify(all.map(({ id, state }) => [id, state]));
    if (now === order) return;
    order = now;
    const focused = document.activeElement?.getAttribute?.("aria-label");
    const nodes = [...rows.values()].map(({ node }) => node);
    fill(list, ...(nodes.length ? nodes : [element("li", { class: "muted" },
      "No jobs yet. Open a stack and choose Reconstruct.")]));
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
