// Refocus: click what shall be sharp; aperture, blur shape, a tilted plane, and a focus pull.

import * as api from "../api.js";
import { attempt, notice } from "../announce.js";
import { element, fill } from "../dom.js";
import { depth, numberOf, plain } from "../format.js";
import { outlined } from "../look/stage.js";
import { PictureLayer } from "../look/tiles.js";
import { actionButton, choices, download, filmButtons, slider } from "./controls.js";

const SHAPES = [["disc", "Disc"], ["hexagon", "Hexagon"], ["cats-eye", "Cat's eye"]];
const STEPS = 1000;
const SETTLED_MS = 180;

/** The virtual lens. Drafts follow the sliders; the full size comes once they rest. */
export class RefocusTool {
  constructor(workspace) {
    this.workspace = workspace;
    this.plane = null; // three points while and after a plane is tilted
    this.isTilting = false;
    this.shape = "disc";
    this.panel = element("div", { class: "panel" });
    this.status = element("p", { class: "muted small-text", role: "status" });
    this.mark = null;
    this.wanted = null;
    this.clicked = null; // depth of the clicked pixel, finer than a step of the slider
    this.show();
  }

  get sharpAt() {
    return this.clicked ?? this.focusOf(this.focus.value);
  }

  get isInverse() {
    return this.workspace.result.kind === "depth_m";
  }

  /** Focus of a step of the slider: even steps in dioptres, where depth is in metres. */
  focusOf(step) {
    const [near, far] = this.range;
    const share = step / STEPS;
    if (!this.isInverse) return near + share * (far - near);
    const dioptres = 1 / near + share * ((Number.isFinite(far) ? 1 / far : 0) - 1 / near);
    return dioptres < 1e-9 ? Infinity : 1 / dioptres;
  }

  stepOf(focus) {
    const [near, far] = this.range;
    if (!this.isInverse) return (STEPS * (focus - near)) / (far - near);
    return (STEPS * (1 / focus - 1 / near)) / ((Number.isFinite(far) ? 1 / far : 0) - 1 / near);
  }

  show() {
    const { result } = this.workspace;
    if (!result.range) {
      fill(this.panel, element("h2", {}, "Refocus"),
        element("p", { class: "muted" }, "This result has no depth: it was made as an image alone."));
      return;
    }
    const [near, far] = result.range.map(numberOf);
    const focus = this.focus ? this.sharpAt : null;
    this.range = this.isInverse ? [near * 0.8, Number.isFinite(far) ? far * 1.5 : far] : [near, far];
    const start = focus ?? (this.isInverse ? 2 / (1 / near + 1 / far) : (near + far) / 2);
    this.focus = slider("Focus", { min: 0, max: STEPS, step: 1, value: this.stepOf(start) },
      (step) => depth(this.clicked ?? this.focusOf(step), result.unit), (_, isReleased) => this.moved(isReleased, true));
    this.lens = result.lens_known
      ? slider("Aperture", { min: -1, max: 9, step: 0.1, value: this.lens?.value ?? this.stops(result.f_number ?? 2.8) },
        (stops) => `f/${fNumber(stops).toPrecision(2)}`, (_, isReleased) => this.moved(isReleased))
      : slider("Strongest blur", { min: 1, max: 60, step: 1, value: this.lens?.value ?? 16 },
        (radius) => `${radius} px`, (_, isReleased) => this.moved(isReleased));
    this.tilt = element("button", {
      "aria-pressed": String(this.isTilting), on: { click: () => this.startTilt() },
    }, "Tilt the plane");
    fill(this.panel,
      element("h2", {}, "Refocus"),
      element("p", { class: "muted" }, this.isTilting
        ? `Click three points that shall be sharp together: ${3 - this.plane.length} to go.`
        : "Click what shall be sharp."),
      this.focus.node, this.lens.node,
      choices("Shape of the blur", SHAPES, this.shape, (shape) => {
        this.shape = shape;
        this.moved(true);
      }),
      element("div", { class: "row" }, this.tilt,
        actionButton("Save picture", () => this.save())),
      this.status,
      this.pullPart());
  }

  stops(number) {
    return 2 * Math.log2(number);
  }

  /** Aperture and shape of the blur. */
  get aperture() {
    return this.workspace.result.lens_known
      ? { f_number: Number(fNumber(this.lens.value).toPrecision(4)), shape: this.shape }
      : { blur_px: this.lens.value, shape: this.shape };
  }

  get settings() {
    const sharp = this.plane?.length === 3
      ? { plane: this.plane.map((point) => point.map(Math.floor)) }
      : { distance_m: plain(this.sharpAt) };
    return { ...sharp, ...this.aperture };
  }

  hover(point) {
    this.workspace.probe.at(point);
  }

  async click(point) {
    if (this.isTilting) {
      this.plane.push(point);
      this.isTilting = this.plane.length < 3;
      this.show();
      this.workspace.stage.changed();
      if (!this.isTilting) this.moved(true);
      return;
    }
    const { job, result } = this.workspace;
    const found = await attempt(() => api.probed(job, ...point.map(Math.floor), result.of));
    if (!found) return;
    if (found.value === null) {
      notice("The depth of this pixel is unknown. Click beside it.", "error");
      return;
    }
    this.plane = null;
    this.mark = point;
    this.clicked = numberOf(found.value);
    this.focus.value = Math.min(STEPS, Math.max(0, this.stepOf(this.clicked)));
    this.moved(true);
  }

  /** Focus nearer or farther by keys. */
  step(by) {
    this.clicked = null;
    this.focus.value += by * (STEPS / 50);
    this.moved(true, true);
  }

  startTilt() {
    this.plane = this.plane && !this.isTilting && this.plane.length < 3 ? null : [];
    this.isTilting = true;
    this.mark = null;
    this.show();
  }

  escape() {
    this.isTilting = false;
    this.plane = null;
    this.show();
    this.workspace.stage.changed();
  }

  moved(isReleased, isByFocus = false) {
    if (isByFocus) {
      this.plane = null;
      this.mark = null;
      this.clicked = null;
    }
    this.want({ ...this.settings, size: "draft" });
    clearTimeout(this.timer);
    if (isReleased) this.timer = setTimeout(() => this.want({ ...this.settings, size: "full" }), SETTLED_MS);
  }

  /**
   * One request at a time; the newest wish replaces an older one that has not been sent. A full
   * size that is on its way is given up, so that the draft follows at once.
   */
  async want(settings) {
    this.wanted = settings;
    if (this.sent) {
      if (this.sent.size === "full") this.sent.abort.abort();
      return;
    }
    this.status.textContent = "Rendering …";
    while (this.wanted) {
      const wanted = this.wanted;
      this.wanted = null;
      this.sent = { size: wanted.size, abort: new AbortController() };
      const { signal } = this.sent.abort;
      await attempt(async () => this.take(await api.refocused(this.workspace.job, wanted, signal), wanted));
    }
    this.sent = null;
    const { shown, picture } = this;
    this.status.textContent = shown?.size === "full"
      ? `Full size, ${picture.picture.width} × ${picture.picture.height} px` : "Draft";
  }

  async take(blob, settings) {
    const { result, layers } = this.workspace;
    const picture = await createImageBitmap(blob);
    this.shown = settings;
    const at = settings.plane ? "tilted" : depth(numberOf(settings.distance_m), result.unit);
    this.picture = new PictureLayer(
      { name: "refocused", title: `Refocused · ${at}`, short: `Sharp: ${at}`, width: result.width, height: result.height }, picture,
    );
    layers.add(this.picture);
    // The full size does not call back somebody who has gone on to another layer.
    if (settings.size === "draft" || this.workspace.active === "refocused") this.workspace.showRefocused();
  }

  async save() {
    const blob = await api.refocused(this.workspace.job, { ...this.settings, size: "full" });
    download(blob, `refocused.${blob.type === "image/png" ? "png" : "jpg"}`);
  }

  pullPart() {
    const { result } = this.workspace;
    const ends = result.range.map(numberOf);
    const said = (step) => depth(this.focusOf(step), result.unit);
    const from = slider("From", { min: 0, max: STEPS, step: 1, value: this.stepOf(ends[0]) }, said, () => {});
    const to = slider("To", { min: 0, max: STEPS, step: 1, value: this.stepOf(ends[1]) }, said, () => {});
    const make = (format) => api.film(this.workspace.job, "pull", {
      from: plain(this.focusOf(from.value)), to: plain(this.focusOf(to.value)), format, ...this.aperture,
    });
    return element("details", { class: "more" },
      element("summary", {}, "Focus pull"), from.node, to.node,
      filmButtons("focus-pull", make));
  }

  paint(context, view) {
    const points = this.plane ?? (this.mark ? [this.mark] : []);
    for (const point of points) {
      const [x, y] = view.toStage(...point);
      outlined(context, () => {
        context.beginPath();
        context.rect(x - 9, y - 9, 18, 18);
        context.stroke();
      }, "#ffb454", 2);
    }
    if (points.length > 1) {
      outlined(context, () => {
        context.beginPath();
        points.forEach((point) => context.lineTo(...view.toStage(...point)));
        if (points.length === 3) context.closePath();
        context.stroke();
      }, "#ffb454", 1);
    }
  }
}

const fNumber = (stops) => 2 ** (stops / 2);
