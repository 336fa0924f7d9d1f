// Take away: every file that the result can become.

import * as api from "../api.js";
import { attempt, say } from "../announce.js";
import { element, fill } from "../dom.js";
import { download } from "./controls.js";

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
    ["retouch.json", "Retouch", "the strokes, for the command line"],
  ]],
];

/** Why a result cannot become a file; null if it can. */
function lacking(name, { range, kind, camera_known: isPlaced }) {
  if (!range && !/^(image|session|retouch)/.test(name)) return "needs depth; this is an image alone";
  if (name === "depth.png" && kind !== "depth_m") return "needs depth in metres";
  if (name === "points.ply" && !isPlaced) return "needs depth in metres and the focal length";
  return null;
}

/** Links to the exports. */
export class TakeTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.panel = element("div", { class: "panel" });
    this.show();
  }

  show() {
    const { result } = this.workspace;
    fill(this.panel, element("h2", {}, "Take away"),
      result.of === "draft" ? element("p", { class: "muted" }, "Files are made from the full result, which is on its way.") : null,
      ...(result.of === "draft" ? [] : FILES.map(([heading, files]) => element("section", { class: "exports" },
        element("h3", {}, heading),
        ...files.map((file) => this.row(...file))))));
  }

  row(name, title, text) {
    const { job, result } = this.workspace;
    const why = lacking(name, result);
    const about = element("span", { class: "muted" }, why ?? text);
    if (why) return element("div", { class: "export" }, element("span", { class: "muted" }, title), about);
    const take = async (event) => {
      event.preventDefault();
      if (link.classList.contains("busy")) return;
      link.classList.add("busy");
      about.textContent = "Making the file …";
      await attempt(async () => {
        const made = await api.exported(job, name);
        download(made.blob, made.name);
        say(`${title} is ready.`);
      });
      link.classList.remove("busy");
      about.textContent = text;
    };
    const link = element("a", { class: "export", href: api.exportUrl(job, name), download: "", on: { click: take } },
      element("b", {}, title), about);
    return link;
  }

  hover(point) {
    this.workspace.probe.at(point);
  }
}
