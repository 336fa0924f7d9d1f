// Pictures that the stage paints: pyramids of tiles, and single pictures.

const TILE_PX = 512;
const MOST_TILES = 160;
const MOST_TRIES = 3;
const RETRY_MS = 1500;
const SHARP_FROM = 2; // device pixels per native pixel; from here on pixels stay squares

/** Loaded tiles of all layers, by address; the ones unused for longest are dropped. */
class TileStore {
  constructor() {
    this.tiles = new Map();
    this.waiting = new Set();
    this.failures = new Map();
  }

  /** The picture at an address if it is there; otherwise it is fetched, and `loaded` called. */
  take(url, loaded) {
    const tile = this.tiles.get(url);
    if (tile) {
      this.tiles.delete(url);
      this.tiles.set(url, tile);
      return tile.isReady ? tile.image : null;
    }
    const image = new Image();
    const entry = { image, isReady: false };
    this.tiles.set(url, entry);
    this.waiting.add(url);
    image.addEventListener("load", () => {
      entry.isReady = true;
      this.waiting.delete(url);
      loaded();
    });
    image.addEventListener("error", () => {
      this.waiting.delete(url);
      loaded();
      this.retryLater(url, loaded);
    });
    image.src = url;
    while (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
    return null;
  }

  /** Fetch a tile again after a while: the server may have been out of memory for a moment. */
  retryLater(url, loaded) {
    const failures = (this.failures.get(url) ?? 0) + 1;
    this.failures.set(url, failures);
    if (failures >= MOST_TRIES) return;
    setTimeout(() => {
      this.tiles.delete(url);
      loaded();
    }, RETRY_MS * failures);
  }

  /** The picture at an address, only if it is there. */
  peek(url) {
    const tile = this.tiles.get(url);
    return tile?.isReady ? tile.image : null;
  }

  get isIdle() {
    return this.waiting.size === 0;
  }
}

export const store = new TileStore();

/** A layer of the result, drawn from a pyramid of tiles. */
export class TiledLayer {
  /**
   * @param {object} about `{name, title, width, height, levels}`
   * @param {function(number, number, number): string} url address of a tile: level, x, y
   */
  constructor(about, url) {
    Object.assign(this, about);
    this.url = url;
    this.earlier = null; // the addresses before a change of colours, shown until the new ones are here
  }

  /** Change the addresses; the tiles of before stay until the new ones have come. */
  turn(url) {
    this.earlier = this.url;
    this.url = url;
  }

  /** Address of the picture of the whole layer. */
  get thumbnail() {
    return this.url(0, 0, 0);
  }

  draw(context, view, pixelRatio, changed) {
    const deepest = this.levels - 1;
    const wanted = deepest + Math.ceil(Math.log2(view.scale * pixelRatio) - 0.2);
    const level = Math.max(0, Math.min(deepest, wanted));
    const side = TILE_PX * 2 ** (deepest - level);
    const [x0, y0] = view.toImage(0, 0);
    const [x1, y1] = view.toImage(view.stageWidth, view.stageHeight);
    context.imageSmoothingEnabled = view.scale * pixelRatio < SHARP_FROM;
    context.imageSmoothingQuality = "high";
    const last = (size) => Math.ceil(size / side) - 1;
    for (let y = Math.max(0, Math.floor(y0 / side)); y <= Math.min(last(this.height), Math.floor(y1 / side)); y += 1) {
      for (let x = Math.max(0, Math.floor(x0 / side)); x <= Math.min(last(this.width), Math.floor(x1 / side)); x += 1) {
        this.drawTile(context, view, { level, x, y, side }, changed);
      }
    }
  }

  drawTile(context, view, { level, x, y, side }, changed) {
    const exact = store.take(this.url(level, x, y), changed);
    const area = [x * side, y * side, Math.min(side, this.width - x * side), Math.min(side, this.height - y * side)];
    if (exact) {
      paint(context, view, exact, [0, 0, exact.naturalWidth, exact.naturalHeight], area);
      return;
    }
    for (let up = 0; up <= level; up += 1) {
      const [parentX, parentY] = [x >> up, y >> up];
      const found = store.peek(this.url(level - up, parentX, parentY))
        ?? (this.earlier && store.peek(this.earlier(level - up, parentX, parentY)));
      if (found) {
        const parentSide = side * 2 ** up;
        const per = TILE_PX / parentSide;
        const from = [(area[0] - parentX * parentSide) * per, (area[1] - parentY * parentSide) * per, area[2] * per, area[3] * per];
        paint(context, view, found, from, area);
        return;
      }
    }
    if (level > 0) store.take(this.url(0, 0, 0), changed);
  }
}

/** A single picture laid over the whole image, such as a refocused one. */
export class PictureLayer {
  constructor(about, picture) {
    Object.assign(this, about);
    this.picture = picture;
  }

  draw(context, view, pixelRatio) {
    context.imageSmoothingEnabled = this.picture.width < this.width || view.scale * pixelRatio < SHARP_FROM;
    context.imageSmoothingQuality = "high";
    paint(context, view, this.picture, [0, 0, this.picture.width, this.picture.height], [0, 0, this.width, this.height]);
  }
}

/** Draw part of a picture onto native pixels, on whole device pixels so that no seams show. */
function paint(context, view, picture, from, [x, y, width, height]) {
  const [left, top] = view.toStage(x, y).map(Math.round);
  const [right, bottom] = view.toStage(x + width, y + height).map(Math.round);
  context.drawImage(picture, ...from, left, top, right - left, bottom - top);
}
