// The brush on the stage: its outline, and a preview of the stroke until the server has painted it.

import { outlined } from "../look/stage.js";

const SPACING = 0.15; // of the diameter, between points of a stroke

/** Collects the points of a stroke and previews it. */
export class Brush {
  constructor(workspace, tool) {
    this.workspace = workspace;
    this.tool = tool;
    this.at = null;
    this.stroke = null;
    this.sent = []; // strokes that the server has not painted yet
  }

  hover(point) {
    this.at = point;
    this.workspace.stage.changed();
  }

  leave() {
    this.at = null;
    this.workspace.stage.changed();
  }

  start(stroke, point) {
    this.stroke = stroke;
    this.stroke.points.push(rounded(point));
    this.hover(point);
  }

  go(point) {
    this.at = point;
    if (this.stroke) {
      const [x, y] = this.stroke.points.at(-1);
      if (Math.hypot(point[0] - x, point[1] - y) >= this.stroke.size_px * SPACING) {
        this.stroke.points.push(rounded(point));
      }
    }
    this.workspace.stage.changed();
  }

  /** End the stroke; without a point it is dropped. */
  end(point) {
    const { stroke } = this;
    this.stroke = null;
    if (!stroke || !point) return null;
    const last = rounded(point);
    if (String(stroke.points.at(-1)) !== String(last)) stroke.points.push(last);
    this.sent.push(stroke);
    return stroke;
  }

  settle() {
    this.sent = [];
    this.workspace.stage.changed();
  }

  paint(context, view) {
    for (const stroke of [...this.sent, this.stroke]) {
      if (stroke) this.preview(context, view, stroke);
    }
    if (!this.at || !this.tool.size) return;
    const [x, y] = view.toStage(...this.at);
    const radius = (this.tool.size.value / 2) * view.scale;
    outlined(context, () => {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.stroke();
    });
  }

  preview(context, view, stroke) {
    const frame = stroke.tool === "source" ? this.workspace.layers.get(`frame-${stroke.frame}`) : null;
    const path = new Path2D();
    for (const point of stroke.points) {
      const [x, y] = view.toStage(...point);
      const radius = (stroke.size_px / 2) * view.scale;
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.save();
    if (frame) {
      context.clip(path);
      frame.draw(context, view, this.workspace.stage.ratio, () => this.workspace.stage.changed());
    } else {
      context.globalAlpha = 0.4;
      context.fillStyle = "#ffb454";
      context.fill(path);
    }
    context.restore();
  }
}

const rounded = (point) => point.map((value) => Number(value.toFixed(2)));
