// Reads the avatar that edit3dgs_ns/web/packing.py has packed: base64 of gzip of
//   uint32 length of the header | header (JSON) | the arrays, one after the other.
"use strict";

const KINDS = { int16: Int16Array, uint32: Uint32Array, float32: Float32Array };

// The bytes of base64 of gzip.
async function inflated(base64) {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function readAvatar(base64) {
  const data = await inflated(base64);
  const headerEnd = 4 + new DataView(data.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(data.subarray(4, headerEnd)));
  const arrays = {};
  let start = headerEnd;
  for (const entry of header.arrays) {
    const end = start + KINDS[entry.dtype].BYTES_PER_ELEMENT * entry.shape.reduce((a, b) => a * b, 1);
    arrays[entry.name] = { ...entry, values: decode(entry, data.subarray(start, end)) };
    start = end;
  }
  return { ...header, arrays };
}

// The bytes of an array lie in planes: all lowest bytes first, the highest ones last; that packs better.
function decode(entry, planes) {
  const Kind = KINDS[entry.dtype];
  const size = Kind.BYTES_PER_ELEMENT;
  const count = planes.length / size;
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0; plane < size; plane++) {
    for (let i = 0; i < count; i++) bytes[i * size + plane] = planes[plane * count + i];
  }
  return new Kind(bytes.buffer);
}

// The numbers that an array stands for.
function numbers({ values, step }) {
  return step === 1 && values instanceof Float32Array ? values : Float32Array.from(values, (value) => value * step);
}
