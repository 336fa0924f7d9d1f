// The colour bar of depth, with ticks in metres and a handle at each end of the range.

import { element, fill } from "../dom.js";
import { depth, length, numberOf, roundTicks } from "../format.js";

const SETTLED_MS = 120;
const WIDENED = 0.25; // share of the full range that the handles may go beyond it

/** Vertical bar, near at the bottom. `changed(range)` is called when a handle has moved. */
export class ColourBar {
  constructor(result, stops, changed) {
    this.result = result;
    this.changed = changed;
    this.isInverse = result.scale === "dioptres";
    this.full = result.range.map(numberOf);
    this.range = [...this.full];
    this.track = element("div", { class: "bar-track" });
    this.ticks = element("div", { class: "bar-ticks", "aria-hidden": "true" });
    this.handles = ["Nearest", "Farthest"].map((name, end) => this.handle(name, end));
    this.node = element("div", { class: "colour-bar", role: "group", "aria-label": "Range of colours" },
      element("div", { class: "bar-body" }, this.track, ...this.handles, this.ticks),
      element("button", {
        class: "small plain", title: "Whole range", on: { click: () => this.reset() },
      }, "Reset"));
    this.paint(stops);
    this.place();
  }

  /** Linear place of a value: dioptres if the colours are linear in them. */
  place01(value) {
    const [low, high] = this.ends;
    return (this.linear(value) - low) / (high - low);
  }

  linear(value) {
    return this.isInverse ? -1 / value : value;
  }

  value(place) {
    const [low, high] = this.ends;
    const linear = low + place * (high - low);
    return this.isInverse ? -1 / Math.min(linear, -1e-9) : linear;
  }

  get ends() {
    const [low, high] = this.full.map((value) => this.linear(value));
    const margin = (high - low) * WIDENED;
    const top = high + margin;
    return [low - margin, this.isInverse ? Math.min(top, 0) : top];
  }

  paint(stops) {
    this.stops = stops;
    this.colour();
  }

  colour() {
    const [from, to] = this.range.map((value) => this.place01(value) * 100);
    const colours = this.stops.map((stop, index) =>
      `${stop} ${from + ((to - from) * index) / (this.stops.length - 1)}%`);
    this.track.style.background = `linear-gradient(to top, ${colours.join(", ")})`;
  }

  handle(name, end) {
    const node = element("div", { class: "bar-handle", role: "slider", tabindex: "0", "aria-label": name, "aria-orientation": "vertical" });
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      event.preventDefault();
      node.focus();
    });
    node.addEventListener("pointermove", (event) => {
      if (!node.hasPointerCapture(event.pointerId)) return;
      const box = this.track.getBoundingClientRect();
      this.move(end, 1 - (event.clientY - box.top) / box.height);
    });
    node.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: 0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowLeft: -0.01, PageUp: 0.1, PageDown: -0.1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.move(end, this.place01(this.range[end]) + steps[event.key]);
    });
    return node;
  }

  move(end, place) {
    const other = this.place01(this.range[1 - end]);
    const held = end === 0 ? Math.min(place, other - 0.02) : Math.max(place, other + 0.02);
    this.range[end] = this.value(Math.min(1, Math.max(0, held)));
    this.place();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.changed([...this.range]), SETTLED_MS);
  }

  reset() {
    this.range = [...this.full];
    this.place();
    this.changed([...this.range]);
  }

  place() {
    const { unit } = this.result;
    this.handles.forEach((handle, end) => {
      const place = this.place01(this.range[end]);
      handle.style.bottom = `${place * 100}%`;
      handle.setAttribute("aria-valuemin", 0);
      handle.setAttribute("aria-valuemax", 100);
      handle.setAttribute("aria-valuenow", Math.round(place * 100));
      handle.setAttribute("aria-valuetext", depth(this.range[end], unit));
    });
    this.colour();
    const [low, high] = [this.value(0), this.value(1)];
    const values = this.isInverse
      ? roundTicks(1 / Math.min(high, 1e6), 1 / low, 6).filter((dioptre) => dioptre > 0).map((dioptre) => 1 / dioptre)
      : roundTicks(low, high, 6);
    fill(this.ticks, ...values.map((value) => {
      const tick = element("span", {}, unit === "m" ? length(value, 2) : String(value));
      tick.style.bottom = `${this.place01(value) * 100}%`;
      return tick;
    }));
  }
}
