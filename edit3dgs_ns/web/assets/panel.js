// The panel: expressions at a touch, and sliders that show the pose and hold what they change.
"use strict";

const DEGREES = 180 / Math.PI;
const STRONGEST = 8; // sliders of expressions that are seen without opening the list

class Panel {
  constructor(player, avatar, reach) {
    this._player = player;
    this._sliders = [];
    this._presets(player.source);
    this._joints();
    this._expressions(avatar, reach);
    byId("hold").addEventListener("click", () => player.toggleHold());
  }

  _presets(source) {
    const row = byId("presets");
    row.hidden = !source.hasActions;
    for (const name of Object.keys(PRESETS)) {
      const button = element("button", { textContent: name, type: "button" });
      button.addEventListener("click", () => this._player.show({ face: source.fromWords(name), preset: name }));
      row.append(button);
    }
  }

  _joints() {
    const angle = (field, places) => ({
      get: (pose) => pose[field][places[0]] * DEGREES,
      set: (pose, value) => places.forEach((place) => { pose[field][place] = value / DEGREES; }),
    });
    const face = byId("face");
    this._slider(face, "Jaw", [-5, 30, 0.5], "face", angle("jaw_pose", [0]));
    this._slider(face, "Gaze to the side", [-35, 35, 0.5], "face", angle("eyes_pose", [1, 4]));
    this._slider(face, "Gaze down", [-25, 25, 0.5], "face", angle("eyes_pose", [0, 3]));
    const neck = byId("neck");
    this._slider(neck, "Turn", [-45, 45, 0.5], "neck", angle("neck_pose", [1]));
    this._slider(neck, "Nod", [-30, 30, 0.5], "neck", angle("neck_pose", [0]));
    this._slider(neck, "Tilt", [-30, 30, 0.5], "neck", angle("neck_pose", [2]));
  }

  // The strongest first: those that the motion uses most, by how far they move the face.
  _expressions(avatar, reach) {
    const { values } = avatar.arrays.expr;
    const count = reach.length;
    const low = new Array(count).fill(avatar.names ? 0 : -3);
    const high = new Array(count).fill(avatar.names ? 1 : 3);
    const used = new Array(count).fill(0);
    values.forEach((value, n) => {
      const e = n % count;
      used[e] = Math.max(used[e], Math.abs(value));
      low[e] = Math.min(low[e], value);
      high[e] = Math.max(high[e], value);
    });
    // A direction that the motion never uses moves nothing in it; among such, the larger come first.
    const strength = reach.map((r, e) => used[e] * r + 1e-6 * r);
    const order = [...strength.keys()].filter((e) => reach[e] > 0).sort((a, b) => strength[b] - strength[a]);
    order.forEach((e, rank) => {
      const place = byId(rank < STRONGEST ? "expressions" : "others");
      const name = avatar.names ? spoken(avatar.names[e]) : `Expression ${e}`;
      this._slider(place, name, [low[e], high[e], 0.01], "face", {
        get: (pose) => pose.expr[e],
        set: (pose, value) => { pose.expr[e] = value; },
      });
    });
    byId("more").hidden = order.length <= STRONGEST;
    byId("more").querySelector("summary").textContent = `${order.length - STRONGEST} more`;
    byId("more").addEventListener("toggle", () => this.update(true));
  }

  _slider(place, name, [min, max, step], group, { get, set }) {
    const label = element("label");
    const input = element("input", { type: "range", min, max, step, value: 0, ariaLabel: name });
    const output = element("output");
    label.append(element("span", { textContent: name }), input, output);
    place.append(label);
    const digits = step < 0.1 ? 2 : 0;
    const show = (value) => { output.textContent = value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"); };
    input.addEventListener("input", () => {
      this._player.change(group, (held) => set(held, Number(input.value)));
      show(Number(input.value));
    });
    this._sliders.push({
      element: label,
      refresh: (pose) => {
        if (document.activeElement === input && input.matches(":active")) return;
        const value = get(pose);
        input.value = value;
        show(value);
      },
    });
  }

  // Shows the pose; ten times a second is enough, and hidden sliders are left alone.
  update(now = false) {
    const time = performance.now();
    if (!now && time - (this._updated ?? 0) < 100) return;
    this._updated = time;
    if (byId("panel").hidden) return;
    const pose = this._player.pose();
    for (const slider of this._sliders) if (slider.element.offsetParent) slider.refresh(pose);
    const { face, neck } = this._player.source;
    const held = face !== null || neck !== null;
    byId("hold").textContent = held ? "Follow the motion again" : "Hold this expression";
    byId("hold").classList.toggle("on", held);
    for (const button of byId("presets").children) {
      button.setAttribute("aria-pressed", String(held && button.textContent === this._player.preset));
    }
  }
}

// mouthSmileLeft -> Mouth smile left
function spoken(name) {
  const words = name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`);
  return words[0].toUpperCase() + words.slice(1);
}

function element(kind, properties = {}) {
  return Object.assign(document.createElement(kind), properties);
}
