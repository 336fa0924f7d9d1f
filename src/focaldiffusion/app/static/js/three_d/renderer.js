// Draws a mesh with WebGL 2: textured triangles or coloured points, unlit or shaded.

import { perspective } from "./orbit.js";

const VERTEX = `#version 300 es
in vec3 position;
in vec2 uv;
in vec4 colour;
uniform mat4 view, projection;
uniform float pointSize, distance;
out vec2 place;
out vec4 tint;
out vec3 seen;
void main() {
  vec4 at = view * vec4(position, 1.0);
  gl_Position = projection * at;
  gl_PointSize = clamp(pointSize * distance / max(-at.z, 1e-9), 1.0, 24.0);
  place = uv;
  tint = colour;
  seen = at.xyz;
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
in vec4 tint;
in vec3 seen;
uniform sampler2D picture;
uniform bool hasPicture, isShaded;
out vec4 shown;
void main() {
  vec3 base = hasPicture ? texture(picture, place).rgb : tint.rgb;
  if (isShaded) {
    // Relief without colour: the normal of the triangle against a light beside the camera.
    vec3 normal = normalize(cross(dFdx(seen), dFdy(seen)));
    float light = max(0.0, dot(normal, normalize(vec3(-0.35, 0.55, 1.0))));
    base = vec3(0.82, 0.80, 0.77) * (0.18 + 0.82 * light);
  }
  shown = vec4(base, 1.0);
}`;

/** Whether the browser draws in 3-D at all. */
export function isSupported() {
  const gl = document.createElement("canvas").getContext("webgl2");
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(gl);
}

/** One mesh on one canvas. */
export class Renderer {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    this.gl = gl;
    this.canvas = canvas;
    this.program = program(gl);
    this.isShaded = false;
    this.angle = 0.8;
    this.count = 0;
  }

  /** Take a mesh as `readGlb` returns it. */
  load(mesh) {
    const { gl } = this;
    this.free();
    this.array = gl.createVertexArray();
    this.buffers = [];
    gl.bindVertexArray(this.array);
    this.attribute("position", mesh.positions);
    this.attribute("uv", mesh.uvs);
    this.attribute("colour", mesh.colours);
    this.isPoints = mesh.isPoints;
    this.count = (mesh.indices ?? mesh.positions).count;
    this.indexType = null;
    if (mesh.indices) {
      const indices = gl.createBuffer();
      this.buffers.push(indices);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, indices);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.indices.data, gl.STATIC_DRAW);
      this.indexType = mesh.indices.data instanceof Uint32Array ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT;
    }
    this.texture = mesh.texture ? texture(gl, mesh.texture) : null;
  }

  attribute(name, accessor) {
    const { gl } = this;
    const place = gl.getAttribLocation(this.program, name);
    if (place < 0) return;
    if (!accessor) {
      gl.vertexAttrib4f(place, 0.7, 0.7, 0.7, 1);
      return;
    }
    const types = [[Float32Array, gl.FLOAT], [Uint8Array, gl.UNSIGNED_BYTE], [Uint16Array, gl.UNSIGNED_SHORT]];
    const [, type] = types.find(([Type]) => accessor.data instanceof Type);
    const buffer = gl.createBuffer();
    this.buffers.push(buffer);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, accessor.data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, accessor.parts, type, type !== gl.FLOAT, 0, 0);
  }

  free() {
    const { gl } = this;
    this.buffers?.forEach((buffer) => gl.deleteBuffer(buffer));
    if (this.array) gl.deleteVertexArray(this.array);
    if (this.texture) gl.deleteTexture(this.texture);
    this.array = null;
    this.texture = null;
  }

  /** Give the memory of the graphics card back. */
  close() {
    this.free();
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  draw(orbit, background, size) {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!this.array) return;
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.program);
    gl.bindVertexArray(this.array);
    const set = (name) => gl.getUniformLocation(this.program, name);
    const far = orbit.distance + size * 4;
    gl.uniformMatrix4fv(set("view"), false, orbit.viewMatrix);
    gl.uniformMatrix4fv(set("projection"), false,
      perspective(this.angle, canvas.width / canvas.height, far / 5000, far));
    gl.uniform1f(set("pointSize"), this.pointSize * (canvas.height / 700));
    gl.uniform1f(set("distance"), orbit.home.distance);
    gl.uniform1i(set("hasPicture"), this.texture ? 1 : 0);
    gl.uniform1i(set("isShaded"), this.isShaded && !this.isPoints ? 1 : 0);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    const mode = this.isPoints ? gl.POINTS : gl.TRIANGLES;
    if (this.indexType) gl.drawElements(mode, this.count, this.indexType, 0);
    else gl.drawArrays(mode, 0, this.count);
  }
}

function program(gl) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

function texture(gl, bitmap) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  return made;
}
