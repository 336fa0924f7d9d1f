// Reads a GLB of one primitive: points or triangles, with a texture or with colours.
// Format: glTF 2.0, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html

const MAGIC = 0x46546c67;
const JSON_CHUNK = 0x4e4f534a;
const ARRAYS = { 5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const PARTS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
const POINTS = 0;

/**
 * @param {ArrayBuffer} buffer
 * @returns {Promise<object>} `{positions, indices, uvs, colours, texture, isPoints}`; absent ones null
 */
export async function readGlb(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0, true) !== MAGIC) throw new Error("The surface that arrived is not a GLB file.");
  const jsonLength = view.getUint32(12, true);
  if (view.getUint32(16, true) !== JSON_CHUNK) throw new Error("The GLB file starts without its JSON.");
  const json = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, jsonLength)));
  const start = 20 + jsonLength + 8;

  const accessor = (index) => {
    if (index === undefined) return null;
    const { bufferView, byteOffset = 0, componentType, count, type } = json.accessors[index];
    const { byteOffset: from = 0, byteStride } = json.bufferViews[bufferView];
    const Type = ARRAYS[componentType];
    const parts = PARTS[type];
    const tight = parts * Type.BYTES_PER_ELEMENT;
    if (!byteStride || byteStride === tight) {
      return { data: aligned(buffer, Type, start + from + byteOffset, count * parts), parts, count };
    }
    const data = new Type(count * parts);
    for (let item = 0; item < count; item += 1) {
      data.set(aligned(buffer, Type, start + from + byteOffset + item * byteStride, parts), item * parts);
    }
    return { data, parts, count };
  };

  const [primitive] = json.meshes[0].primitives;
  const image = json.images?.[0];
  const texture = image ? await bitmap(buffer, start, json.bufferViews[image.bufferView], image.mimeType) : null;
  return {
    positions: accessor(primitive.attributes.POSITION),
    uvs: accessor(primitive.attributes.TEXCOORD_0),
    colours: accessor(primitive.attributes.COLOR_0),
    indices: accessor(primitive.indices),
    texture,
    isPoints: primitive.mode === POINTS,
  };
}

/** A typed array at any offset; one that is not aligned is copied. */
function aligned(buffer, Type, offset, length) {
  if (offset % Type.BYTES_PER_ELEMENT === 0) return new Type(buffer, offset, length);
  return new Type(buffer.slice(offset, offset + length * Type.BYTES_PER_ELEMENT));
}

function bitmap(buffer, start, { byteOffset = 0, byteLength }, type) {
  return createImageBitmap(new Blob([new Uint8Array(buffer, start + byteOffset, byteLength)], { type }));
}
