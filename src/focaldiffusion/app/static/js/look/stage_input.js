// Mouse, pen, fingers and keys on the stage.

const CLICK_PX = 5; // a press that moves less is a click

/** Turns events of the canvas into moves of the view and into calls of the tool. */
export class StageInput {
  constructor(stage) {
    this.stage = stage;
    this.pointers = new Map();
    this.isPenDown = false; // of the keyboard
    const { canvas } = stage;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.up(event, true));
    canvas.addEventListener("pointerleave", () => !this.pointers.size && stage.tool.leave?.());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", (event) => this.doubleClick(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => {
      stage.crosshair = null;
      this.lift();
      stage.changed();
    });
  }

  place(event) {
    const box = this.stage.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    const { stage } = this;
    stage.canvas.setPointerCapture(event.pointerId);
    const at = this.place(event);
    this.pointers.set(event.pointerId, at);
    stage.crosshair = null;
    if (this.pointers.size === 2) {
      if (this.isDrawing) stage.tool.cancel?.();
      this.isDrawing = false;
      this.start = null;
      return;
    }
    this.start = { at, hasMoved: false };
    this.isDrawing = Boolean(stage.tool.press) && event.button === 0 && !event.shiftKey;
    if (this.isDrawing) stage.tool.press(stage.view.toImage(...at), event);
  }

  move(event) {
    const { stage } = this;
    const at = this.place(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      stage.tool.hover?.(stage.view.toImage(...at), event);
      return;
    }
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, at);
    else if (this.isDrawing) stage.tool.drag(stage.view.toImage(...at), event);
    else if (this.start) {
      const [x, y] = this.start.at;
      if (this.start.hasMoved || Math.hypot(at[0] - x, at[1] - y) > CLICK_PX) {
        this.start.hasMoved = true;
        stage.view.pan(at[0] - before[0], at[1] - before[1]);
        stage.changed();
      }
    }
    this.pointers.set(event.pointerId, at);
  }

  pinch(id, before, at) {
    const { view } = this.stage;
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, place]) => place);
    const distance = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
    view.zoom(distance(at) / distance(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    view.pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    this.stage.changed();
  }

  up(event, isCancelled = false) {
    const { stage, start } = this;
    const at = this.place(event);
    this.pointers.delete(event.pointerId);
    if (this.isDrawing) {
      this.isDrawing = false;
      if (isCancelled) stage.tool.cancel?.();
      else stage.tool.release(stage.view.toImage(...at), event);
    } else if (start && !start.hasMoved && !isCancelled && event.button === 0) {
      this.use(stage.view.toImage(...at), event);
    }
    this.start = null;
  }

  /** Use the tool at a native point, if the image is there. */
  use([x, y], event) {
    const { view, tool } = this.stage;
    if (x >= 0 && y >= 0 && x < view.width && y < view.height) tool.click?.([x, y], event);
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 20 : 1);
    // A pinch on a trackpad arrives as a wheel with Ctrl, in small steps.
    this.stage.view.zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0018)), ...this.place(event));
    this.stage.changed();
  }

  doubleClick(event) {
    const { stage } = this;
    if (stage.tool.click || stage.tool.press) return;
    if (stage.view.scale < 1) stage.view.zoom(1 / stage.view.scale, ...this.place(event));
    else stage.view.fit();
    stage.changed();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey) return;
    if (moves[event.key] && event.shiftKey) {
      const [dx, dy] = moves[event.key];
      this.stage.view.pan(-dx * 60, -dy * 60);
      this.stage.changed();
    } else if (moves[event.key]) this.moveCrosshair(moves[event.key], event.altKey, event);
    else if (event.key === "Enter" && this.stage.crosshair) this.press(event);
    else if (event.key === " " && this.stage.crosshair && this.stage.tool.press) this.togglePen(event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  moveCrosshair([dx, dy], isFine, event) {
    const { stage } = this;
    const { view } = stage;
    const step = isFine ? 1 : Math.max(1, Math.round(12 / view.scale));
    const [x, y] = stage.crosshair ?? view.toImage(view.stageWidth / 2, view.stageHeight / 2)
      .map((value) => Math.floor(value) + 0.5);
    const inside = (value, size) => Math.min(size - 0.5, Math.max(0.5, value));
    stage.crosshair = [inside(x + dx * step, view.width), inside(y + dy * step, view.height)];
    const [stageX, stageY] = view.toStage(...stage.crosshair);
    if (stageX < 20 || stageY < 20 || stageX > view.stageWidth - 20 || stageY > view.stageHeight - 20) {
      view.centre(...stage.crosshair);
    }
    if (this.isPenDown) stage.tool.drag(stage.crosshair, event);
    stage.tool.hover?.(stage.crosshair, event);
    stage.changed();
  }

  press(event) {
    const { stage } = this;
    if (stage.tool.press) {
      stage.tool.press(stage.crosshair, event);
      stage.tool.release(stage.crosshair, event);
    } else this.use(stage.crosshair, event);
  }

  togglePen(event) {
    if (this.isPenDown) this.lift();
    else {
      this.isPenDown = true;
      this.stage.tool.press(this.stage.crosshair, event);
    }
  }

  lift() {
    if (!this.isPenDown) return;
    this.isPenDown = false;
    this.stage.tool.release?.(this.stage.crosshair);
  }
}
