// The frames of a stack, one after the other: something to look at while the job waits or runs.

import * as api from "../api.js";
import { element, fill } from "../dom.js";

const SHOWN_MS = 900;

/** A picture that goes through the focus of the stack and back. */
export class FocusSweep {
  constructor(draft) {
    this.node = element("div", { class: "sweep", "aria-hidden": "true" });
    if (draft) this.start(draft);
  }

  async start(id) {
    const draft = await api.draft(id).catch(() => null);
    if (!draft || this.isClosed) return;
    const pictures = draft.frames.filter((frame) => !frame.left_out)
      .map(({ thumbnail }) => element("img", { src: thumbnail, alt: "" }));
    fill(this.node, ...pictures);
    const turns = [...pictures, ...pictures.slice(1, -1).reverse()];
    let turn = Math.floor(pictures.length / 2);
    turns[turn]?.classList.add("shown");
    if (pictures.length < 2 || window.matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    this.timer = setInterval(() => {
      turns[turn].classList.remove("shown");
      turn = (turn + 1) % turns.length;
      turns[turn].classList.add("shown");
    }, SHOWN_MS);
  }

  close() {
    this.isClosed = true;
    clearInterval(this.timer);
  }
}
