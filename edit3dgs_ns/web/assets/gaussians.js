// The avatar's Gaussians as a generator of the splat viewer (Spark): a shader that, for each Gaussian, reads its place in
// its triangle and the three corners of that triangle as they are now, and gives the Gaussian in the world.
//
// The formulas are those of edit3dgs_ns/splats: binding.py (triangle frames, from triangle to world), cpu_sh.py (colours),
// relighting.py (light on turning faces) and appearance.py (offsets that follow the expression).
"use strict";

// Drawn in centimetres: Spark sorts by depth + 100 in float32, which in metres would mix up what is closer than 8 micrometres.
const UNITS = 100;
const ROW = 2048; // texels in a row of a texture
const TEXELS = 5; // of a Gaussian's fixed numbers: mean and opacity, rotation, scales, corners, normal at rest

const POSING = `
ivec2 texelAt(int number) { return ivec2(number % ${ROW}, number / ${ROW}); }

vec3 corner(sampler2D vertices, float number) { return texelFetch(vertices, texelAt(int(number)), 0).xyz; }

// A collapsed triangle gives no NaN.
vec3 unit(vec3 v) { return v * inversesqrt(dot(v, v) + 1e-20); }

// world_from_face; columns: along the first edge, the normal, and the in-plane direction across them.
mat3 faceRotation(vec3 v0, vec3 v1, vec3 v2) {
  vec3 edge = unit(v1 - v0);
  vec3 normal = unit(cross(edge, v2 - v0));
  return mat3(edge, normal, -unit(cross(normal, edge)));
}

float faceSize(vec3 v0, vec3 v1, vec3 v2, vec3 across) {
  return 0.5 * (length(v1 - v0) + abs(dot(across, v2 - v0)));
}

// Shepperd: the largest of the four is never divided by something small. xyzw.
vec4 quaternionOf(mat3 m) {
  float xx = m[0][0], yy = m[1][1], zz = m[2][2];
  float x = m[1][2] - m[2][1], y = m[2][0] - m[0][2], z = m[0][1] - m[1][0];
  float xy = m[0][1] + m[1][0], xz = m[0][2] + m[2][0], yz = m[1][2] + m[2][1];
  vec4 diagonal = vec4(1.0 + xx - yy - zz, 1.0 - xx + yy - zz, 1.0 - xx - yy + zz, 1.0 + xx + yy + zz);
  float largest = max(max(diagonal.x, diagonal.y), max(diagonal.z, diagonal.w));
  if (diagonal.w == largest) return normalize(vec4(x, y, z, diagonal.w));
  if (diagonal.x == largest) return normalize(vec4(diagonal.x, xy, xz, x));
  if (diagonal.y == largest) return normalize(vec4(xy, diagonal.y, yz, y));
  return normalize(vec4(xz, yz, diagonal.z, z));
}

// The rotation b, then a. xyzw.
vec4 product(vec4 a, vec4 b) {
  return vec4(a.w * b.xyz + b.w * a.xyz + cross(a.xyz, b.xyz), a.w * b.w - dot(a.xyz, b.xyz));
}

// Linear and quadratic terms of a normal, times the avatar's light.
vec3 lightOn(vec3 n, sampler2D light) {
  vec3 sum = n.x * texelFetch(light, ivec2(0, 0), 0).rgb + n.y * texelFetch(light, ivec2(1, 0), 0).rgb;
  sum += n.z * texelFetch(light, ivec2(2, 0), 0).rgb + n.x * n.y * texelFetch(light, ivec2(3, 0), 0).rgb;
  sum += n.y * n.z * texelFetch(light, ivec2(4, 0), 0).rgb + n.x * n.z * texelFetch(light, ivec2(5, 0), 0).rgb;
  sum += (3.0 * n.z * n.z - 1.0) * texelFetch(light, ivec2(6, 0), 0).rgb;
  return sum + (n.x * n.x - n.y * n.y) * texelFetch(light, ivec2(7, 0), 0).rgb;
}

vec3 coefficient(sampler2D colors, int number) { return texelFetch(colors, texelAt(number), 0).rgb; }
`;

// The basis functions of degree 1, 2 and 3 at the unit direction d.
const HARMONICS = [
  "0.28209479177387814",
  "-0.4886025119029199 * d.y", "0.4886025119029199 * d.z", "-0.4886025119029199 * d.x",
  "1.0925484305920792 * d.x * d.y", "-1.0925484305920792 * d.y * d.z",
  "0.9461746957575601 * d.z * d.z - 0.31539156525252005",
  "-1.0925484305920792 * d.x * d.z", "0.5462742152960396 * (d.x * d.x - d.y * d.y)",
  "-0.5900435899266435 * d.y * (3.0 * d.x * d.x - d.y * d.y)", "2.890611442640554 * d.x * d.y * d.z",
  "0.4570457994644658 * d.y * (1.0 - 5.0 * d.z * d.z)", "0.3731763325901154 * d.z * (5.0 * d.z * d.z - 3.0)",
  "0.4570457994644658 * d.x * (1.0 - 5.0 * d.z * d.z)", "1.445305721320277 * d.z * (d.x * d.x - d.y * d.y)",
  "-0.5900435899266435 * d.x * (d.x * d.x - 3.0 * d.y * d.y)",
];

// The posed vertices as a texture, which the Gaussians before and after an edit share.
class HeadTexture {
  constructor(avatar) {
    this.rig = new HeadRig(avatar);
    this.texture = texture(new Float32Array(4 * this.rig.count), this.rig.count);
  }

  pose(pose) {
    this.rig.write(pose, this.texture.image.data, UNITS);
    this.texture.needsUpdate = true;
  }
}

class AvatarGaussians {
  // arrays: of the Gaussians, by the names of web/scene.py.
  constructor(arrays, faces, normals, head) {
    this.arrays = arrays;
    this.count = arrays.binding.shape[0];
    this.bases = arrays.colors.shape[1];
    this.rank = arrays.code_basis.shape[1];
    this._head = head;
    this._fixed = texture(fixedTexels(arrays, faces, normals), this.count * TEXELS);
    this._colors = texture(padded(numbers(arrays.colors)), this.count * this.bases);
    this._offsets = texture(padded(numbers(arrays.offsets)), Math.max(1, this.count * this.rank * 2));
    this._light = texture(padded(arrays.light.values), 8, 8);
    this._code = texture(new Float32Array(4 * Math.max(1, this.rank)), 1, Math.max(1, this.rank));
    this._eye = new Splats.dyno.DynoVec3({ value: new Splats.Vector3() });
    this.object = new Splats.SplatGenerator({ numSplats: this.count, generator: this._generator() });
    this.object.frustumCulled = false;
  }

  // The head's texture has been posed already.
  pose(pose) {
    const { code_mean, code_basis } = this.arrays;
    expressionCode(pose, code_mean, code_basis).forEach((value, k) => { this._code.image.data[4 * k] = value; });
    this._code.needsUpdate = true;
    this.object.updateVersion();
  }

  lookFrom(eye) {
    this._eye.value.copy(eye);
    this.object.updateVersion();
  }

  _generator() {
    const { dyno } = Splats;
    const sampler = (value) => new dyno.DynoSampler2D({ value });
    const gaussian = (index) => new dyno.Dyno({
      inTypes: {
        index: "int", fixed: "sampler2D", colors: "sampler2D", offsets: "sampler2D", light: "sampler2D",
        vertices: "sampler2D", code: "sampler2D", eye: "vec3",
      },
      outTypes: { gsplat: dyno.Gsplat },
      inputs: {
        index, fixed: sampler(this._fixed), colors: sampler(this._colors), offsets: sampler(this._offsets),
        light: sampler(this._light), vertices: sampler(this._head.texture), code: sampler(this._code), eye: this._eye,
      },
      globals: () => [dyno.defineGsplat, POSING],
      statements: ({ inputs, outputs }) => this._shader(inputs, outputs.gsplat).split("\n"),
    });
    return dyno.dynoBlock({ index: "int" }, { gsplat: dyno.Gsplat }, ({ index }) => ({ gsplat: gaussian(index).outputs.gsplat }));
  }

  _shader(on, result) {
    const harmonics = HARMONICS.slice(1, this.bases).map(
      (basis, k) => `color += (${basis}) * coefficient(${on.colors}, ${on.index} * ${this.bases} + ${k + 1});`);
    const follow = [];
    for (let k = 0; k < this.rank; k++) {
      const code = `texelFetch(${on.code}, ivec2(${k}, 0), 0).x`;
      const at = `${on.index} * ${2 * this.rank} + ${k}`;
      follow.push(`mean.xyz += ${code} * coefficient(${on.offsets}, ${at});`);
      follow.push(`base += ${code} * coefficient(${on.offsets}, ${at} + ${this.rank});`);
    }
    return `
      int first = ${on.index} * ${TEXELS};
      vec4 mean = texelFetch(${on.fixed}, texelAt(first), 0);
      vec4 rotation = texelFetch(${on.fixed}, texelAt(first + 1), 0);
      vec3 scales = texelFetch(${on.fixed}, texelAt(first + 2), 0).xyz;
      vec3 corners = texelFetch(${on.fixed}, texelAt(first + 3), 0).xyz;
      vec3 restNormal = texelFetch(${on.fixed}, texelAt(first + 4), 0).xyz;
      vec3 base = coefficient(${on.colors}, ${on.index} * ${this.bases});
      ${follow.join("\n")}
      vec3 v0 = corner(${on.vertices}, corners.x), v1 = corner(${on.vertices}, corners.y), v2 = corner(${on.vertices}, corners.z);
      mat3 face = faceRotation(v0, v1, v2);
      float size = faceSize(v0, v1, v2, face[2]);
      vec3 center = size * (face * mean.xyz) + (v0 + v1 + v2) / 3.0;
      vec3 d = normalize(center - ${on.eye});
      vec3 color = 0.5 + ${HARMONICS[0]} * base;
      ${harmonics.join("\n")}
      vec3 change = lightOn(face[1], ${on.light}) - lightOn(restNormal, ${on.light});
      ${result}.flags = GSPLAT_FLAG_ACTIVE;
      ${result}.index = ${on.index};
      ${result}.center = center;
      ${result}.scales = size * scales;
      ${result}.quaternion = normalize(product(quaternionOf(face), rotation));
      ${result}.rgba = vec4(max(color * exp(clamp(change, -2.0, 2.0)), 0.0), mean.w);`;
  }
}

// What a Gaussian keeps: TEXELS texels each.
function fixedTexels({ binding, means, quats, scales, opacities }, faces, normals) {
  const count = binding.shape[0];
  const data = new Float32Array(count * TEXELS * 4);
  for (let n = 0; n < count; n++) {
    const at = n * TEXELS * 4;
    const face = 3 * binding.values[n];
    for (let i = 0; i < 3; i++) {
      data[at + i] = means.values[3 * n + i] * means.step;
      data[at + 8 + i] = Math.exp(scales.values[3 * n + i] * scales.step);
      data[at + 12 + i] = faces.values[face + i];
      data[at + 16 + i] = normals.values[face + i] * normals.step;
    }
    data[at + 3] = opacities.values[n] * opacities.step;
    for (let i = 0; i < 4; i++) data[at + 4 + i] = quats.values[4 * n + ((i + 1) % 4)] * quats.step; // wxyz to xyzw
  }
  return data;
}

// Triples as texels of four.
function padded(triples) {
  const data = new Float32Array((triples.length / 3) * 4);
  for (let n = 0; n < triples.length / 3; n++) {
    for (let i = 0; i < 3; i++) data[4 * n + i] = triples[3 * n + i];
  }
  return data;
}

function texture(texels, count, width = ROW) {
  const height = Math.max(1, Math.ceil(count / width));
  const data = new Float32Array(width * height * 4);
  data.set(texels);
  const made = new Splats.DataTexture(data, width, height, Splats.RGBAFormat, Splats.FloatType);
  made.needsUpdate = true;
  return made;
}
