// A camera that orbits a point. It starts where the photographs were taken.

const MOST_PITCH = 1.5;

/** Angles and distance of the camera about its target; glTF axes, y up, first view along -z. */
export class Orbit {
  /** @param {number[]} target @param {number} distance of the first view, in the unit of the mesh */
  constructor(target, distance) {
    this.home = { target: [...target], distance };
    this.reset();
  }

  reset() {
    this.target = [...this.home.target];
    this.distance = this.home.distance;
    this.yaw = 0;
    this.pitch = 0;
  }

  turn(dx, dy) {
    this.yaw -= dx;
    this.pitch = Math.min(MOST_PITCH, Math.max(-MOST_PITCH, this.pitch + dy));
  }

  dolly(factor) {
    const { distance } = this.home;
    this.distance = Math.min(distance * 8, Math.max(distance / 40, this.distance * factor));
  }

  /** Move the target across the view, by shares of the distance. */
  pan(dx, dy) {
    const [right, up] = this.axes();
    for (let axis = 0; axis < 3; axis += 1) {
      this.target[axis] -= (right[axis] * dx - up[axis] * dy) * this.distance;
    }
  }

  /** Unit vectors right, up and back of the camera. */
  axes() {
    const [cy, sy, cp, sp] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    return [[cy, 0, -sy], [-sy * sp, cp, -cy * sp], [sy * cp, sp, cy * cp]];
  }

  /** World to camera, column by column. */
  get viewMatrix() {
    const axes = this.axes();
    const eye = this.target.map((value, axis) => value + axes[2][axis] * this.distance);
    const along = (axis) => -(axes[axis][0] * eye[0] + axes[axis][1] * eye[1] + axes[axis][2] * eye[2]);
    const [right, up, back] = axes;
    return [
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0,
      right[2], up[2], back[2], 0, along(0), along(1), along(2), 1,
    ];
  }
}

/** Perspective of a vertical angle of view [rad], column by column. */
export function perspective(angle, aspect, near, far) {
  const f = 1 / Math.tan(angle / 2);
  const depth = 1 / (near - far);
  return [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (near + far) * depth, -1, 0, 0, 2 * near * far * depth, 0];
}
