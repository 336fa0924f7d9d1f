// The screen of one job: stage, layers, tools, and the progress until the result is there.

import * as api from "../api.js";
import { notice, say } from "../announce.js";
import { element, fill } from "../dom.js";
import { capital, sentence } from "../format.js";
import { icon } from "../icons.js";
import * as jobs from "../jobs.js";
import { advance, progressBar, stateOf } from "../queue.js";
import { TOOLS } from "../tools/all.js";
import { actionButton } from "../tools/controls.js";
import { ColourBar } from "./colour_bar.js";
import { FocusSweep } from "./focus_sweep.js";
import { LayerStrip, Layers } from "./layers.js";
import { Probe } from "./probe.js";
import { Stage } from "./stage.js";
import { bindKeys } from "./workspace_keys.js";
import { WipeChoice } from "./wipe_choice.js";

/** Everything about one job that is open. */
class Workspace {
  constructor(main, about, job) {
    this.main = main;
    this.about = about;
    this.job = job.id;
    this.name = job.name;
    this.active = "image";
    this.waiting = element("section", { class: "waiting", "aria-label": "Progress" });
    this.badge = element("div", { class: "badge", hidden: true });
    fill(main, this.waiting);
  }

  /** Take a change of the job: show its progress, or its result. */
  async follow(job) {
    if (this.isClosed) return;
    const which = job.state === "done" ? "result" : job.draft_ready ? "draft" : null;
    if (which && this.result?.of !== "result" && this.result?.of !== which) await this.refresh();
    if (this.isClosed) return;
    if (!this.stage) this.showWaiting(job);
    else this.showBadge(job);
  }

  /** Fetch the best result there is, once at a time. */
  async refresh() {
    this.refreshing ??= api.result(this.job).then((result) => {
      if (!this.isClosed) this.take(result);
    }, (failure) => notice(failure.message, "error")).finally(() => { this.refreshing = null; });
    await this.refreshing;
  }

  /** Progress before there is anything to see. The buttons stay while it changes. */
  showWaiting(job) {
    const isOver = !jobs.isActive(job);
    const words = job.error ? sentence(job.error) : capital(stateOf(job));
    if (this.progress?.state === job.state) {
      this.progress.said.textContent = words;
      advance(this.progress.bar, job);
      return;
    }
    this.sweep ??= new FocusSweep(job.draft);
    this.progress = {
      state: job.state,
      said: element("p", { class: isOver ? "error-text" : "muted", role: "status" }, words),
      bar: progressBar(job),
    };
    fill(this.waiting,
      this.sweep.node,
      element("h1", {}, job.name),
      this.progress.said,
      isOver ? null : this.progress.bar,
      element("div", { class: "row centred" },
        isOver && job.state !== "done"
          ? actionButton("Try again", () => api.retried(job.id), { class: "primary" }) : null,
        isOver ? null : actionButton("Cancel", () => api.cancelled(job.id)),
        element("a", { class: "button", href: job.draft ? `#/draft/${job.draft}` : "#/" }, "Change the stack")));
  }

  showBadge(job) {
    const isDraft = this.result.of === "draft";
    this.badge.hidden = !isDraft;
    if (!isDraft) return;
    fill(this.badge, element("b", {}, "Draft"),
      element("span", {}, jobs.isActive(job) ? stateOf(job) : job.error ?? stateOf(job)),
      jobs.isActive(job) ? progressBar(job) : actionButton("Try again", () => api.retried(job.id), { class: "small" }));
  }

  take(result) {
    const isFirst = !this.stage;
    const hasOtherSize = this.result && (this.result.width !== result.width || this.result.height !== result.height);
    const before = this.result?.of;
    this.result = result;
    if (isFirst) this.build();
    else {
      this.layers.update(result);
      if (hasOtherSize) {
        Object.assign(this.stage.view, { width: result.width, height: result.height });
        this.stage.view.fit();
        // Points of the draft mean other pixels of the full result.
        this.tools.look.escape();
        this.tools.measure.clear();
        this.tools.refocus.escape();
      }
      Object.assign(this.probe, { result });
      if (before === "draft") this.turnBar(result);
      Object.values(this.tools).forEach((tool) => tool.show());
      if (before === "draft" && result.of === "result") say("The full result is there.");
    }
    this.showLayer(this.active);
  }

  build() {
    this.sweep?.close();
    this.layers = new Layers(this.job, this.result, this.about.colours[0].name);
    this.stage = new Stage(this.result.width, this.result.height);
    this.probe = new Probe(this.job, this.result);
    this.strip = new LayerStrip((name, isSecond) => {
      if (this.tool === "three_d") this.choose("look"); // which lies over the layers
      if (isSecond) this.compare(name);
      else this.showLayer(name);
    });
    this.wipe = new WipeChoice(this);
    this.tools = Object.fromEntries(TOOLS.map(([name, , , Tool]) => [name, new Tool(this)]));
    this.bar = element("div", { class: "bar-place", hidden: true });
    this.turnBar(this.result);
    this.rail = element("div", { class: "rail", role: "toolbar", "aria-label": "Tools", "aria-orientation": "vertical" },
      ...TOOLS.map(([name, title, key]) => element("button", {
        class: "rail-button", "data-tool": name, "aria-pressed": "false", title: `${title} (${key})`,
        "aria-keyshortcuts": key, on: { click: () => this.choose(name) },
      }, icon(name), element("span", {}, title))));
    this.side = element("aside", { class: "tool-side", "aria-label": "Tool" });
    const floating = element("div", { class: "stage-tools", role: "toolbar", "aria-label": "View" },
      this.viewButton("wipe", "Wipe (W)", () => this.toggleWipe()),
      this.viewButton("fit", "Fit (0)", () => this.fit()),
      this.zoomShown = element("button", { class: "plain zoom", title: "One to one (1)", on: { click: () => this.oneToOne() } }));
    this.stage.node.append(this.bar, floating, this.wipe.node, this.badge);
    this.stage.marks.add((_, view) => {
      const text = `${view.scale >= 0.1 ? Math.round(view.scale * 100) : (view.scale * 100).toFixed(1)} %`;
      if (this.zoomShown.textContent !== text) this.zoomShown.textContent = text;
    });
    this.main.className = "workspace";
    fill(this.main, this.rail,
      element("div", { class: "stage-column" }, this.stage.node, this.probe.node, this.strip.node), this.side);
    this.unbind = bindKeys(this);
    this.choose("look");
  }

  viewButton(name, title, action) {
    return element("button", { class: "plain", title, "aria-label": title, on: { click: action } }, icon(name));
  }

  turnBar(result) {
    if (!result.range) return;
    const stops = this.about.colours.find(({ name }) => name === this.layers.colours).stops;
    this.colourBar = new ColourBar(result, stops, (range) => this.chooseRange(range));
    this.layers.range = [...this.colourBar.range];
    this.layers.turn();
    fill(this.bar, this.colourBar.node);
  }

  /** Show a layer on the stage. */
  showLayer(name) {
    const known = this.layers.get(name) ? name : "image";
    this.active = known;
    const second = this.second ? this.layers.get(this.second) : null;
    this.stage.show(this.layers.get(known), second);
    this.bar.hidden = ![known, this.second].includes("depth");
    this.strip.show(this.layers.list, known, this.second);
    this.wipe.show();
    say(this.layers.get(known).title);
  }

  /** Compare with a second layer right of the divider; null ends it. */
  compare(name) {
    this.second = name;
    this.showLayer(this.active);
  }

  toggleWipe() {
    if (this.second) this.compare(null);
    else if (this.active !== "image") this.compare("image");
    else this.compare(this.layers.get("depth") ? "depth" : "source");
    if (this.second) this.stage.divider.focus();
  }

  /** The next or previous frame. */
  stepFrame(by) {
    const { frames } = this.result;
    const now = frames.findIndex(({ index }) => `frame-${index}` === this.active);
    const start = by > 0 ? 0 : frames.length - 1;
    const next = now < 0 ? start : Math.min(frames.length - 1, Math.max(0, now + by));
    if (!this.layers.get(`frame-${frames[next].index}`)) return;
    if (this.tool === "retouch") this.tools.retouch.take(frames[next].index);
    this.showLayer(`frame-${frames[next].index}`);
  }

  chooseColours(name) {
    this.layers.colours = name;
    this.colourBar?.paint(this.about.colours.find((colours) => colours.name === name).stops);
    this.layers.turn();
    this.showLayer(this.active === "image" ? "depth" : this.active);
  }

  chooseRange(range) {
    this.layers.range = range;
    this.layers.turn();
    this.showLayer(this.active);
  }

  showRefocused() {
    this.showLayer("refocused");
  }

  /** The server has painted strokes: fetch what changed. */
  async retouched(revision) {
    this.result = { ...this.result, revision };
    this.layers.update(this.result);
    this.probe.forget();
    this.showLayer(this.active);
  }

  choose(name) {
    if (this.tool === name) return;
    const old = this.tools[this.tool];
    old?.leaveTool?.();
    this.tool = name;
    const tool = this.tools[name];
    this.stage.tool = tool;
    this.main.dataset.tool = name;
    for (const button of this.rail.children) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
    fill(this.side, tool.panel);
    tool.enter?.();
    this.stage.changed();
    say(TOOLS.find(([key]) => key === name)[1]);
  }

  /** Hand a key over to the stage, wherever the focus is. */
  toStage(event) {
    const { scene } = this.tools.three_d;
    (scene ? scene.canvas : this.stage.canvas).focus({ preventScroll: true });
    if (scene) scene.key(event);
    else this.stage.input.key(event);
  }

  zoom(factor) {
    this.stage.view.zoom(factor);
    this.stage.changed();
  }

  fit() {
    this.stage.view.fit();
    this.stage.changed();
  }

  oneToOne() {
    const { view, ratio } = this.stage;
    view.zoom(1 / ratio / view.scale);
    this.stage.changed();
  }

  close() {
    this.isClosed = true;
    this.sweep?.close();
    if (!this.stage) return;
    this.tools[this.tool]?.leaveTool?.();
    this.stage.close();
    this.unbind();
  }
}

/** Show the job of the address. */
export async function openWorkspace(main, about, id) {
  const job = await api.job(id);
  jobs.take(job);
  document.title = `${job.name} · FocalDiffusion`;
  fill(document.getElementById("bar-title"), element("span", {}, job.name));
  main.className = "";
  const workspace = new Workspace(main, about, job);
  const unwatch = jobs.watch((changed) => {
    if (changed?.id === id) workspace.follow(changed);
    else if (!changed && !jobs.has(id)) {
      notice(`${job.name} was removed.`);
      location.hash = "";
    }
  });
  await workspace.follow(job);
  return () => {
    unwatch();
    workspace.close();
  };
}
