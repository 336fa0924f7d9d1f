// The jobs as the server reports them, for every part of the page.

import * as api from "./api.js";
import { notice } from "./announce.js";

const known = new Map();
const watchers = new Set();
const draftWatchers = new Set();
let stop = null;
let lost = null; // the message that the server does not answer, while it is shown

const LOST = "The server does not answer. If it has ended, start `focaldiffusion app` again and "
  + "open the address that it prints; its jobs are kept.";

/** All jobs, newest first. */
export const all = () => [...known.values()].sort((a, b) => (a.created < b.created ? 1 : -1));

/** Whether the server has a job. */
export const has = (id) => known.has(id);

/** Whether a job still changes. */
export const isActive = (job) => job.state === "queued" || job.state === "running";

/** Call `watcher(job)` on every change; `job` is null if several may have changed. */
export function watch(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/** Call `watcher(draft)` when the server has checked a draft. */
export function watchDrafts(watcher) {
  draftWatchers.add(watcher);
  return () => draftWatchers.delete(watcher);
}

/** Take a job that a request answered with, before the server reports it. */
export function take(job) {
  known.set(job.id, job);
  watchers.forEach((watcher) => watcher(job));
}

/** Forget a job that was removed. */
export function forget(id) {
  known.delete(id);
  watchers.forEach((watcher) => watcher(null));
}

async function reload() {
  const list = await api.jobs().catch(() => null);
  if (!list) return;
  known.clear();
  for (const job of list) known.set(job.id, job);
  watchers.forEach((watcher) => watcher(null));
}

/**
 * Follow the server as long as the tab is visible: a browser holds six connections to a host, and
 * hidden tabs shall not use them up.
 */
export async function follow() {
  const update = async () => {
    if (document.hidden) {
      stop?.();
      stop = null;
    } else if (!stop) {
      stop = api.follow({
        job: take,
        gone: ({ id }) => forget(id),
        draft: (draft) => draftWatchers.forEach((watcher) => watcher(draft)),
        error: () => { lost ??= notice(LOST, "error"); },
        open: () => {
          if (lost) reload();
          lost?.remove();
          lost = null;
        },
      });
      await reload();
    }
  };
  document.addEventListener("visibilitychange", update);
  await update();
}
