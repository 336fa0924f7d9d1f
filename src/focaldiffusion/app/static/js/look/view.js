// The view: which part of the image the stage shows. Native pixels to CSS pixels and back.

const MOST_CSS_PX_PER_PIXEL = 64;
const MARGIN_PX = 24;

/** Place of an image on the stage. `scale` is CSS pixels per native pixel. */
export class View {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.scale = 1;
    this.left = 0;
    this.top = 0;
    this.stageWidth = 1;
    this.stageHeight = 1;
    this.isFitted = true;
  }

  /** Native point (pixel centres at halves) of a point of the stage. */
  toImage(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  toStage(x, y) {
    return [x * this.scale + this.left, y * this.scale + this.top];
  }

  get fittedScale() {
    return Math.min(
      Math.max(1, this.stageWidth - 2 * MARGIN_PX) / this.width,
      Math.max(1, this.stageHeight - 2 * MARGIN_PX) / this.height,
    );
  }

  resize(stageWidth, stageHeight) {
    const [x, y] = this.toImage(this.stageWidth / 2, this.stageHeight / 2);
    this.stageWidth = stageWidth;
    this.stageHeight = stageHeight;
    if (this.isFitted) this.fit();
    else this.centre(x, y);
  }

  fit() {
    this.scale = this.fittedScale;
    this.isFitted = true;
    this.centre(this.width / 2, this.height / 2);
  }

  /** Show a native point in the middle of the stage. */
  centre(x, y) {
    this.left = this.stageWidth / 2 - x * this.scale;
    this.top = this.stageHeight / 2 - y * this.scale;
    this.hold();
  }

  /** Zoom by a factor, with one point of the stage held. */
  zoom(factor, x = this.stageWidth / 2, y = this.stageHeight / 2) {
    const least = Math.min(this.fittedScale, 1) / 2;
    const scale = Math.min(MOST_CSS_PX_PER_PIXEL, Math.max(least, this.scale * factor));
    const [imageX, imageY] = this.toImage(x, y);
    this.scale = scale;
    this.left = x - imageX * scale;
    this.top = y - imageY * scale;
    this.isFitted = false;
    this.hold();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.isFitted = false;
    this.hold();
  }

  /** Keep part of the image on the stage. */
  hold() {
    const margin = 80;
    const reach = (start, size, stage) => Math.min(stage - margin, Math.max(margin - size, start));
    this.left = reach(this.left, this.width * this.scale, this.stageWidth);
    this.top = reach(this.top, this.height * this.scale, this.stageHeight);
  }
}
