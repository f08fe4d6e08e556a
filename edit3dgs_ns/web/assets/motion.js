// What pose the head is in: the motion at a time, an expression that is held instead of the motion's, a neck that is.
"use strict";

const WIDTHS = { rotation: 3, neck_pose: 3, jaw_pose: 3, eyes_pose: 6, translation: 3 };
const FACE = ["expr", "jaw_pose", "eyes_pose"];
const GAZE = 0.5; // radians that an eye turns at eyeLook* 1

const ARKIT_NAMES = [
  "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
  "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft",
  "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
  "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
  "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
  "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
  "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
  "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
  "tongueOut",
];

const both = (name, amount) => ({ [`${name}Left`]: amount, [`${name}Right`]: amount });
const PRESETS = {
  Neutral: {},
  Smile: { ...both("mouthSmile", 0.8), ...both("cheekSquint", 0.4), ...both("eyeSquint", 0.2) },
  Surprise: { browInnerUp: 0.8, ...both("browOuterUp", 0.8), ...both("eyeWide", 0.7), jawOpen: 0.5 },
  Angry: { ...both("browDown", 1), ...both("noseSneer", 0.5), ...both("mouthFrown", 0.4), ...both("mouthPress", 0.4) },
  Sad: { browInnerUp: 0.9, ...both("mouthFrown", 0.7), mouthShrugLower: 0.3 },
  Kiss: { mouthPucker: 1 },
  Wink: { eyeBlinkLeft: 1, cheekSquintLeft: 0.5, mouthSmileLeft: 0.5 },
};

class PoseSource {
  constructor(avatar) {
    this._arrays = avatar.arrays;
    this.names = avatar.names;
    this.frames = avatar.arrays.translation.shape[0];
    this.coefficients = avatar.arrays.directions.shape[0];
    this.hasActions = avatar.arrays.action_expr.shape[0] === ARKIT_NAMES.length;
    this.face = null; // { expr, jaw_pose, eyes_pose } that is held
    this.neck = null; // [x, y, z] that is held
  }

  // What the head does at a time, in frames.
  at(time) {
    const pose = this.played(time);
    if (this.face) Object.assign(pose, this.face);
    if (this.neck) pose.neck_pose = this.neck;
    return pose;
  }

  // The motion; between two frames, expression and translation move straight and rotations along the great arc.
  played(time) {
    const place = Math.min(Math.max(time, 0), this.frames - 1);
    const first = Math.floor(place);
    const second = Math.min(first + 1, this.frames - 1);
    const share = place - first;
    const pose = {};
    for (const [name, width] of Object.entries({ expr: this.coefficients, ...WIDTHS })) {
      const a = this._row(name, first, width);
      if (share < 1e-3 || first === second) pose[name] = a;
      else pose[name] = between(name, a, this._row(name, second, width), share);
    }
    return pose;
  }

  _row(name, frame, width) {
    return Array.from(this._arrays[name].values.subarray(frame * width, (frame + 1) * width));
  }

  // Holds the expression that is shown at a time, so that it can be changed.
  holdFace(time) {
    const pose = this.at(time);
    this.face ??= Object.fromEntries(FACE.map((name) => [name, [...pose[name]]]));
  }

  holdNeck(time) {
    this.neck ??= [...this.at(time).neck_pose];
  }

  release() {
    this.face = null;
    this.neck = null;
  }

  // The face that ARKit's coefficients stand for, as edit3dgs_ns/flame/arkit.py has it.
  fromActions(amounts) {
    const face = { expr: new Array(this.coefficients).fill(0), jaw_pose: [0, 0, 0], eyes_pose: [0, 0, 0, 0, 0, 0] };
    const { action_expr, action_jaw } = this._arrays;
    ARKIT_NAMES.forEach((name, row) => {
      const amount = Math.min(Math.max(Number(amounts[name]) || 0, 0), 1);
      if (!amount || !this.hasActions) return;
      for (let e = 0; e < this.coefficients; e++) face.expr[e] += amount * action_expr.values[row * this.coefficients + e];
      for (let i = 0; i < 3; i++) face.jaw_pose[i] += amount * action_jaw.values[3 * row + i];
    });
    const look = (way) => Math.min(Math.max(Number(amounts[`eyeLook${way}`]) || 0, 0), 1);
    [["Left", 1, 0], ["Right", -1, 3]].forEach(([side, outward, first]) => {
      face.eyes_pose[first] = GAZE * (look(`Down${side}`) - look(`Up${side}`));
      face.eyes_pose[first + 1] = GAZE * outward * (look(`Out${side}`) - look(`In${side}`));
    });
    return face;
  }

  // The face of an address's `expression=`: a preset, or `jawOpen:0.5,mouthSmileLeft`; also `expression_3:1.5`. Null where
  // nothing in it is known.
  fromWords(words) {
    const preset = Object.keys(PRESETS).find((name) => name.toLowerCase() === words.trim().toLowerCase());
    if (preset && this.hasActions) return this.fromActions(PRESETS[preset]);
    const amounts = {};
    const units = [];
    for (const word of words.split(",")) {
      const [name, value] = word.trim().split(":");
      const amount = value === undefined ? 1 : Number(value);
      const action = ARKIT_NAMES.find((known) => known.toLowerCase() === name.toLowerCase());
      const number = /^expression_(\d+)$/i.exec(name);
      if (!Number.isFinite(amount)) continue;
      if (action && this.hasActions) amounts[action] = amount;
      else if (number && Number(number[1]) < this.coefficients) units.push([Number(number[1]), amount]);
    }
    if (!units.length && !Object.keys(amounts).length) return null;
    const face = this.fromActions(amounts);
    for (const [place, amount] of units) face.expr[place] += amount;
    return face;
  }
}

function between(name, a, b, share) {
  if (name === "expr" || name === "translation") return a.map((value, i) => value + share * (b[i] - value));
  const turns = [];
  for (let i = 0; i < a.length; i += 3) turns.push(...slerp(a.slice(i, i + 3), b.slice(i, i + 3), share));
  return turns;
}

// Shoemake 1985; axis-angle vectors.
function slerp(a, b, share) {
  const p = quaternionFrom(a);
  let q = quaternionFrom(b);
  let cosine = p.reduce((sum, value, i) => sum + value * q[i], 0);
  if (cosine < 0) [q, cosine] = [q.map((value) => -value), -cosine];
  const angle = Math.acos(Math.min(cosine, 1));
  const [u, v] = angle < 1e-6
    ? [1 - share, share]
    : [Math.sin((1 - share) * angle) / Math.sin(angle), Math.sin(share * angle) / Math.sin(angle)];
  return axisAngleOf(p.map((value, i) => u * value + v * q[i]));
}
