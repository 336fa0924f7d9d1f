// The 3-D view on the stage: canvas, pointers and keys.

import { element } from "../dom.js";
import { readGlb } from "./glb.js";
import { Orbit } from "./orbit.js";
import { Renderer } from "./renderer.js";

const SWAY = 0.09; // rad, of the slow movement before the first touch
const SWAY_S = 7;

/** A canvas that shows a mesh and lets it be turned. */
export class SceneView {
  constructor() {
    this.canvas = element("canvas", {
      class: "scene-canvas", tabindex: "0", role: "application",
      "aria-label": "3-D view. Arrow keys turn, Shift and arrow keys move, plus and minus come closer, 0 goes back.",
    });
    this.renderer = new Renderer(this.canvas);
    this.orbit = null;
    this.pointers = new Map();
    this.isSwaying = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.canvas);
    this.onTheme = () => this.changed();
    window.addEventListener("themechange", this.onTheme);
    this.watch();
  }

  close() {
    this.isClosed = true;
    this.observer.disconnect();
    window.removeEventListener("themechange", this.onTheme);
    this.renderer.close();
  }

  /** Show a GLB. The camera stays where it is unless this is the first one. */
  async load(buffer) {
    const mesh = await readGlb(buffer);
    if (this.isClosed) return;
    this.renderer.load(mesh);
    this.vertices = mesh.positions.count;
    if (!this.orbit) this.frame(mesh.positions.data);
    this.renderer.pointSize = this.spread;
    this.changed();
  }

  /** Place the camera where the photographs were taken, turning about the middle of the scene. */
  frame(positions) {
    const step = Math.max(1, Math.floor(positions.length / 3 / 4000)) * 3;
    const sample = [];
    for (let at = 0; at < positions.length; at += step) sample.push(at);
    const depths = sample.map((at) => -positions[at + 2]).sort((a, b) => a - b);
    const middle = depths[Math.floor(depths.length / 2)];
    const isSeenFromOrigin = depths[0] > 0;
    const steepest = (axis) => sample.map((at) => Math.abs(positions[at + axis] / positions[at + 2])).sort((a, b) => a - b);
    const extents = [0, 1].map((axis) => steepest(axis)[Math.floor(sample.length * 0.99)]);
    this.size = depths.at(-1) - depths[0] + Math.abs(middle);
    this.extents = extents;
    this.spread = 2.2 * Math.max(1, Math.sqrt(120_000 / (positions.length / 3)));
    if (isSeenFromOrigin) this.orbit = new Orbit([0, 0, -middle], middle);
    else this.frameBox(positions, sample, depths);
  }

  /** A mesh that is not seen from the origin, such as relative depth: look at all of it from the front. */
  frameBox(positions, sample, depths) {
    const range = (axis) => {
      const values = sample.map((at) => positions[at + axis]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [x, y] = [range(0), range(1)];
    const height = Math.max(y[1] - y[0], (x[1] - x[0]) * 0.75) || 1;
    const distance = height * 1.2;
    this.extents = [((x[1] - x[0]) / 2) / distance, ((y[1] - y[0]) / 2) / distance];
    this.size = height + depths.at(-1) - depths[0];
    this.orbit = new Orbit([(x[0] + x[1]) / 2, (y[0] + y[1]) / 2, -(depths[0] + depths.at(-1)) / 2], distance);
  }

  resize() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    this.changed();
  }

  changed() {
    if (this.isDue || this.isClosed) return;
    this.isDue = true;
    requestAnimationFrame((now) => {
      this.isDue = false;
      if (!this.isClosed) this.draw(now);
    });
  }

  draw(now) {
    if (!this.orbit) return;
    const aspect = this.canvas.width / this.canvas.height;
    // The whole picture fits at first, with a little room for turning.
    const tangent = Math.max(this.extents[1], this.extents[0] / aspect) * 1.06;
    this.renderer.angle = 2 * Math.atan(tangent);
    if (this.isSwaying) {
      const phase = ((now / 1000) * 2 * Math.PI) / SWAY_S;
      this.orbit.yaw = SWAY * Math.sin(phase);
      this.orbit.pitch = (SWAY / 3) * (1 - Math.cos(phase));
      this.changed();
    }
    this.renderer.draw(this.orbit, background(this.canvas), this.size);
  }

  touch() {
    this.isSwaying = false;
    this.changed();
  }

  reset() {
    this.orbit?.reset();
    this.touch();
  }

  watch() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.touch();
    });
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.orbit?.dolly(Math.exp(event.deltaY * 0.0012));
      this.touch();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.orbit) return;
    const now = [event.clientX, event.clientY];
    const [dx, dy] = [(now[0] - before[0]) / this.canvas.clientHeight, (now[1] - before[1]) / this.canvas.clientHeight];
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
      this.orbit.dolly(apart(before) / apart(now));
      this.orbit.pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 6) this.orbit.pan(dx, dy);
    else this.orbit.turn(dx * 2.5, dy * 2.5);
    this.pointers.set(event.pointerId, now);
    this.touch();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.orbit || event.ctrlKey || event.metaKey) return;
    const move = moves[event.key];
    if (move && event.shiftKey) this.orbit.pan(move[0] * 0.04, move[1] * 0.04);
    else if (move) this.orbit.turn(move[0] * 0.06, move[1] * 0.06);
    else if (event.key === "+" || event.key === "=") this.orbit.dolly(0.9);
    else if (event.key === "-") this.orbit.dolly(1 / 0.9);
    else if (event.key === "0") this.orbit.reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.touch();
  }
}

/** The colour behind the canvas, 0 to 1. */
function background(canvas) {
  const [r, g, b] = getComputedStyle(canvas.parentElement).backgroundColor.match(/[\d.]+/g).map(Number);
  return [r / 255, g / 255, b / 255];
}
