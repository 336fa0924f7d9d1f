// The readout: depth with its bounds, confidence, source frame and place under the cursor.

import * as api from "../api.js";
import { element, fill } from "../dom.js";
import { numberOf, place as placeOf, withBounds } from "../format.js";

const PAUSE_MS = 50;

/** Asks the server for the pixel under the cursor, one request at a time, the newest last. */
export class Probe {
  constructor(job, result) {
    this.job = job;
    this.result = result;
    this.node = element("output", { class: "readout", id: "readout", "aria-live": "off" });
    this.isBusy = false;
    this.next = null;
    this.show(null);
  }

  /** Probe a native point. Outside of the image nothing is shown. */
  at([x, y]) {
    const { width, height } = this.result;
    const pixel = [Math.floor(x), Math.floor(y)];
    if (pixel[0] < 0 || pixel[1] < 0 || pixel[0] >= width || pixel[1] >= height) return;
    if (this.pixel && this.pixel[0] === pixel[0] && this.pixel[1] === pixel[1]) return;
    this.pixel = pixel;
    this.next = pixel;
    if (!this.isBusy) this.ask();
  }

  async ask() {
    this.isBusy = true;
    while (this.next) {
      const [x, y] = this.next;
      this.next = null;
      try {
        this.show(await api.probed(this.job, x, y, this.result.of), [x, y]);
      } catch (failure) {
        this.node.textContent = failure.message;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.isBusy = false;
  }

  forget() {
    this.pixel = null;
  }

  show(found, pixel) {
    if (!found) {
      fill(this.node, element("span", { class: "muted" }, "Point at the image"));
      return;
    }
    const fact = (name, value, kind) => element("span", { class: `fact ${kind}` },
      element("small", {}, name), element("b", {}, value));
    const { unit, confidence, source_frame: source, xyz_m: place } = found;
    const [value, low, high] = [found.value, found.low, found.high].map(numberOf);
    fill(this.node,
      this.result.kind ? fact(this.result.kind === "height_m" ? "Height" : "Depth", withBounds(value, low, high, unit), "depth") : null,
      confidence === null || confidence === undefined ? null : fact("Confidence", `${Math.round(confidence * 100)} %`, "confidence"),
      source === null || source === undefined ? null : fact("Frame", String(source + 1), "frame"),
      place ? fact("x y z", placeOf(place), "place") : null,
      fact("Pixel", `${pixel[0]}, ${pixel[1]}`, "pixel"));
    this.node.dataset.value = found.value ?? "";
    this.node.dataset.pixel = pixel.join(",");
  }
}
