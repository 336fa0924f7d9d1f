// Measure: the distance of two points on the surface, with its bounds.

import * as api from "../api.js";
import { attempt, say } from "../announce.js";
import { element, fill } from "../dom.js";
import { numberOf, withBounds } from "../format.js";
import { label, outlined } from "../look/stage.js";

/** Two clicks make a measurement. */
export class MeasureTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.start = null;
    this.under = null;
    this.made = [];
    this.panel = element("div", { class: "panel" });
    this.show();
  }

  show() {
    const isRelative = this.workspace.result.kind === "depth_relative" || !this.workspace.result.kind;
    fill(this.panel,
      element("h2", {}, "Measure"),
      element("p", { class: "muted" }, isRelative
        ? "Only the order of the frames is known, so there are no metres to measure in. Give focus distances."
        : this.start ? "Click the second point." : "Click two points on the surface."),
      element("ol", { class: "measurements" }, ...this.made.map((made, index) => element("li", {},
        element("b", {}, made.text),
        element("button", {
          class: "plain", "aria-label": `Remove measurement ${index + 1}`,
          on: { click: () => this.remove(made) },
        }, "×")))),
      this.made.length > 1 ? element("button", { class: "small", on: { click: () => this.clear() } }, "Remove all") : null);
  }

  hover(point) {
    this.under = point;
    this.workspace.probe.at(point);
    if (this.start) this.workspace.stage.changed();
  }

  async click(point) {
    if (!this.start) {
      this.start = point;
      this.under = point;
    } else {
      const ends = [this.start, point];
      this.start = null;
      await this.measure(ends);
    }
    this.show();
    this.workspace.stage.changed();
  }

  async measure(ends) {
    const { job, result } = this.workspace;
    const pixels = ends.map((point) => point.map(Math.floor));
    const found = await attempt(() => api.measured(job, ...pixels, result.of));
    if (!found) return;
    const text = withBounds(found.distance_m, numberOf(found.low_m), numberOf(found.high_m), "m");
    this.made.push({ ends, text, metres: found.distance_m });
    say(`Distance ${text}`);
  }

  remove(made) {
    this.made = this.made.filter((other) => other !== made);
    this.show();
    this.workspace.stage.changed();
  }

  clear() {
    this.made = [];
    this.show();
    this.workspace.stage.changed();
  }

  escape() {
    this.start = null;
    this.show();
    this.workspace.stage.changed();
  }

  paint(context, view) {
    for (const { ends, text } of this.made) {
      line(context, view, ends);
      const [a, b] = ends.map((point) => view.toStage(...point));
      label(context, text, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - 20);
    }
    if (this.start) line(context, view, [this.start, this.under]);
  }
}

function line(context, view, ends) {
  const [a, b] = ends.map((point) => view.toStage(...point));
  outlined(context, () => {
    context.beginPath();
    context.moveTo(...a);
    context.lineTo(...b);
    for (const end of [a, b]) {
      context.moveTo(end[0] + 4, end[1]);
      context.arc(...end, 4, 0, 7);
    }
    context.stroke();
  }, "#ffb454", 2);
}
