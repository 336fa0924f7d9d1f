// Look: facts of the result, colours, and a probe that can be pinned.

import { element, fill } from "../dom.js";
import { counted, depth, numberOf } from "../format.js";
import { icon } from "../icons.js";
import { outlined } from "../look/stage.js";
import { select } from "./controls.js";

const COLOURS = {
  viridis: "Viridis, safe for the colour-blind",
  cividis: "Cividis, safe for the colour-blind",
  inferno: "Inferno",
  turbo: "Turbo, most steps",
  gray: "Grey",
};

/** Grades of the knowledge of the camera, as `infer` names them, in words. */
const KNOWN = {
  calibrated: "distances and lens",
  "focus distances only": "focus distances",
  "stage positions": "stage positions",
  "order only": "order of the frames",
};

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

/** The tool of the first sight. */
export class LookTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.pin = null;
    this.panel = element("div", { class: "panel" });
    this.show();
  }

  /** Rebuild the panel, for another result or other colours. */
  show() {
    const { result, about, layers } = this.workspace;
    const [near, far] = (result.range ?? []).map(numberOf);
    fill(this.panel,
      element("h2", {}, "Look"),
      element("dl", { class: "facts" },
        fact("Size", `${result.width} × ${result.height} px`),
        fact("Frames", String(result.frames.length)),
        fact("Known", KNOWN[result.grade.split(", ")[0]] ?? result.grade),
        result.range ? fact(result.kind === "height_m" ? "Height" : "Depth", `${depth(near, result.unit)} to ${depth(far, result.unit)}`) : null),
      result.range ? select("Colours", about.colours.map(({ name }) => [name, COLOURS[name] ?? name]),
        layers.colours, (name) => this.workspace.chooseColours(name)).node : null,
      result.warnings?.length ? element("details", { class: "warnings", open: true },
        element("summary", {}, icon("warning"), counted(result.warnings.length, "warning")),
        element("ul", {}, ...result.warnings.map((sentence) => element("li", {}, sentence)))) : null,
      element("p", { class: "muted small-text" },
        "Click pins the readout. Drag moves, the wheel zooms, W compares two layers."));
  }

  hover(point) {
    if (!this.pin) this.workspace.probe.at(point);
  }

  click(point) {
    if (this.pin) this.pin = null;
    else this.pin = point.map((value) => Math.floor(value) + 0.5);
    this.workspace.probe.forget();
    this.workspace.probe.at(this.pin ?? point);
    this.workspace.stage.changed();
  }

  escape() {
    this.pin = null;
    this.workspace.stage.changed();
  }

  paint(context, view) {
    if (!this.pin) return;
    const [x, y] = view.toStage(...this.pin);
    outlined(context, () => {
      context.beginPath();
      context.arc(x, y, 7, 0, 7);
      context.moveTo(x + 1, y);
      context.arc(x, y, 1, 0, 7);
      context.stroke();
    }, "#ffb454", 2);
  }
}
