// The page: draws the avatar, lets the mouse move the camera and the controls move through the motion.
"use strict";

const byId = (id) => document.getElementById(id);

class Player {
  constructor(avatar) {
    this.gaussians = new AvatarGaussians(avatar);
    this.fps = avatar.fps;
    this.time = 0; // in frames
    this.playing = false;
    this._runs = 0;
    this._view = avatar.camera;
    this._renderer = new Splats.WebGLRenderer({ canvas: byId("canvas"), antialias: false });
    this._renderer.setClearColor(new Splats.Color(1, 1, 1), 1);
    this._scene = new Splats.Scene();
    this._spark = new Splats.SparkRenderer({
      renderer: this._renderer,
      autoUpdate: false, // drawn when something has changed, always sorted for what is shown
      accumExtSplats: true,
      enableLod: false,
      sortRadial: false,
      maxStdDev: 3.0,
      minAlpha: 1 / 255,
      // 0.3 pixels^2 of blur; an avatar trained with anti-aliasing makes up for it in the opacity.
      preBlurAmount: avatar.antialiased ? 0.0 : 0.3,
      blurAmount: avatar.antialiased ? 0.3 : 0.0,
    });
    this._scene.add(this._spark, this.gaussians.object);
    this._camera = new Splats.PerspectiveCamera();
    this._camera.up.fromArray(avatar.camera.up); // before the controls: they turn about it
    this._controls = new Splats.OrbitControls(this._camera, this._renderer.domElement);
    this._controls.addEventListener("change", () => this.redraw());
    this._resetCamera();
    this._limit(avatar.camera.reach);
    this._resize();
    new ResizeObserver(() => this._resize()).observe(byId("viewport"));
  }

  // Shows a time, in frames, and waits until it is drawn.
  async show(time) {
    const last = this.gaussians.frames - 1;
    this.time = Math.min(Math.max(time, 0), last);
    byId("frame").value = Math.round(this.time);
    byId("number").textContent = `${Math.round(this.time) + 1} / ${last + 1}`;
    this._moved = true;
    await this.redraw();
  }

  // One drawing at a time; what changes meanwhile is drawn next.
  redraw() {
    this._changed = true;
    this._drawing ??= this._draw().finally(() => { this._drawing = null; });
    return this._drawing;
  }

  async _draw() {
    while (this._changed) {
      await new Promise(requestAnimationFrame);
      this._changed = false;
      if (this._moved) this.gaussians.pose(this.time);
      this._moved = false;
      this._camera.updateMatrixWorld();
      this.gaussians.lookFrom(this._camera.position);
      await this._spark.update({ scene: this._scene, camera: this._camera });
      this._renderer.render(this._scene, this._camera);
    }
    document.body.dataset.drawn = Math.round(this.time);
  }

  play(on = true) {
    if (on === this.playing) return;
    this.playing = on;
    byId("play").classList.toggle("playing", on);
    byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
    byId("play").title = on ? "Pause (space)" : "Play (space)";
    if (on) this._run(++this._runs);
  }

  // Goes on until it is paused, at the motion's own pace: frames for which there is no time are left out.
  async _run(number) {
    let before = performance.now();
    while (this.playing && number === this._runs) {
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      const frames = ((now - before) / 1000) * this.fps * Number(byId("speed").value);
      before = now;
      await this.show((this.time + frames) % this.gaussians.frames);
    }
  }

  _resetCamera() {
    this._camera.position.fromArray(this._view.position).multiplyScalar(UNITS);
    this._controls.target.fromArray(this._view.target).multiplyScalar(UNITS);
    const distance = this._camera.position.distanceTo(this._controls.target);
    this._camera.near = distance / 100;
    this._camera.far = distance * 100;
    this._controls.minDistance = distance / 8;
    this._controls.maxDistance = distance * 8;
    this._controls.update();
    this.redraw();
  }

  // From further round the avatar has never been seen, and nobody should.
  _limit([aside, upwards]) {
    const controls = this._controls;
    const azimuth = controls.getAzimuthalAngle();
    const polar = controls.getPolarAngle();
    if (aside < Math.PI) [controls.minAzimuthAngle, controls.maxAzimuthAngle] = [azimuth - aside, azimuth + aside];
    controls.minPolarAngle = Math.max(polar - upwards, 0);
    controls.maxPolarAngle = Math.min(polar + upwards, Math.PI);
  }

  // All that the camera of the capture sees stays in the window, whatever its shape.
  _resize() {
    const { clientWidth: width, clientHeight: height } = byId("viewport");
    this._renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this._renderer.setSize(width, height, false);
    this._camera.aspect = width / height;
    const [across, up] = this._view.tangents;
    this._camera.fov = (360 / Math.PI) * Math.atan(Math.max(up, across / this._camera.aspect));
    this._camera.updateProjectionMatrix();
    this.redraw();
  }

  listen() {
    const frame = byId("frame");
    frame.max = this.gaussians.frames - 1;
    frame.addEventListener("input", () => { this.play(false); this.show(Number(frame.value)); });
    byId("play").addEventListener("click", () => this.play(!this.playing));
    byId("reset").addEventListener("click", () => this._resetCamera());
    document.addEventListener("keydown", (event) => {
      if (event.target.matches("select, button")) return; // they have keys of their own
      if (event.key === " ") this.play(!this.playing);
      else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
        this.play(false);
        this.show(Math.round(this.time) + (event.key === "ArrowRight" ? 1 : -1));
      } else return;
      event.preventDefault();
    });
    byId("controls").hidden = this.gaussians.frames < 2;
  }
}

function complain(error) {
  byId("message").textContent =
    `The avatar cannot be shown (${error?.message ?? error}). It needs a browser of 2023 or later, with WebGL 2 switched on.`;
  byId("message").hidden = false;
}

async function start() {
  const player = new Player(await readAvatar(byId("avatar").textContent.trim()));
  byId("avatar").remove();
  window.player = player;
  player.listen();
  await player.show(0);
  byId("message").hidden = true;
  player.play(!matchMedia("(prefers-reduced-motion: reduce)").matches && location.hash !== "#still");
}

window.addEventListener("error", (event) => complain(event.error ?? event.message));
window.addEventListener("unhandledrejection", (event) => complain(event.reason));
start();
