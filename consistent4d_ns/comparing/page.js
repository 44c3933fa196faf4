"use strict";
const $ = (id) => document.getElementById(id);
const setting = JSON.parse($("setting").textContent);
const canvases = [...document.querySelectorAll("canvas")];
const film = document.createElement("video");
let wanted = null; // The picture to be shown, while the video is still on its way to an earlier one.

// Pictures: one video holds those of all runs, so that none can be out of step.

function load() {
  const bytes = Uint8Array.from(atob($("film").textContent), (letter) => letter.charCodeAt(0));
  Object.assign(film, { muted: true, loop: true, playsInline: true, preload: "auto" });
  film.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
}

function picture() {
  return Math.min(setting.frames - 1, Math.floor(film.currentTime * setting.fps + 1e-3));
}

function draw() {
  if (film.readyState < 2) return;
  for (const canvas of canvases) {
    const place = +canvas.dataset.place, { size, columns } = setting;
    const left = place % columns, top = Math.floor(place / columns);
    canvas.getContext("2d").drawImage(film, left * size, top * size, size, size, 0, 0, canvas.width, canvas.height);
  }
  tell(wanted ?? picture());
}

function tell(index) {
  const share = setting.frames > 1 ? index / (setting.frames - 1) : 0;
  const words = `${index + 1} of ${setting.frames}, t = ${share.toFixed(2)}`;
  if (document.activeElement !== $("time") || !film.paused) $("time").value = index;
  $("time").setAttribute("aria-valuetext", words);
  $("now").value = words;
  document.body.dataset.picture = index;
}

function show(index) {
  index = Math.max(0, Math.min(setting.frames - 1, index));
  $("time").value = index;
  const isUnderWay = wanted !== null;
  wanted = index;
  if (!isUnderWay) seek();
}

function seek() {
  film.currentTime = (wanted + 0.5) / setting.fps;
}

function follow() {
  if (film.paused) return;
  draw();
  film.requestVideoFrameCallback ? film.requestVideoFrameCallback(follow) : requestAnimationFrame(follow);
}

function resize() {
  $("cards").style.setProperty("--side", `${$("size").value}px`);
}

function toggle() {
  if (film.paused) film.play().catch(() => {}); else film.pause();
}

film.addEventListener("loadeddata", () => {
  for (const canvas of canvases) canvas.width = canvas.height = setting.size;
  show(0);
});
film.addEventListener("seeked", () => {
  const arrived = picture();
  if (wanted !== null && arrived !== wanted) return seek();
  wanted = null;
  draw();
  document.body.dataset.ready = "true";
});
film.addEventListener("play", () => { wanted = null; $("play").textContent = "Pause"; follow(); });
film.addEventListener("pause", () => { $("play").textContent = "Play"; show(picture()); });
film.addEventListener("error", () => {
  $("fault").hidden = false;
  $("fault").textContent = "This browser cannot decode H.264, in which the video of this page is. Open it in another browser.";
});
$("play").addEventListener("click", toggle);
$("time").addEventListener("input", () => { film.pause(); show(+$("time").value); });
$("speed").addEventListener("change", () => { film.defaultPlaybackRate = film.playbackRate = +$("speed").value; });
$("size").addEventListener("change", resize);
document.addEventListener("keydown", (event) => {
  const control = event.target.closest("input, select, button, .scroll");
  if (control || event.altKey || event.ctrlKey || event.metaKey) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === " ") toggle();
  else if (step) { film.pause(); show((wanted ?? picture()) + step); }
  else return;
  event.preventDefault();
});

// Tables and curves.

for (const button of document.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = $("figures").tBodies[0];
    const descending = head.getAttribute("aria-sort") !== "descending";
    for (const other of $("figures").querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = (row) => row.cells[head.cellIndex].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return descending ? -order : order;
    });
    body.append(...rows);
  });
}

function emphasise(run) {
  for (const curve of document.querySelectorAll("#charts .curve")) {
    curve.classList.toggle("dim", run !== null && curve.dataset.run !== run);
  }
}

const chosen = () => document.querySelector('.entry[aria-pressed="true"]')?.dataset.run ?? null;
for (const entry of document.querySelectorAll(".entry")) {
  entry.addEventListener("click", () => {
    const pressed = entry.getAttribute("aria-pressed") === "true";
    for (const other of document.querySelectorAll(".entry")) other.setAttribute("aria-pressed", "false");
    entry.setAttribute("aria-pressed", String(!pressed));
    emphasise(chosen());
  });
  entry.addEventListener("pointerenter", () => emphasise(entry.dataset.run));
  entry.addEventListener("pointerleave", () => emphasise(chosen()));
}

resize();
load();
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) film.addEventListener("loadeddata", () => film.play().catch(() => {}), { once: true });
