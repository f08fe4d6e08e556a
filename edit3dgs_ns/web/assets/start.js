// Connects mouse, keys and the page's address with the player, and starts it.
"use strict";

function connect(player) {
  const frame = byId("frame");
  frame.max = player.frames - 1;
  frame.addEventListener("input", () => { player.play(false); player.show({ time: Number(frame.value) }); });
  byId("play").addEventListener("click", () => player.play(!player.playing));
  byId("reset").addEventListener("click", () => player.view.resetCamera());
  byId("save").addEventListener("click", () => player.save());
  byId("pose").addEventListener("click", () => player.togglePanel());
  byId("compare").addEventListener("click", () => player.wipeTo(player.view.wipe > 0 ? 0 : 0.5));
  byId("compare").hidden = !player.view.hasBefore;
  for (const part of ["play", "frame", "number", "speed"]) byId(part).hidden = player.frames < 2;
  connectWipe(player, byId("wipe"));
  document.addEventListener("keydown", (event) => pressed(player, event));
}

function connectWipe(player, wipe) {
  wipe.addEventListener("pointerdown", (event) => { wipe.setPointerCapture(event.pointerId); event.preventDefault(); wipe.focus(); });
  wipe.addEventListener("pointermove", (event) => {
    if (!wipe.hasPointerCapture(event.pointerId)) return;
    const { left, width } = byId("viewport").getBoundingClientRect();
    player.wipeTo(Math.min(Math.max((event.clientX - left) / width, 0.01), 1));
  });
  wipe.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
    if (!way) return;
    player.wipeTo(Math.max(player.view.wipe + way, 0.01));
    event.preventDefault();
    event.stopPropagation();
  });
}

function pressed(player, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input[type=range], select") && event.key.startsWith("Arrow")) return; // keys of their own
  if (event.target.matches("button, summary, select") && (event.key === " " || event.key === "Enter")) return;
  const acts = {
    " ": () => player.play(!player.playing),
    ArrowRight: () => player.step(1),
    ArrowLeft: () => player.step(-1),
    b: () => player.view.hasBefore && player.wipeTo(player.view.wipe === 1 ? 0 : 1),
    w: () => player.view.hasBefore && player.wipeTo(player.view.wipe > 0 && player.view.wipe < 1 ? 0 : 0.5),
    h: () => player.toggleHold(),
    p: () => player.togglePanel(),
    r: () => player.view.resetCamera(),
    s: () => player.save(),
  };
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  act();
  event.preventDefault();
}

// What the address asks for: ?t=0.5 (from 0, the start of the motion, to 1), ?expression=smile or jawOpen:0.5,mouthSmileLeft,
// #still; the same after the hash.
function asked(player) {
  const words = new URLSearchParams(`${location.search.slice(1)}&${location.hash.slice(1)}`);
  const wish = { still: words.has("still"), first: {} };
  const time = Number.parseFloat(words.get("t"));
  if (Number.isFinite(time)) {
    wish.first.time = Math.min(Math.max(time, 0), 1) * (player.frames - 1);
    wish.still = true;
  }
  const expression = words.get("expression");
  const face = expression && player.source.fromWords(expression);
  if (face) Object.assign(wish.first, { face, preset: presetCalled(expression) });
  else if (expression) notice(`This avatar has no expression “${expression.slice(0, 80)}”.`);
  return wish;
}

function presetCalled(words) {
  return Object.keys(PRESETS).find((name) => name.toLowerCase() === words.trim().toLowerCase()) ?? null;
}

function notice(words) {
  byId("notice").textContent = words;
  byId("notice").hidden = false;
  setTimeout(() => { byId("notice").hidden = true; }, 8000);
}

function complain(error) {
  byId("message").textContent =
    `The avatar cannot be shown (${error?.message ?? error}). It needs a browser of 2023 or later, with WebGL 2 switched on.`;
  byId("message").hidden = false;
}

// The splat viewer, a script that is packed like the avatar.
async function loadViewer() {
  const code = await inflated(byId("viewer").textContent.trim());
  byId("viewer").remove();
  const script = element("script", { src: URL.createObjectURL(new Blob([code], { type: "text/javascript" })) });
  await new Promise((resolve, reject) => {
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error("the splat viewer does not start")));
    document.head.append(script);
  });
  URL.revokeObjectURL(script.src);
}

async function start() {
  const [avatar] = await Promise.all([readAvatar(byId("avatar").textContent.trim()), loadViewer()]);
  byId("avatar").remove();
  if (matchMedia("(min-width: 800px)").matches) byId("panel").hidden = false;
  const player = new Player(avatar);
  window.player = player;
  connect(player);
  player.togglePanel(!byId("panel").hidden);
  const wish = asked(player);
  await player.show(wish.first);
  byId("message").hidden = true;
  byId("poster").hidden = true;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  player.play(player.frames > 1 && !calm && !wish.still);
  player.stream = new Stream(player);
  if (document.querySelector("script[data-file]")) player.webcam = new Webcam(player);
  if (byId("stream")) player.stream.connect(byId("stream").content);
}

window.addEventListener("error", (event) => complain(event.error ?? event.message));
window.addEventListener("unhandledrejection", (event) => complain(event.reason));
start();
