// Keys of the workspace.

import * as keys from "../keys.js";
import { TOOLS } from "../tools/all.js";

/** Bind all keys; the returned function unbinds them. */
export function bindKeys(workspace) {
  const layer = (name) => () => workspace.layers.get(name) && workspace.showLayer(name);
  const withTool = (name, action) => () => workspace.tool === name && action(workspace.tools[name]);
  const onStage = (event) => workspace.toStage(event);
  const unbinders = [
    keys.bind("Tools", [
      ...TOOLS.map(([name, title, key]) => [key.toLowerCase(), title, () => workspace.choose(name)]),
      ["Escape", "give up, back to Look", () => {
        workspace.tools[workspace.tool].escape?.();
        workspace.choose("look");
      }],
    ]),
    keys.bind("Layers", [
      ["i", "all in focus", layer("image")],
      ["z", "depth", layer("depth")],
      ["c", "confidence", layer("confidence")],
      ["s", "source frame", layer("source")],
      [", .", "previous, next frame", (event) => workspace.stepFrame(event.key === "," ? -1 : 1)],
      ["w", "wipe between two layers", () => workspace.toggleWipe()],
    ]),
    keys.bind("View", [
      ["+ =", "closer", () => workspace.zoom(1.25)],
      ["-", "farther", () => workspace.zoom(0.8)],
      ["0", "fit", () => workspace.fit()],
      ["1", "one to one", () => workspace.oneToOne()],
      ["ArrowLeft ArrowRight ArrowUp ArrowDown", "move the crosshair; Alt: by one pixel, Shift: move the image", onStage],
      ["Shift+ArrowLeft Shift+ArrowRight Shift+ArrowUp Shift+ArrowDown", "", onStage],
      ["Alt+ArrowLeft Alt+ArrowRight Alt+ArrowUp Alt+ArrowDown", "", onStage],
      ["Enter", "use the tool at the crosshair", onStage],
    ]),
    keys.bind("Refocus", [
      ["[", "focus nearer; in Retouch: smaller brush", () => {
        withTool("refocus", (tool) => tool.step(-1))();
        withTool("retouch", (tool) => tool.resize(1 / 1.2))();
      }],
      ["]", "focus farther; in Retouch: larger brush", () => {
        withTool("refocus", (tool) => tool.step(1))();
        withTool("retouch", (tool) => tool.resize(1.2))();
      }],
      ["t", "tilt the plane", withTool("refocus", (tool) => tool.startTilt())],
    ]),
    keys.bind("Retouch", [
      ["Space", "pen down or up at the crosshair", onStage],
      ["Mod+z", "undo", withTool("retouch", (tool) => tool.undo())],
      ["Mod+Shift+z", "redo", withTool("retouch", (tool) => tool.redo())],
    ]),
  ];
  return () => unbinders.forEach((unbind) => unbind());
}
