// Take away: every file that the result can become.

import * as api from "../api.js";
import { element, fill } from "../dom.js";

const FILES = [
  ["Image", [
    ["image.png", "PNG", "bit depth, profile and EXIF of the frames"],
    ["image.tif", "TIFF", "the same, for other editors"],
  ]],
  ["Depth", [
    ["depth.npy", "NPY", "float32, for Python"],
    ["depth.exr", "EXR", "float32, for compositing"],
    ["depth.png", "PNG", "16 bit, in millimetres"],
  ]],
  ["3-D", [
    ["points.ply", "PLY", "coloured points"],
    ["surface.glb", "GLB", "textured surface, outlines cut"],
  ]],
  ["All", [
    ["living.html", "Living picture", "one file that refocuses by click, without a network"],
    ["session.zip", "Session", "the folder that infer writes"],
    ["retouch.json", "Retouch", "the strokes, for infer --retouch"],
  ]],
];

/** Links to the exports. */
export class TakeTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.panel = element("div", { class: "panel" });
    this.show();
  }

  show() {
    const { job, result } = this.workspace;
    const isPossible = (name) => result.range || /^(image|session|retouch)/.test(name);
    fill(this.panel, element("h2", {}, "Take away"),
      result.of === "draft" ? element("p", { class: "muted" }, "Files are made from the full result, which is on its way.") : null,
      ...(result.of === "draft" ? [] : FILES.map(([heading, files]) => element("section", { class: "exports" },
        element("h3", {}, heading),
        ...files.filter(([name]) => isPossible(name)).map(([name, title, text]) => element("a", {
          class: "export", href: api.exportUrl(job, name), download: "",
        }, element("b", {}, title), element("span", { class: "muted" }, text)))))));
  }

  hover(point) {
    this.workspace.probe.at(point);
  }
}
