// Retouch: a brush that takes pixels from a frame, or sets or flattens depth. The server paints;
// the page sends strokes, so that the command line can replay them.

import * as api from "../api.js";
import { attempt, say } from "../announce.js";
import { element, fill } from "../dom.js";
import { depth, numberOf } from "../format.js";
import { icon } from "../icons.js";
import { Brush } from "./brush.js";
import { choices, select, slider } from "./controls.js";

const TOOLS = [["source", "Pixels"], ["depth", "Set depth"], ["flatten", "Flatten"]];

/** The brush with its list of strokes. */
export class RetouchTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.kind = "source";
    this.frame = 0;
    this.depth = null;
    this.strokes = [];
    this.undone = [];
    this.brush = new Brush(workspace, this);
    this.panel = element("div", { class: "panel" });
    this.status = element("p", { class: "muted small-text", role: "status" });
    this.show();
    this.ready = this.load();
  }

  async load() {
    const kept = await attempt(() => api.retouch(this.workspace.job));
    if (kept) {
      [this.strokes, this.undone] = [kept.strokes, []];
      if (kept.revision !== this.workspace.result.revision) await this.workspace.retouched(kept.revision);
    }
    this.show();
  }

  show() {
    const { result } = this.workspace;
    if (result.of === "draft") {
      fill(this.panel, element("h2", {}, "Retouch"),
        element("p", { class: "muted" }, "Retouching starts with the full result, which is on its way."));
      return;
    }
    const [near, far] = (result.range ?? [0, 1]).map(numberOf);
    this.depth ??= Number.isFinite(far) ? (near + far) / 2 : near;
    const size = Math.max(result.width, result.height);
    this.size = slider("Size", { min: 2, max: Math.round(size / 4), step: 1, value: this.size?.value ?? Math.round(size / 24) },
      (pixels) => `${pixels} px`, () => this.workspace.stage.changed());
    this.softness = slider("Softness", { min: 0, max: 1, step: 0.05, value: this.softness?.value ?? 0.3 },
      (share) => `${Math.round(share * 100)} %`, () => this.workspace.stage.changed());
    const kinds = result.range ? TOOLS : TOOLS.slice(0, 1);
    fill(this.panel,
      element("h2", {}, "Retouch"),
      choices("Brush", kinds, this.kind, (kind) => this.choose(kind)),
      this.kind === "source" ? this.frameChoice() : null,
      this.kind === "depth" ? this.depthSlider(near, far) : null,
      this.kind === "flatten" ? element("p", { class: "muted" }, "Gives the painted region its median depth.") : null,
      this.size.node, this.softness.node,
      element("div", { class: "row" },
        this.button("undo", "Undo", this.strokes.length === 0, () => this.undo()),
        this.button("redo", "Redo", this.undone.length === 0, () => this.redo())),
      this.status,
      element("p", { class: "muted small-text" },
        "Every stroke takes captured pixels and is kept at once. The command line replays the strokes with ",
        element("code", {}, "infer --retouch"), "."),
      element("a", {
        class: "button", href: api.exportUrl(this.workspace.job, "retouch.json"), download: "retouch.json",
      }, "Save retouch.json"));
    this.status.textContent = this.strokes.length ? `${this.strokes.length} strokes` : "No strokes yet";
    if (this.strokes.length === 1) this.status.textContent = "1 stroke";
  }

  frameChoice() {
    const { layers, result } = this.workspace;
    const list = select("Source frame", result.frames.map(({ index }) => [String(index), layers.get(`frame-${index}`).title]),
      String(this.frame), (value) => this.take(Number(value)));
    return element("div", {}, list.node,
      element("p", { class: "muted small-text" }, "Alt-click takes the frame that the image is from there."));
  }

  depthSlider(near, far) {
    const { unit } = this.workspace.result;
    const end = Number.isFinite(far) ? far : near * 10;
    return slider("Depth", { min: near, max: end, step: (end - near) / 500, value: this.depth },
      (value) => depth(value, unit), (value) => { this.depth = value; }).node;
  }

  button(name, text, isDisabled, action) {
    return element("button", { disabled: isDisabled, on: { click: () => attempt(action) } }, icon(name), text);
  }

  choose(kind) {
    this.kind = kind;
    this.workspace.showLayer(this.target);
    this.show();
  }

  /** The layer that the brush changes. */
  get target() {
    return this.kind === "source" ? "image" : "depth";
  }

  enter() {
    const { active } = this.workspace;
    // Frames may stay on the stage, to see what can be taken from them.
    if (active !== this.target && !active.startsWith("frame-")) this.workspace.showLayer(this.target);
  }

  /** Take pixels from this frame. */
  take(frame) {
    const { frames } = this.workspace.result;
    this.frame = Math.min(frames.length - 1, Math.max(0, frame));
    say(`Source frame ${this.frame + 1}`);
    this.show();
  }

  resize(factor) {
    this.size.value = Math.max(2, Math.round(this.size.value * factor));
    this.workspace.stage.changed();
  }

  get stroke() {
    return {
      tool: this.kind,
      frame: this.kind === "source" ? this.frame : null,
      depth: this.kind === "depth" ? this.depth : null,
      size_px: this.size.value,
      softness: this.softness.value,
      points: [],
    };
  }

  get canPaint() {
    return this.workspace.result.of !== "draft";
  }

  hover(point, event) {
    this.workspace.probe.at(point);
    this.brush.hover(point, event);
  }

  leave() {
    this.brush.leave();
  }

  async press(point, event) {
    if (!this.canPaint) return;
    if (event.altKey) {
      const found = await attempt(() => api.probed(this.workspace.job, ...point.map(Math.floor), this.workspace.result.of));
      if (found && this.kind === "source" && found.source_frame !== null) this.take(found.source_frame);
      if (found && this.kind === "depth" && found.value !== null) {
        this.depth = numberOf(found.value);
        this.show();
      }
      return;
    }
    this.brush.start(this.stroke, point);
  }

  drag(point) {
    this.brush.go(point);
  }

  release(point) {
    const stroke = this.brush.end(point);
    if (stroke) this.keep([...this.strokes, stroke], []);
  }

  cancel() {
    this.brush.end();
    this.workspace.stage.changed();
  }

  undo() {
    if (!this.strokes.length) return undefined;
    return this.keep(this.strokes.slice(0, -1), [...this.undone, this.strokes.at(-1)]);
  }

  redo() {
    if (!this.undone.length) return undefined;
    return this.keep([...this.strokes, this.undone.at(-1)], this.undone.slice(0, -1));
  }

  /** Have the server paint these strokes, in the order in which they were wished for. */
  keep(strokes, undone) {
    [this.strokes, this.undone] = [strokes, undone];
    this.show();
    this.sending = (this.sending ?? Promise.resolve()).then(async () => {
      if (this.strokes !== strokes) return;
      this.status.textContent = "Painting …";
      const { job, result } = this.workspace;
      const done = await attempt(() => api.retouched(job, strokes, result.revision));
      if (done) await this.workspace.retouched(done.revision);
      else await this.load();
      this.brush.settle();
      this.show();
    });
    return this.sending;
  }

  paint(context, view) {
    this.brush.paint(context, view);
  }
}
