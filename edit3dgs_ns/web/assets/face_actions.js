// ARKit's coefficients and the head's rotation from MediaPipe's 478 landmarks of a face, by distances between them.
//
// A face is measured against itself at rest (`FaceMeter.calibrate`), in the head's own axes and in widths between the outer corners
// of the eyes: neither the camera's place nor the head's turn is taken for an expression. Axes as FLAME's: x to the subject's left, y
// up, z out of the face. "Left" and "right" are the subject's.
"use strict";

const EYES = {
  Left: { outer: 263, inner: 362, upper: 386, lower: 374, iris: 473, brow: 285, browOuter: 334, mouth: 291, outward: 1 },
  Right: { outer: 33, inner: 133, upper: 159, lower: 145, iris: 468, brow: 55, browOuter: 105, mouth: 61, outward: -1 },
};
const [FOREHEAD, CHIN, UPPER_LIP, LOWER_LIP, NOSE] = [10, 152, 13, 14, 1];
const REST_FRAMES = 8; // that a face at rest is the mean of
const SMOOTHING = 0.5; // share of the newest frame

// What full actions change, in widths between the outer corners of the eyes (about nine centimetres).
const FULL = { jaw: 0.32, smile: 0.075, frown: 0.06, browUp: 0.075, browDown: 0.045, gazeAside: 0.25, gazeUp: 0.13 };
const CORNERS_FOLLOW_JAW = 0.25; // of the mouth's opening

const limited = (value) => Math.min(Math.max(value, 0), 1);

class FaceMeter {
  constructor() {
    this._atRest = [];
    this._smooth = null;
  }

  calibrate() {
    this._atRest = [];
    this._smooth = null;
  }

  get ready() {
    return this._atRest.length >= REST_FRAMES;
  }

  // landmarks: x and y in shares of the image, z in shares of its width, towards the camera negative. Null until the face at rest
  // is known. Mirrored: the avatar does what a mirror shows.
  read(landmarks, width, height, mirrored = true) {
    const points = landmarks.map(({ x, y, z }) => [(mirrored ? 1 - x : x) * width, -y * height, -z * width]);
    const measured = measure(points, mirrored);
    if (!this.ready) {
      this._atRest.push(measured);
      if (this.ready) this._rest = meanOf(this._atRest);
      return null;
    }
    const now = this._smoothed(measured.values);
    return { coefficients: actionsOf(now, this._rest.values), neck: turnBetween(this._rest.rotation, measured.rotation) };
  }

  _smoothed(values) {
    this._smooth = Object.fromEntries(Object.entries(values).map(([name, value]) => {
      const before = this._smooth?.[name] ?? value;
      return [name, before + SMOOTHING * (value - before)];
    }));
    return this._smooth;
  }
}

// The head's rotation (row by row, camera_from_head) and distances in its axes.
function measure(points, mirrored) {
  // In a mirror, the subject's left eye is where the right one was.
  const sides = mirrored ? { Left: EYES.Right, Right: EYES.Left } : EYES;
  const across = minus(points[sides.Left.outer], points[sides.Right.outer]);
  const width = Math.hypot(...across);
  const x = across.map((value) => value / width);
  const z = unitOf(crossed(x, minus(points[FOREHEAD], points[CHIN])));
  const y = crossed(z, x);
  const local = (a, b) => {
    const d = minus(points[a], points[b]).map((value) => value / width);
    return [x, y, z].map((axis) => axis[0] * d[0] + axis[1] * d[1] + axis[2] * d[2]);
  };
  const values = { gap: -local(LOWER_LIP, UPPER_LIP)[1], mouth: Math.hypot(...local(sides.Left.mouth, sides.Right.mouth)) };
  for (const [side, at] of Object.entries(sides)) {
    const eye = Math.hypot(...local(at.outer, at.inner));
    values[`open${side}`] = Math.hypot(...local(at.upper, at.lower)) / eye;
    values[`corner${side}`] = local(at.mouth, NOSE)[1];
    values[`brow${side}`] = local(at.brow, at.inner)[1];
    values[`browOuter${side}`] = local(at.browOuter, at.outer)[1];
    const toOuter = local(at.iris, at.outer), toInner = local(at.iris, at.inner);
    values[`aside${side}`] = (toOuter[0] + toInner[0]) / 2 / eye;
    values[`up${side}`] = (toOuter[1] + toInner[1]) / 2 / eye;
  }
  const rotation = [0, 1, 2].flatMap((row) => [x[row], y[row], z[row]]);
  return { values, rotation };
}

function actionsOf(now, rest) {
  const change = (name) => now[name] - rest[name];
  const opening = change("gap");
  const amounts = {
    jawOpen: limited(opening / FULL.jaw),
    mouthPucker: limited((1 - now.mouth / rest.mouth) / 0.3),
    browInnerUp: limited((change("browLeft") + change("browRight")) / 2 / FULL.browUp),
  };
  for (const [side, outward] of [["Left", 1], ["Right", -1]]) {
    const open = now[`open${side}`] / rest[`open${side}`];
    const corner = change(`corner${side}`) + CORNERS_FOLLOW_JAW * Math.max(opening, 0);
    const out = (outward * change(`aside${side}`)) / FULL.gazeAside, up = change(`up${side}`) / FULL.gazeUp;
    Object.assign(amounts, {
      [`eyeBlink${side}`]: limited((1 - open) / 0.7),
      [`eyeWide${side}`]: limited((open - 1.1) / 0.4),
      [`mouthSmile${side}`]: limited(corner / FULL.smile),
      [`mouthFrown${side}`]: limited(-corner / FULL.frown),
      [`browDown${side}`]: limited(-change(`brow${side}`) / FULL.browDown),
      [`browOuterUp${side}`]: limited(change(`browOuter${side}`) / FULL.browUp),
      [`eyeLookOut${side}`]: limited(out),
      [`eyeLookIn${side}`]: limited(-out),
      [`eyeLookUp${side}`]: limited(up),
      [`eyeLookDown${side}`]: limited(-up),
    });
  }
  return amounts;
}

// Axis-angle of the rotation from one matrix to another, in the first one's axes.
function turnBetween(from, to) {
  const back = [0, 3, 6, 1, 4, 7, 2, 5, 8].map((place) => from[place]);
  const m = times(back, to);
  const cosine = Math.min(Math.max((m[0] + m[4] + m[8] - 1) / 2, -1), 1);
  const angle = Math.acos(cosine);
  const axis = [m[7] - m[5], m[2] - m[6], m[3] - m[1]];
  const length = Math.hypot(...axis);
  return length < 1e-9 ? [0, 0, 0] : axis.map((value) => (value * angle) / length);
}

function meanOf(measured) {
  const names = Object.keys(measured[0].values);
  const mean = (read) => measured.reduce((sum, one) => sum + read(one), 0) / measured.length;
  return {
    values: Object.fromEntries(names.map((name) => [name, mean((one) => one.values[name])])),
    rotation: measured[measured.length - 1].rotation,
  };
}

const minus = (a, b) => a.map((value, i) => value - b[i]);
const crossed = ([a, b, c], [d, e, f]) => [b * f - c * e, c * d - a * f, a * e - b * d];
const unitOf = (v) => v.map((value) => value / Math.hypot(...v));
