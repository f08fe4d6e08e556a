// The visitor's own face moves the avatar's: camera -> MediaPipe's face landmarks -> ARKit's coefficients. All within the page.
"use strict";

const MOST_NECK = 0.6; // radians

class Webcam {
  constructor(player) {
    this._player = player;
    this._meter = new FaceMeter();
    this._mesh = null;
    this._runs = 0;
    byId("webcam").hidden = false;
    byId("webcam").addEventListener("click", () => this.toggle());
  }

  get on() {
    return byId("webcam").getAttribute("aria-pressed") === "true";
  }

  async toggle() {
    if (this.on) return this._stop();
    const number = ++this._runs;
    byId("webcam").setAttribute("aria-pressed", "true");
    try {
      const video = byId("video");
      if (!navigator.mediaDevices) throw new Error("browsers give one to pages from https or from this machine alone");
      const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
      if (number !== this._runs) { // switched off while the browser asked
        for (const track of camera.getTracks()) track.stop();
        return;
      }
      video.srcObject = camera;
      await video.play();
      if (number !== this._runs) return;
      video.hidden = false;
      notice("Loading the face tracker …");
      this._mesh ??= await loadFaceMesh((landmarks) => this._found(landmarks));
      if (number !== this._runs) return;
      this._meter.calibrate();
      notice("Look straight ahead for a moment.");
      this._player.play(false);
      while (number === this._runs && this.on) {
        await this._mesh.send({ image: video });
        await new Promise(requestAnimationFrame);
      }
    } catch (error) {
      if (number !== this._runs) return; // of a run that is over
      this._stop();
      const denied = error?.name === "NotAllowedError";
      notice(denied ? "The browser gives this page no camera." : `No camera, or no face tracker (${error?.message ?? error}).`);
    }
  }

  _stop() {
    this._runs += 1;
    byId("webcam").setAttribute("aria-pressed", "false");
    const video = byId("video");
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
    video.hidden = true;
    this._player.source.release();
    this._player.show();
  }

  _found(landmarks) {
    const video = byId("video");
    if (!this.on || !landmarks) return;
    const read = this._meter.read(landmarks, video.videoWidth, video.videoHeight);
    if (!read) return;
    byId("notice").hidden = true;
    const neck = read.neck.map((angle) => Math.min(Math.max(angle, -MOST_NECK), MOST_NECK));
    this._player.show({ face: this._player.source.fromActions(read.coefficients), neck });
  }
}

// MediaPipe's Face Mesh out of the page: its files under addresses of the page's own.
async function loadFaceMesh(found) {
  const addresses = {};
  for (const packed of document.querySelectorAll("script[data-file]")) {
    const type = packed.dataset.file.endsWith(".wasm") ? "application/wasm" : "text/javascript";
    addresses[packed.dataset.file] = URL.createObjectURL(new Blob([await inflated(packed.textContent.trim())], { type }));
  }
  const script = element("script", { src: addresses["face_mesh.js"] });
  await new Promise((resolve, reject) => {
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error("it does not start")));
    document.head.append(script);
  });
  const mesh = new FaceMesh({ locateFile: (name) => addresses[name.split("/").pop()] });
  // This release fails when confidences are set.
  mesh.setOptions({ maxNumFaces: 1, refineLandmarks: true });
  mesh.onResults(({ multiFaceLandmarks }) => found(multiFaceLandmarks?.[0]));
  return mesh;
}
