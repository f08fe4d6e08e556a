// The window: camera, what is drawn of the avatar after and before its edit, the wipe between both, and PNG images of it.
"use strict";

class View {
  // pose: gives the pose to draw, whenever something is drawn.
  constructor(avatar, canvas, place, pose) {
    this._avatar = avatar;
    this._place = place;
    this._pose = pose;
    this.wipe = 0; // share of the window, from the left, that shows the avatar before its edit
    this.drawings = 0;
    this._renderer = new Splats.WebGLRenderer({ canvas, antialias: false });
    this._renderer.setClearColor(new Splats.Color(1, 1, 1), 1);
    this._renderer.setScissorTest(true);
    this._head = new HeadTexture(avatar);
    this._after = this._layer("");
    this._before = null; // made when it is first shown
    this.hasBefore = "before_means" in avatar.arrays;
    this.camera = new Splats.PerspectiveCamera();
    this.camera.up.fromArray(avatar.camera.up); // before the controls: they turn about it
    this._controls = new Splats.OrbitControls(this.camera, canvas);
    this._controls.addEventListener("change", () => this.redraw());
    this.resetCamera();
    this._limit(avatar.camera.reach);
    this._resize();
    new ResizeObserver(() => this._resize()).observe(place);
  }

  get count() {
    return this._after.gaussians.count;
  }

  get reach() {
    return this._head.rig.reach();
  }

  _layer(prefix) {
    const { arrays, antialiased } = this._avatar;
    const own = Object.fromEntries(
      ["binding", "means", "quats", "scales", "opacities", "colors", "offsets", "code_mean", "code_basis", "light"]
        .map((name) => [name, arrays[prefix + name]]));
    const gaussians = new AvatarGaussians(own, arrays.faces, arrays.normals, this._head);
    const spark = new Splats.SparkRenderer({
      renderer: this._renderer,
      autoUpdate: false, // drawn when something has changed, always sorted for what is shown
      accumExtSplats: true,
      enableLod: false,
      sortRadial: false,
      maxStdDev: 3.0,
      minAlpha: 1 / 255,
      // 0.3 pixels^2 of blur; an avatar trained with anti-aliasing makes up for it in the opacity.
      preBlurAmount: antialiased ? 0.0 : 0.3,
      blurAmount: antialiased ? 0.3 : 0.0,
    });
    const scene = new Splats.Scene();
    scene.add(spark, gaussians.object);
    return { gaussians, spark, scene };
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
      const pose = this._pose();
      this._head.pose(pose);
      this.camera.updateMatrixWorld();
      const parts = this._parts();
      for (const { layer } of parts) {
        layer.gaussians.pose(pose);
        layer.gaussians.lookFrom(this.camera.position);
        await layer.spark.update({ scene: layer.scene, camera: this.camera });
      }
      for (const { layer, from, to } of parts) {
        this._renderer.setScissor(from, 0, to - from, this._height);
        this._renderer.render(layer.scene, this.camera);
      }
      this.drawings += 1;
      this._shot?.(this._renderer.domElement);
      this._shot = null;
    }
  }

  // What is drawn, and between which columns.
  _parts() {
    const cut = this.hasBefore ? Math.round(this._width * Math.min(Math.max(this.wipe, 0), 1)) : 0;
    const parts = [];
    if (cut > 0) parts.push({ layer: (this._before ??= this._layer("before_")), from: 0, to: cut });
    if (cut < this._width) parts.push({ layer: this._after, from: cut, to: this._width });
    return parts;
  }

  // A PNG file of the window.
  async image() {
    const blob = new Promise((resolve) => { this._shot = (canvas) => canvas.toBlob(resolve, "image/png"); });
    this.redraw();
    return blob;
  }

  resetCamera() {
    const view = this._avatar.camera;
    this.camera.position.fromArray(view.position).multiplyScalar(UNITS);
    this._controls.target.fromArray(view.target).multiplyScalar(UNITS);
    const distance = this.camera.position.distanceTo(this._controls.target);
    this.camera.near = distance / 100;
    this.camera.far = distance * 100;
    this._controls.minDistance = distance / 8;
    this._controls.maxDistance = distance * 8;
    this._controls.update();
    this.redraw();
  }

  // Turns the camera about its target, radians against the view from the front.
  lookFromSide(azimuth, elevation) {
    this.resetCamera();
    const { camera, _controls: { target } } = this;
    const up = camera.up.clone().normalize();
    const back = camera.position.clone().sub(target);
    const level = back.clone().addScaledVector(up, -back.dot(up)).normalize();
    const across = up.clone().cross(level);
    const height = Math.asin(back.dot(up) / back.length()) + elevation;
    const away = level.multiplyScalar(Math.cos(azimuth)).addScaledVector(across, Math.sin(azimuth)).multiplyScalar(Math.cos(height));
    camera.position.copy(target).addScaledVector(away.addScaledVector(up, Math.sin(height)), back.length());
    this._controls.update();
    return this.redraw();
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
    const { clientWidth: width, clientHeight: height } = this._place;
    if (!width || !height) return;
    [this._width, this._height] = [width, height];
    this._renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this._renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    const [across, up] = this._avatar.camera.tangents;
    this.camera.fov = (360 / Math.PI) * Math.atan(Math.max(up, across / this.camera.aspect));
    this.camera.updateProjectionMatrix();
    this.redraw();
  }
}
