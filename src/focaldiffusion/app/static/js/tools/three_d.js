// 3-D: the textured surface or points, and a parallax loop.

import * as api from "../api.js";
import { attempt } from "../announce.js";
import { element, fill } from "../dom.js";
import { isSupported } from "../three_d/renderer.js";
import { SceneView } from "../three_d/scene_view.js";
import { choices, filmButtons, select, slider } from "./controls.js";

const DETAILS = [["60000", "Coarse"], ["250000", "Medium"], ["1000000", "Fine"]]; // points at most

/** The tool that lays a 3-D view over the stage. */
export class ThreeDTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.kind = "surface";
    this.confidence = 0.1;
    this.detail = "250000";
    this.status = element("p", { class: "muted small-text", role: "status" });
    this.panel = element("div", { class: "panel" });
    this.show();
  }

  show() {
    if (!this.workspace.result.range) {
      fill(this.panel, element("h2", {}, "3-D"),
        element("p", { class: "muted" }, "This result has no depth: it was made as an image alone."));
      return;
    }
    if (this.isImpossible) {
      fill(this.panel, element("h2", {}, "3-D"),
        element("p", { class: "muted" },
          "This browser has no WebGL 2, which the view needs. The parallax loop and the files under Take away work without it."),
        this.loopPart());
      return;
    }
    const confidence = slider("Least confidence", { min: 0, max: 1, step: 0.05, value: this.confidence },
      (share) => `${Math.round(share * 100)} %`, (share, isReleased) => {
        this.confidence = share;
        if (isReleased) this.load();
      });
    const detail = select("Detail", DETAILS, this.detail, (value) => {
      this.detail = value;
      this.load();
    });
    fill(this.panel,
      element("h2", {}, "3-D"),
      choices("Show", [["surface", "Surface"], ["relief", "Relief"], ["points", "Points"]], this.kind, (kind) => this.choose(kind)),
      confidence.node, detail.node,
      element("button", { on: { click: () => this.scene?.reset() } }, "Back to the first view"),
      this.status,
      this.loopPart(),
      element("p", { class: "muted small-text" },
        "Drag turns, Shift-drag moves, the wheel comes closer. Outlines are cut: what no frame shows stays open."));
  }

  loopPart() {
    return element("details", { class: "more" },
      element("summary", {}, "Parallax loop"),
      filmButtons("parallax", (format) => api.film(this.workspace.job, "parallax", { format })));
  }

  choose(kind) {
    const isLoaded = (this.kind === "points") === (kind === "points");
    this.kind = kind;
    if (!this.scene) return;
    this.scene.renderer.isShaded = kind === "relief";
    if (isLoaded) this.scene.changed();
    else this.load();
  }

  async enter() {
    if (!this.workspace.result.range) return;
    this.isImpossible = !isSupported();
    this.show();
    if (this.isImpossible) return;
    await attempt(async () => {
      this.scene = new SceneView();
      this.scene.renderer.isShaded = this.kind === "relief";
      this.workspace.stage.node.append(this.scene.canvas);
      this.scene.canvas.focus({ preventScroll: true });
      await this.load();
    });
  }

  leaveTool() {
    this.loading?.abort();
    this.scene?.close();
    this.scene?.canvas.remove();
    this.scene = null;
  }

  async load() {
    this.loading?.abort();
    this.loading = new AbortController();
    const { signal } = this.loading;
    this.status.textContent = "Building the surface …";
    await attempt(async () => {
      const buffer = await api.mesh(this.workspace.job, {
        detail: this.detail, confidence: this.confidence, points: this.kind === "points" ? 1 : 0,
      }, signal);
      if (signal.aborted || !this.scene) return;
      await this.scene.load(buffer);
      this.status.textContent = `${this.scene.vertices.toLocaleString("en")} points`;
    });
    if (this.status.textContent.endsWith("…")) this.status.textContent = "";
  }
}
