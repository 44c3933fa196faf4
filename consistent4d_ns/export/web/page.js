"use strict";
const $ = (id) => document.getElementById(id);
const setting = JSON.parse($("setting").textContent);
const { frames, fps } = setting;
const LEAST = 1e-3; // Of a frame: key times are stored as 32-bit floats, which may lie just behind the frame's own.
const MARGIN = 1.04; // Of the window around the object.
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const pictures = setting.pictures.map((data) => Object.assign(new Image(), { src: `data:image/webp;base64,${data}` }));
let at = 0; // Where we are in time, in frames; frame n is shown from n until n + 1.
let isPlaying = false;
let object = null; // The object in 3D, once it can be drawn.

// Time: one clock for the object, the input video and the slider.

function show(position) {
  at = Math.max(0, Math.min(frames - LEAST, position));
  const frame = Math.min(frames - 1, Math.floor(at + LEAST));
  const words = `frame ${frame + 1} of ${frames}`;
  $("time").value = Math.min(at, frames - 1);
  $("time").style.setProperty("--share", frames > 1 ? $("time").value / (frames - 1) : 0);
  $("time").setAttribute("aria-valuetext", words);
  $("now").value = `${(frame / fps).toFixed(2)} / ${(frames / fps).toFixed(2)} s`;
  $("now").title = words;
  if (document.body.dataset.frame !== String(frame)) {
    document.body.dataset.frame = frame;
    drawInput();
  }
  object?.pose(at);
}

function drawInput() {
  const picture = pictures[setting.shown[+document.body.dataset.frame]], film = $("film");
  if (!picture?.complete) return; // It is drawn once all are there; an object made from a prompt has none.
  const brush = film.getContext("2d");
  brush.clearRect(0, 0, film.width, film.height);
  brush.drawImage(picture, 0, 0, film.width, film.height);
}

function play(wanted) {
  isPlaying = wanted && frames > 1;
  if (isPlaying && at >= frames - 1 && !isLooping()) show(0);
  document.body.classList.toggle("playing", isPlaying);
  $("play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
}

function advance(seconds) {
  const next = at + seconds * fps * $("speed").value;
  if (next < frames) return show(next);
  if (isLooping()) return show(next % frames);
  show(frames - 1);
  play(false);
}

function step(count) {
  play(false);
  show(Math.min(frames - 1, Math.floor(at + LEAST) + count));
}

function isLooping() {
  return $("loop").getAttribute("aria-pressed") === "true";
}

function toggle(button) {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
}

// The object, drawn by three.js.

async function unpacked(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let index = 0; index < bytes.length; index++) bytes[index] = letters.charCodeAt(index);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function open(file) {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("This browser offers no WebGL");
  const canvas = $("view"), start = setting.camera, distance = Math.hypot(...start);
  const renderer = new three.WebGLRenderer({ canvas, alpha: true, antialias: true });
  const { scene: model, animations } = await new three.GLTFLoader().parseAsync(file, "");
  const scene = new three.Scene(), camera = new three.PerspectiveCamera(50, 1, distance / 100, distance * 10);
  // Lights matter to meshes that were exported to be lit.
  scene.add(model, new three.HemisphereLight(0xffffff, 0x8a8a92, 2.2), camera);
  camera.add(new three.DirectionalLight(0xffffff, 1.6));
  const mixer = new three.AnimationMixer(model);
  const actions = animations.map((clip) => mixer.clipAction(clip).play());
  const nodes = [];
  model.traverse((node) => {
    nodes.push(node);
    if (node.material?.map) renderer.initTexture(node.material.map); // Or playing would falter the first time.
  });
  const tangents = tangentsOf(model, nodes, distance);
  const controls = new three.OrbitControls(camera, canvas);
  Object.assign(controls, { enablePan: false, enableDamping: true, dampingFactor: .08, autoRotateSpeed: 1.6 });
  Object.assign(controls, { minDistance: distance * .35, maxDistance: distance * 3 });
  let isStale = true;

  const self = {
    pose(position) {
      for (const action of actions) action.time = (position + LEAST) / fps;
      mixer.update(0);
      for (const node of nodes) node.visible = node.scale.x !== 0; // A frame that is not shown costs nothing.
      isStale = true;
    },
    draw(seconds) {
      controls.autoRotate = $("turn").getAttribute("aria-pressed") === "true";
      controls.update(seconds);
      if (!isStale) return;
      renderer.render(scene, camera);
      isStale = false;
    },
    turn(right, up) {
      const { x, y, z } = camera.position, length = camera.position.length();
      const polar = Math.max(.01, Math.min(Math.PI - .01, Math.acos(y / length) - up));
      camera.position.setFromSphericalCoords(length, polar, Math.atan2(x, z) + right);
    },
    zoom(factor) {
      camera.position.multiplyScalar(factor).clampLength(controls.minDistance, controls.maxDistance);
    },
    reset() {
      camera.position.fromArray(start);
    },
    resize() {
      const { clientWidth: width, clientHeight: height } = canvas.parentElement;
      if (!width || !height) return;
      renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
      renderer.setSize(width, height, false);
      // The object fills the window, whatever its shape, and fits while it turns.
      const tangent = MARGIN * Math.max(tangents.height, tangents.width * height / width);
      Object.assign(camera, { aspect: width / height, fov: Math.atan(tangent) * 360 / Math.PI });
      camera.updateProjectionMatrix();
      isStale = true;
    },
  };
  controls.addEventListener("change", () => { isStale = true; });
  controls.addEventListener("start", touched);
  new ResizeObserver(() => { self.resize(); self.draw(0); }).observe(canvas.parentElement);
  self.reset();
  self.resize();
  return self;
}

// Tangents of the angles at which the object is seen from a distance, at its largest while it moves and turns.
function tangentsOf(model, nodes, distance) {
  let [radius, height] = [0, 0];
  model.updateWorldMatrix(false, true);
  for (const node of nodes) {
    if (!node.geometry) continue;
    const box = boundsOf(node.geometry).applyMatrix4((node.scale.x ? node : node.parent).matrixWorld);
    radius = Math.max(radius, -box.min.x, box.max.x, -box.min.z, box.max.z);
    height = Math.max(height, -box.min.y, box.max.y);
  }
  radius = Math.min(radius, distance * .9);
  return { width: radius / Math.sqrt(distance ** 2 - radius ** 2), height: height / (distance - radius) };
}

// Of a geometry at all moments, in its own space; three.js would add up what they move.
function boundsOf(geometry) {
  const { position } = geometry.attributes, moves = geometry.morphAttributes.position ?? [];
  const box = geometry.boundingBox.clone().makeEmpty(), start = box.min.clone(), point = start.clone();
  for (let i = 0; i < position.count; i++) {
    box.expandByPoint(start.fromBufferAttribute(position, i));
    for (const move of moves) box.expandByPoint(point.fromBufferAttribute(move, i).add(start));
  }
  return box;
}

function touched() {
  $("turn").setAttribute("aria-pressed", "false");
  $("hint").classList.add("gone");
}

// Controls.

$("play").addEventListener("click", () => play(!isPlaying));
$("time").addEventListener("input", () => { play(false); show(+$("time").value); });
$("loop").addEventListener("click", () => toggle($("loop")));
$("turn").addEventListener("click", () => toggle($("turn")));
$("reset").addEventListener("click", () => { touched(); object?.reset(); });
$("help").addEventListener("click", () => $("about").showModal());
$("about").addEventListener("click", (event) => { if (event.target === $("about")) $("about").close(); });
$("theme").addEventListener("click", () => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
});

const KEYS = {
  " ": () => play(!isPlaying),
  Home: () => { play(false); show(0); },
  End: () => { play(false); show(frames - 1); },
  "+": () => { touched(); object?.zoom(.9); },
  "=": () => { touched(); object?.zoom(.9); },
  "-": () => { touched(); object?.zoom(1 / .9); },
  0: () => $("reset").click(),
  l: () => $("loop").click(),
  r: () => $("turn").click(),
  t: () => $("theme").click(),
  "?": () => $("help").click(),
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

document.addEventListener("keydown", (event) => {
  const { key, target } = event, arrow = ARROWS[key];
  if (event.altKey || event.ctrlKey || event.metaKey || $("about").open || target.closest("select")) return;
  if (key === " " && target.closest("button, a")) return;
  if (arrow && (event.shiftKey || target === $("view"))) {
    touched();
    object?.turn(arrow[0] * .12, arrow[1] * .12);
  } else if (arrow && (arrow[0] || target === $("time"))) step(arrow[0] + arrow[1]);
  else if (KEYS[key] ?? KEYS[key.toLowerCase()]) (KEYS[key] ?? KEYS[key.toLowerCase()])();
  else return;
  event.preventDefault();
});

let latest = performance.now();
function tick(now) {
  const seconds = Math.max(0, Math.min(.1, (now - latest) / 1000)); // After a pause of the page nothing jumps.
  latest = now;
  if (isPlaying) advance(seconds);
  object?.draw(seconds);
  requestAnimationFrame(tick);
}

function beStill() { // One frame: there is nothing to play.
  for (const id of ["time", "play", "loop", "speed"]) $(id).disabled = true;
  document.querySelector("footer").hidden = true;
  document.querySelector("figcaption").textContent = "Input image";
  $("film").setAttribute("aria-label", "Input image");
}

async function begin() {
  if (frames === 1) beStill();
  show(0);
  await Promise.all(pictures.map((picture) => picture.decode()));
  drawInput();
  try {
    const file = await unpacked($("model").textContent);
    $("download").href = URL.createObjectURL(new Blob([file], { type: "model/gltf-binary" }));
    object = await open(file);
    object.pose(at);
    object.draw(0);
    document.body.dataset.state = "ready";
  } catch (error) {
    document.body.dataset.state = "picture";
    $("fault").hidden = false;
    $("fault").textContent = `${error.message}, so this is a picture of the object. Open the page in another browser to turn it.`;
  }
  if (!isCalm) play(true); // From the input view, which is the best one: the turntable waits to be asked.
  requestAnimationFrame(tick);
}

begin();
