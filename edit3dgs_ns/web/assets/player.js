// The page: plays the motion, holds expressions, wipes between before and after, and tells it all to the controls.
"use strict";

const byId = (id) => document.getElementById(id);

class Player {
  constructor(avatar) {
    this.source = new PoseSource(avatar);
    this.fps = avatar.fps;
    this.time = 0; // in frames
    this.playing = false;
    this.preset = null;
    this._runs = 0;
    this.view = new View(avatar, byId("canvas"), byId("viewport"), () => this.pose());
    this.panel = new Panel(this, avatar, this.view.reach);
  }

  get frames() {
    return this.source.frames;
  }

  pose() {
    return this.source.at(this.time);
  }

  // Shows a time, in frames, or a held face or neck, and waits until it is drawn.
  async show({ time = this.time, face = undefined, neck = undefined, preset = null } = {}) {
    this.time = Math.min(Math.max(time, 0), this.frames - 1);
    if (face !== undefined) [this.source.face, this.preset] = [face, preset];
    if (neck !== undefined) this.source.neck = neck;
    byId("frame").value = Math.round(this.time);
    byId("number").textContent = `${Math.round(this.time) + 1} / ${this.frames}`;
    this.panel.update(face !== undefined || neck !== undefined || !this.playing);
    await this.view.redraw();
    document.body.dataset.drawn = Math.round(this.time);
  }

  // Changes a held "face" or "neck"; what was not held yet is held from now on.
  change(group, change) {
    this.source[group === "face" ? "holdFace" : "holdNeck"](this.time);
    change(group === "face" ? this.source.face : { neck_pose: this.source.neck });
    this.preset = null;
    return this.show();
  }

  toggleHold() {
    if (this.source.face || this.source.neck) this.source.release();
    else this.source.holdFace(this.time);
    this.preset = null;
    this.panel.update(true);
    return this.show();
  }

  play(on = true) {
    if (on === this.playing) return;
    this.playing = on;
    byId("play").classList.toggle("playing", on);
    byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
    byId("play").title = on ? "Pause (space)" : "Play (space)";
    if (on) this._run(++this._runs);
    else this.panel.update(true);
  }

  // Goes on until it is paused, at the motion's own pace: frames for which there is no time are left out.
  async _run(number) {
    let before = performance.now();
    while (this.playing && number === this._runs) {
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      const frames = ((now - before) / 1000) * this.fps * Number(byId("speed").value);
      before = now;
      await this.show({ time: (this.time + frames) % this.frames });
    }
  }

  step(frames) {
    this.play(false);
    return this.show({ time: Math.round(this.time) + frames });
  }

  // Share of the window, from the left, that shows the avatar before its edit.
  wipeTo(share) {
    this.view.wipe = Math.min(Math.max(share, 0), 1);
    byId("wipe").hidden = this.view.wipe === 0;
    byId("wipe").style.left = `${100 * this.view.wipe}%`;
    byId("wipe").setAttribute("aria-valuenow", Math.round(100 * this.view.wipe));
    byId("compare").setAttribute("aria-pressed", String(this.view.wipe > 0));
    return this.view.redraw();
  }

  async save() {
    const link = element("a", { href: URL.createObjectURL(await this.view.image()) });
    link.download = `${document.title.replace(/[^\p{L}\p{N}]+/gu, "_") || "avatar"}_${Math.round(this.time) + 1}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  togglePanel(open = byId("panel").hidden) {
    byId("panel").hidden = !open;
    byId("pose").setAttribute("aria-pressed", String(open));
    this.panel.update(true);
  }
}
