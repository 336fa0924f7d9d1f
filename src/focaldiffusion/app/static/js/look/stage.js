// The stage: one canvas with one or two layers, the marks of the tool, and a crosshair for the
// keyboard.

import { element } from "../dom.js";
import { StageInput } from "./stage_input.js";
import { store } from "./tiles.js";
import { View } from "./view.js";

const PIXEL_GRID_FROM = 20; // CSS pixels per native pixel

/** The canvas with its layers. A tool has any of `hover`, `press`, `drag`, `release`, `click`, `paint`. */
export class Stage {
  constructor(width, height) {
    this.view = new View(width, height);
    this.canvas = element("canvas", {
      class: "stage-canvas", tabindex: "0", role: "application",
      "aria-label": "Image. Arrow keys move a crosshair, Enter uses the tool there, plus and minus zoom.",
      "aria-describedby": "readout",
    });
    this.divider = element("div", {
      class: "divider", role: "slider", tabindex: "0", hidden: true, "aria-label": "Wipe",
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-orientation": "horizontal",
    }, element("span", { "aria-hidden": "true" }, "⇔"));
    this.node = element("div", { class: "stage" }, this.canvas, this.divider);
    this.layer = null;
    this.second = null;
    this.wipe = 0.5;
    this.crosshair = null;
    this.tool = {};
    this.marks = new Set(); // painters that stay whatever the tool
    this.isDue = false;
    this.input = new StageInput(this);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.node);
    this.watchDivider();
  }

  close() {
    this.observer.disconnect();
  }

  resize() {
    const { clientWidth, clientHeight } = this.node;
    if (!clientWidth || !clientHeight) return;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * this.ratio);
    this.canvas.height = Math.round(clientHeight * this.ratio);
    this.view.resize(clientWidth, clientHeight);
    this.paint();
  }

  /** Show a layer, and a second one right of the divider if there is one. */
  show(layer, second = null) {
    this.layer = layer;
    this.second = second;
    this.divider.hidden = !second;
    this.changed();
  }

  /** Paint at the next frame. */
  changed() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.paint();
    });
  }

  paint() {
    const context = this.canvas.getContext("2d");
    const { view, ratio } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.layer || !ratio) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const changed = () => this.changed();
    const at = Math.round(this.dividerX);
    if (this.second) {
      this.clipped(context, 0, at, () => this.layer.draw(context, view, ratio, changed));
      this.clipped(context, at, view.stageWidth, () => this.second.draw(context, view, ratio, changed));
    } else {
      this.layer.draw(context, view, ratio, changed);
    }
    if (view.scale >= PIXEL_GRID_FROM) this.paintGrid(context);
    for (const mark of this.marks) mark(context, view);
    this.tool.paint?.(context, view);
    if (this.crosshair) this.paintCrosshair(context);
    this.placeDivider();
    this.canvas.setAttribute("aria-busy", String(!store.isIdle));
  }

  clipped(context, from, to, draw) {
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, this.view.stageHeight);
    context.clip();
    draw();
    context.restore();
  }

  paintGrid(context) {
    const { view } = this;
    const [x0, y0] = view.toImage(0, 0).map((value) => Math.max(0, Math.floor(value)));
    const [x1, y1] = view.toImage(view.stageWidth, view.stageHeight);
    const [right, bottom] = [Math.min(view.width, x1), Math.min(view.height, y1)];
    context.beginPath();
    for (let x = x0; x <= right; x += 1) {
      context.moveTo(...view.toStage(x, y0));
      context.lineTo(...view.toStage(x, bottom));
    }
    for (let y = y0; y <= bottom; y += 1) {
      context.moveTo(...view.toStage(x0, y));
      context.lineTo(...view.toStage(right, y));
    }
    context.strokeStyle = "rgba(128, 128, 128, 0.35)";
    context.lineWidth = 1;
    context.stroke();
  }

  paintCrosshair(context) {
    const [x, y] = this.view.toStage(...this.crosshair);
    outlined(context, () => {
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + dx * 5, y + dy * 5);
        context.lineTo(x + dx * 16, y + dy * 16);
      }
      context.stroke();
    });
  }

  get dividerX() {
    return this.wipe * this.view.stageWidth;
  }

  placeDivider() {
    this.divider.style.left = `${this.dividerX}px`;
    this.divider.setAttribute("aria-valuenow", Math.round(this.wipe * 100));
  }

  moveDivider(wipe) {
    this.wipe = Math.min(1, Math.max(0, wipe));
    this.changed();
  }

  watchDivider() {
    this.divider.addEventListener("pointerdown", (event) => {
      this.divider.setPointerCapture(event.pointerId);
      event.stopPropagation();
    });
    this.divider.addEventListener("pointermove", (event) => {
      if (!this.divider.hasPointerCapture(event.pointerId)) return;
      const box = this.node.getBoundingClientRect();
      this.moveDivider((event.clientX - box.left) / box.width);
    });
    this.divider.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.moveDivider(this.wipe + steps[event.key]);
    });
  }
}

/** Stroke twice, dark below light, so that marks show on every image. */
export function outlined(context, stroke, colour = "#fff", width = 1.5) {
  context.save();
  context.lineCap = "round";
  context.lineJoin = "round";
  context.strokeStyle = "rgba(0, 0, 0, 0.75)";
  context.lineWidth = width + 2;
  stroke();
  context.strokeStyle = colour;
  context.lineWidth = width;
  stroke();
  context.restore();
}

/** A label on a dark plate. */
export function label(context, text, x, y) {
  context.save();
  context.font = "600 13px system-ui, sans-serif";
  const width = context.measureText(text).width + 14;
  context.fillStyle = "rgba(10, 11, 12, 0.86)";
  context.beginPath();
  context.roundRect(x - width / 2, y - 12, width, 24, 6);
  context.fill();
  context.fillStyle = "#fff";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, x, y + 0.5);
  context.restore();
}
