// The head: from a pose to vertices, as edit3dgs_ns/flame/model.py does it (FLAME's equations 1 to 4), and from a pose to
// the expression's code, as edit3dgs_ns/splats/motion_code.py does it.
//
// A pose has FlamePose's fields, as plain arrays: expr, rotation, neck_pose, jaw_pose, eyes_pose, translation. Metres, radians.
"use strict";

const RADIAN = 3.0; // a radian of a joint counts as so many units of expression
const CODE_LIMIT = 2.5;

class HeadRig {
  constructor(avatar) {
    const { rest, directions, correctives, weights, joints, joint_directions } = avatar.arrays;
    this.count = rest.shape[0];
    this.coefficients = directions.shape[0];
    this.parents = avatar.parents;
    this._rest = rest.values;
    this._directions = sparse(directions);
    this._correctives = sparse(correctives);
    this._weights = numbers(weights);
    this._joints = joints.values;
    this._jointDirections = joint_directions.values;
    this._expressed = new Float32Array(3 * this.count);
  }

  // How far each expression coefficient moves the vertex that it moves most, metres per unit.
  reach() {
    return this._directions.map(({ places, values }) => {
      const squares = new Map();
      places.forEach((place, n) => {
        const vertex = Math.floor(place / 3);
        squares.set(vertex, (squares.get(vertex) ?? 0) + values[n] ** 2);
      });
      let most = 0;
      for (const square of squares.values()) most = Math.max(most, square);
      return Math.sqrt(most);
    });
  }

  // Writes x, y, z of every vertex, `factor` units to a metre, to places 4 apart.
  write(pose, out, factor = 1) {
    const moved = this._expressed;
    moved.set(this._rest);
    pose.expr.forEach((amount, e) => add(moved, this._directions[e], amount));
    const rotations = jointRotations(pose);
    if (this._correctives.length) {
      rotations.slice(1).flatMap((rotation) => rotation.map((entry, i) => entry - (i % 4 === 0 ? 1 : 0)))
        .forEach((amount, entry) => add(moved, this._correctives[entry], amount));
    }
    this._skin(moved, this._chain(rotations, pose), pose.translation, out, factor);
  }

  // Rest-to-posed transform of each joint, 12 numbers: rows of the rotation, then the translation.
  _chain(rotations, pose) {
    const joints = Float64Array.from(this._joints);
    pose.expr.forEach((amount, e) => {
      if (amount) for (let i = 0; i < joints.length; i++) joints[i] += amount * this._jointDirections[e * joints.length + i];
    });
    const worlds = [];
    const places = [];
    this.parents.forEach((parent, j) => {
      const place = Array.from(joints.subarray(3 * j, 3 * j + 3));
      if (parent < 0) {
        worlds.push(rotations[j]);
        places.push(place);
        return;
      }
      const fromParent = place.map((value, i) => value - joints[3 * parent + i]);
      places.push(turned(worlds[parent], fromParent).map((value, i) => value + places[parent][i]));
      worlds.push(times(worlds[parent], rotations[j]));
    });
    return worlds.map((rotation, j) => {
      const back = turned(rotation, Array.from(joints.subarray(3 * j, 3 * j + 3)));
      return [...rotation, ...places[j].map((value, i) => value - back[i])];
    });
  }

  _skin(vertices, transforms, translation, out, factor) {
    const joints = transforms.length;
    const blended = new Float64Array(12);
    for (let v = 0; v < this.count; v++) {
      blended.fill(0);
      for (let j = 0; j < joints; j++) {
        const weight = this._weights[v * joints + j];
        if (weight) for (let i = 0; i < 12; i++) blended[i] += weight * transforms[j][i];
      }
      const x = vertices[3 * v], y = vertices[3 * v + 1], z = vertices[3 * v + 2];
      for (let i = 0; i < 3; i++) {
        const at = blended[3 * i] * x + blended[3 * i + 1] * y + blended[3 * i + 2] * z + blended[9 + i];
        out[4 * v + i] = factor * (at + translation[i]);
      }
    }
  }
}

// The code of a pose, softly limited.
function expressionCode(pose, mean, basis) {
  const joints = [...pose.jaw_pose, ...pose.neck_pose, ...pose.eyes_pose];
  const features = [...pose.expr, ...joints.map((angle) => RADIAN * angle)];
  const rank = basis.shape[1];
  return Array.from({ length: rank }, (_, k) => {
    const sum = features.reduce((total, feature, f) => total + (feature - mean.values[f]) * basis.values[f * rank + k], 0);
    return CODE_LIMIT * Math.tanh(sum / CODE_LIMIT);
  });
}

// Of each row the numbers that are not 0, and their places: most expressions move a small part of the head.
function sparse({ values, shape, step }) {
  const width = shape.slice(1).reduce((a, b) => a * b, 1);
  return Array.from({ length: shape[0] }, (_, row) => {
    const whole = values.subarray(row * width, (row + 1) * width);
    const places = Uint32Array.from({ length: width }, (_, i) => i).filter((i) => whole[i] !== 0);
    return { places, values: Float32Array.from(places, (i) => whole[i] * step) };
  });
}

function add(sum, { places, values }, amount) {
  if (amount) for (let n = 0; n < places.length; n++) sum[places[n]] += amount * values[n];
}

function jointRotations({ rotation, neck_pose, jaw_pose, eyes_pose }) {
  const angles = [rotation, neck_pose, jaw_pose, eyes_pose.slice(0, 3), eyes_pose.slice(3)];
  return angles.map((axisAngle) => matrixOf(quaternionFrom(axisAngle)));
}

// wxyz of an axis-angle vector.
function quaternionFrom([x, y, z]) {
  const angle = Math.hypot(x, y, z);
  const share = angle < 1e-8 ? 0.5 : Math.sin(angle / 2) / angle;
  return [Math.cos(angle / 2), share * x, share * y, share * z];
}

function axisAngleOf([w, x, y, z]) {
  const sine = Math.hypot(x, y, z);
  const sign = w < 0 ? -1 : 1; // the shorter way round
  const share = sine < 1e-8 ? 2 * sign : (2 * Math.atan2(sine, sign * w) * sign) / sine;
  return [share * x, share * y, share * z];
}

// Row by row.
function matrixOf([w, x, y, z]) {
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ];
}

function times(a, b) {
  return Array.from({ length: 9 }, (_, n) => {
    const row = 3 * Math.floor(n / 3);
    return a[row] * b[n % 3] + a[row + 1] * b[3 + (n % 3)] + a[row + 2] * b[6 + (n % 3)];
  });
}

function turned(m, [x, y, z]) {
  return [0, 3, 6].map((row) => m[row] * x + m[row + 1] * y + m[row + 2] * z);
}
