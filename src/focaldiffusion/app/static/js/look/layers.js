// The layers of a result, and the strip that chooses among them.

import * as api from "../api.js";
import { element, fill } from "../dom.js";
import { length, numberOf, plain } from "../format.js";
import { TiledLayer } from "./tiles.js";

const NAMES = { depth_m: "Depth", height_m: "Height", depth_relative: "Relative depth" };

/** All layers of a result, by name, with the colours and the range of depth. */
export class Layers {
  constructor(job, result, colours) {
    this.job = job;
    this.colours = colours;
    this.range = null;
    this.update(result);
  }

  /** Take a result: the draft first, then the full one, then every change by retouch. */
  update(result) {
    this.result = result;
    if (!this.range && result.range) this.range = result.range.map(numberOf);
    const hasDepth = Boolean(result.kind && result.range);
    // A draft is smaller than the frames: they come with the full result.
    const frames = result.of === "draft" ? [] : result.frames;
    const about = [
      ["image", "All in focus"],
      ...(hasDepth ? [["depth", NAMES[result.kind]], ["confidence", "Confidence"]] : []),
      ["source", "Source frame"],
      ...frames.map((frame) => [`frame-${frame.index}`, ...frameTitles(frame)]),
    ];
    this.list = about.map(([name, title, short = title]) => new TiledLayer(
      { name, title, short, width: result.width, height: result.height, levels: result.levels },
      this.address(name),
    ));
    this.byName = new Map(this.list.map((layer) => [layer.name, layer]));
  }

  address(name) {
    const settings = { of: this.result.of, v: `${this.result.of}-${this.result.revision}` };
    if (name === "depth") settings.range = this.range.map(plain).join(",");
    if (["depth", "confidence", "source"].includes(name)) settings.colours = this.colours;
    return (level, x, y) => api.tileUrl(this.job, name, level, x, y, settings);
  }

  /** Show depth in another range or other colours. */
  turn() {
    for (const name of ["depth", "confidence", "source"]) this.byName.get(name)?.turn(this.address(name));
  }

  get(name) {
    return this.byName.get(name);
  }

  /** Take a picture that was made from the result; it stands beside the image. */
  add(layer) {
    const [image, ...others] = this.list.filter(({ name }) => name !== layer.name);
    this.list = [image, layer, ...others];
    this.byName.set(layer.name, layer);
  }
}

/** Title of a frame, and the short one of the strip. */
function frameTitles({ index, focus_distance_m: distance, position_m: position }) {
  const focus = numberOf(distance ?? position);
  if (focus === null || focus === undefined) return [`Frame ${index + 1}`];
  return [`Frame ${index + 1} · ${length(focus)}`, `${index + 1} · ${length(focus)}`];
}

/** The strip of layers below the stage; `chosen(name)` is called on a click. */
export class LayerStrip {
  constructor(chosen) {
    this.chosen = chosen;
    this.node = element("div", { class: "strip", role: "listbox", "aria-label": "Layers", tabindex: "-1" });
    this.node.addEventListener("keydown", (event) => this.key(event));
  }

  show(layers, active, second) {
    const focused = this.node.contains(document.activeElement) && document.activeElement.dataset.layer;
    fill(this.node, ...layers.map((layer) => this.item(layer, active, second)));
    if (focused) this.node.querySelector(`[data-layer="${CSS.escape(focused)}"]`)?.focus();
    const shown = this.node.querySelector("[aria-selected=true]");
    if (shown) {
      const [from, to] = [shown.offsetLeft, shown.offsetLeft + shown.offsetWidth];
      if (from < this.node.scrollLeft || to > this.node.scrollLeft + this.node.clientWidth) {
        this.node.scrollLeft = from - 60;
      }
    }
  }

  item(layer, active, second) {
    const isActive = layer.name === active;
    const picture = layer.picture
      ? copy(layer.picture)
      : element("img", { src: layer.thumbnail, alt: "", loading: "lazy", draggable: "false" });
    return element("button", {
      class: `strip-item${layer.name === second ? " second" : ""}`, role: "option", "data-layer": layer.name,
      "aria-label": layer.title, "aria-selected": String(isActive), tabindex: isActive ? "0" : "-1",
      on: { click: (event) => this.chosen(layer.name, event.shiftKey) },
    }, picture, element("span", {}, layer.short));
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const items = [...this.node.children];
    const next = items[items.indexOf(document.activeElement) + by];
    next?.focus();
    next?.click();
  }
}

function copy(picture) {
  const canvas = element("canvas", { width: 160, height: Math.round((160 * picture.height) / picture.width) });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}
