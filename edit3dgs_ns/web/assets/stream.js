// ARKit's coefficients from outside, live: by postMessage from a page that embeds this one, or from a WebSocket.
//
// A message is {"type": "edit3dgs", "coefficients": {"jawOpen": 0.4, ...}, "head": {"pitch": 5, "yaw": -10, "roll": 0}}, an object
// for postMessage and JSON text for a WebSocket. Amounts are 0 to 1 and what is not named is 0; "head" (degrees; pitch down, yaw to
// the head's left, roll to its right shoulder) may be left out, and so may "type" in a WebSocket. {"release": true} gives the
// face back to the motion. Nothing but numbers is read.
"use strict";

const AGAIN = 2000; // milliseconds until a WebSocket is tried again

class Stream {
  constructor(player) {
    this._player = player;
    this._began = false;
    addEventListener("message", ({ data }) => { if (data?.type === "edit3dgs") this.take(data); });
    if (window.parent !== window) window.parent.postMessage({ type: "edit3dgs-ready", actions: ARKIT_NAMES }, "*");
  }

  take(message) {
    const { source } = this._player;
    if (message?.release === true) {
      source.release();
      this._began = false;
      this._player.show();
      return;
    }
    const amounts = coefficientsOf(message?.coefficients);
    const neck = neckOf(message?.head);
    if (!amounts && !neck) return;
    if (!this._began) this._player.play(false);
    this._began = true;
    this._player.show({ face: amounts ? source.fromActions(amounts) : undefined, neck: neck ?? undefined });
  }

  connect(address) {
    let socket;
    try {
      socket = new WebSocket(address);
    } catch (error) { // a page from https may not ask ws: on another machine
      notice(`The stream ${address} cannot be opened (${error?.message ?? error}).`);
      return;
    }
    socket.addEventListener("open", () => notice("Live."));
    socket.addEventListener("message", ({ data }) => {
      try {
        this.take(JSON.parse(data));
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        notice("A message of the stream is no JSON.");
      }
    });
    socket.addEventListener("close", () => setTimeout(() => this.connect(address), AGAIN));
  }
}

// By ARKit's names, from any spelling in use: eyeBlinkLeft, EyeBlinkLeft, eyeBlink_L. Null where there are none.
function coefficientsOf(given) {
  if (typeof given !== "object" || given === null) return null;
  const amounts = {};
  for (const [name, value] of Object.entries(given)) {
    const action = ACTION_BY_KEY.get(keyOf(name));
    if (action && Number.isFinite(value)) amounts[action] = value;
  }
  return Object.keys(amounts).length || !Object.keys(given).length ? amounts : null;
}

const keyOf = (name) => name.replace(/_L$/, "Left").replace(/_R$/, "Right").replace(/[_\s]/g, "").toLowerCase();
const ACTION_BY_KEY = new Map(ARKIT_NAMES.map((name) => [keyOf(name), name]));

// Axis-angle of yaw about y, then pitch about the turned x, then roll about the turned z.
function neckOf(head) {
  if (typeof head !== "object" || head === null) return null;
  const half = ["pitch", "yaw", "roll"].map((name) => (Number.isFinite(head[name]) ? head[name] : 0) * (Math.PI / 360));
  const [x, y, z] = half.map((angle, axis) => {
    const turn = [Math.cos(angle), 0, 0, 0];
    turn[axis + 1] = Math.sin(angle);
    return turn;
  });
  return axisAngleOf(product4(product4(y, x), z));
}

// Hamilton's product, wxyz.
function product4([a, b, c, d], [e, f, g, h]) {
  return [
    a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
    a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e,
  ];
}
