// The page of a generator: what is shown is a pure function of the state, and the state is in the address.
import { images, open, quicken, words as runtime } from "./engine.js";
import { latent, loadLatents, slerp } from "./latents.js";
import { about, model } from "./model.js";

const $ = (id) => document.getElementById(id);
const last = model.levels.length - 1;
let state, history = [], busy = false, wanted = false, walking = 0, slot = "a", shown = model.preview.count;

function moved(z) {
  const out = Float32Array.from(z);
  state.moves.forEach((amount, k) => {
    if (amount) model.directions[k].vector.forEach((v, i) => { out[i] += amount * v; });
  });
  return out;
}

function z() {
  return moved(slerp(latent(state.a), latent(state.b), state.share));
}

// --- showing ---------------------------------------------------------------------------------------------

function put(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// One picture is computed at a time; what is asked for meanwhile is asked once more at the end.
async function draw() {
  if (busy) { wanted = true; return; }
  busy = true;
  try {
    do {
      wanted = false;
      await ready;
      const begun = performance.now();
      const [picture] = await images([z()], state.label, state.level);
      put($("picture"), picture);
      $("message").textContent = "";
      // Who tests this page sees by these that a picture is there, and how long it took.
      document.body.dataset.drawn = 1 + Number(document.body.dataset.drawn ?? 0);
      document.body.dataset.milliseconds = (performance.now() - begun).toFixed(1);
    } while (wanted);
  } catch (error) {
    tell(error);
  } finally {
    busy = false;
  }
}

function tell(error) {
  console.error(error);
  $("message").textContent = `It does not work here: ${error.message}`;
}

// The pictures of the seeds, a few at a time, so that the large one is not kept waiting.
let gridRun = 0;
async function drawGrid() {
  const run = ++gridRun, buttons = [...$("grid").children];
  await ready;
  // Where a picture takes long, the large one is not to wait for several.
  const step = Number(document.body.dataset.milliseconds) > 30 ? 1 : 4;
  for (let i = 0; i < buttons.length; i += step) {
    const part = buttons.slice(i, i + step);
    const made = await images(part.map((button) => moved(latent(button.dataset.seed))), state.label, state.level);
    if (run !== gridRun) return;
    part.forEach((button, k) => put(button.querySelector("canvas"), made[k]));
  }
  const ends = await images([latent(state.a), latent(state.b)].map(moved), state.label, state.level);
  if (run !== gridRun) return;
  put($("slot-a").querySelector("canvas"), ends[0]);
  put($("slot-b").querySelector("canvas"), ends[1]);
}

// The pictures of a fresh page, which are there before the runtime is.
async function preview() {
  const sheet = new Image();
  sheet.src = "preview.webp";
  await sheet.decode();
  if (document.body.dataset.drawn || written() !== written(fresh())) return;
  const [height, width] = model.preview.size;
  const show = (canvas, i) => {
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").drawImage(sheet, i * width, 0, width, height, 0, 0, width, height);
  };
  [...$("grid").children].forEach((button, i) => show(button.querySelector("canvas"), i));
  [$("picture"), $("slot-a").querySelector("canvas")].forEach((canvas) => show(canvas, 0));
  show($("slot-b").querySelector("canvas"), 1);
  $("message").textContent = "";
  document.body.dataset.preview = "yes";
}

function sync() {
  $("share").value = state.share;
  $("level").value = state.level;
  $("size").textContent = model.levels[state.level].size.join("×");
  $("undo").disabled = !history.length;
  state.moves.forEach((amount, k) => set($("directions").children[k], amount));
  [...$("classes").children].forEach((chip, i) => chip.setAttribute("aria-pressed", pressed(i)));
  [...$("class-sliders").children].forEach((row, i) => set(row, state.label[i]));
  [...$("grid").children].forEach((button) =>
    button.setAttribute("aria-pressed", button.dataset.seed === state[slot]));
  $("slot-a").setAttribute("aria-pressed", slot === "a");
  $("slot-b").setAttribute("aria-pressed", slot === "b");
  $("which").textContent = words();
  tellAddress();
}

// Browsers take a new address some times a second, and a slider moves oftener.
let told = 0, telling = 0;
function tellAddress() {
  clearTimeout(telling);
  const write = () => { told = performance.now(); window.history.replaceState(null, "", `#${written()}`); };
  const rest = told + 100 - performance.now();
  if (rest <= 0) write();
  else telling = setTimeout(write, rest);
}

function pressed(i) {
  return state.label[i] === 1 && (model.form === "classes" || state.label.every((x, k) => k === i || x === 0));
}

function set(row, value) {
  row.querySelector("input").value = value;
  row.querySelector("output").textContent = (+value).toFixed(1);
}

function words() {
  const name = (seed) => (seed.startsWith("r") ? `random ${seed.slice(1)}` : `seed ${seed}`);
  const mix = state.share > 0 && state.a !== state.b
    ? `${name(state.a)} to ${name(state.b)}, ${Math.round(100 * state.share)}%` : name(state.a);
  const moves = model.directions.filter((_, k) => state.moves[k])
    .map((way) => `${way.name} ${state.moves[model.directions.indexOf(way)].toFixed(1)}`);
  return [mix, ...moves].join(" · ");
}

// --- the state -------------------------------------------------------------------------------------------

function fresh() {
  const label = new Array(model.labels).fill(0);
  if (model.labels) model.label.forEach((x, i) => { label[i] = x; });
  return { a: "0", b: "1", share: 0, level: last, label, moves: model.directions.map(() => 0) };
}

function written(of = state) {
  const short = (x) => String(+(+x).toFixed(3));
  const parts = [`a=${of.a}`, `b=${of.b}`, `t=${short(of.share)}`, `l=${of.level}`];
  if (model.labels) parts.push(`c=${of.label.map(short).join(",")}`);
  if (of.moves.some((x) => x)) parts.push(`d=${of.moves.map(short).join(",")}`);
  return parts.join("&");
}

function read(text) {
  const got = Object.fromEntries(new URLSearchParams(text)), made = fresh();
  const seed = (name) => /^r\d{1,10}$/.test(name ?? "") || (/^\d{1,6}$/.test(name ?? "") && +name < model.seeds);
  const within = (x, low, high) => Math.min(high, Math.max(low, Number.isFinite(+x) ? +x : 0));
  if (seed(got.a)) made.a = got.a;
  if (seed(got.b)) made.b = got.b;
  if (got.t) made.share = within(got.t, 0, 1);
  if (got.l) made.level = Math.round(within(got.l, 0, last));
  const list = (key, into, reach) => {
    const numbers = (got[key] ?? "").split(",");
    if (got[key] && numbers.length === into.length) numbers.forEach((x, i) => { into[i] = within(x, -reach, reach); });
  };
  list("c", made.label, 100);
  list("d", made.moves, 5);
  return made;
}

let changing = ""; // what a run of small changes is of, which undo takes back at once
function change(update, what = "") {
  if (!what || what !== changing) history.push(structuredClone(state));
  if (history.length > 200) history.shift();
  changing = what;
  update();
  sync();
  draw();
}

function settled() {
  changing = "";
  drawGrid().catch(tell);
}

function pick(seed) {
  change(() => { state[slot] = seed; state.share = slot === "a" ? 0 : 1; });
  settled();
}

// --- controls --------------------------------------------------------------------------------------------

function slider(name, min, max, onInput) {
  const row = document.createElement("label");
  const text = document.createElement("span"), input = document.createElement("input");
  text.textContent = text.title = name;
  Object.assign(input, { type: "range", min, max, step: 0.1, value: 0 });
  input.setAttribute("aria-label", name);
  input.addEventListener("input", () => onInput(+input.value));
  input.addEventListener("change", settled);
  input.addEventListener("dblclick", () => { input.value = 0; onInput(0); settled(); });
  row.append(text, input, document.createElement("output"));
  return row;
}

function seedButton(seed) {
  const button = document.createElement("button"), caption = document.createElement("span");
  button.dataset.seed = seed;
  caption.textContent = seed;
  button.setAttribute("aria-label", `Seed ${seed}`);
  button.append(document.createElement("canvas"), caption);
  button.addEventListener("click", () => pick(seed));
  return button;
}

function build() {
  document.title = about.title;
  $("title").textContent = about.title;
  $("subtitle").textContent = about.subtitle;
  for (const [name, value] of about.facts) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    $("about").append(term, text);
  }
  const [height, width] = model.levels[last].size;
  $("frame").style.aspectRatio = `${width} / ${height}`;
  $("level").max = last;
  $("growing").hidden = last === 0;
  $("moving").hidden = !model.directions.length;
  model.directions.forEach((way, k) => $("directions").append(slider(way.name, -5, 5, (x) =>
    change(() => { state.moves[k] = x; }, `direction ${k}`))));
  if (model.labels) buildLabels();
  for (let i = 0; i < Math.min(shown, model.seeds); i++) $("grid").append(seedButton(String(i)));
  $("more").hidden = shown >= model.seeds;
}

function buildLabels() {
  $("labels").hidden = false;
  const many = model.form === "vector";
  model.label_names.forEach((name, i) => {
    if (!many) {
      const chip = document.createElement("button");
      chip.textContent = name;
      chip.addEventListener("click", () => {
        change(() => {
          if (model.form === "classes") state.label[i] = state.label[i] ? 0 : 1;
          else state.label = state.label.map((_, k) => +(k === i));
        });
        settled();
      });
      $("classes").append(chip);
    }
    if (model.labels <= 60) $("class-sliders").append(slider(name, many ? -3 : 0, many ? 3 : 1, (x) =>
      change(() => { state.label[i] = x; }, `class ${i}`)));
  });
  $("blend").hidden = model.labels > 60;
  if (many) $("blend").open = true;
}

// A walk from A to B and back, in step with the clock.
function walk() {
  if (walking) { cancelAnimationFrame(walking); walking = 0; }
  else {
    history.push(structuredClone(state));
    const begun = performance.now(), from = state.share;
    const step = (now) => {
      const phase = ((now - begun) / 4000 + from / 2) % 1;
      state.share = phase < 0.5 ? 2 * phase : 2 - 2 * phase;
      sync();
      draw();
      walking = requestAnimationFrame(step);
    };
    walking = requestAnimationFrame(step);
  }
  $("walk").setAttribute("aria-pressed", walking !== 0);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The picture at its own size, or enlarged if it is small.
function enlarged(picture) {
  const factor = Math.max(1, Math.ceil(512 / Math.max(picture.width, picture.height)));
  const canvas = document.createElement("canvas");
  canvas.width = picture.width * factor;
  canvas.height = picture.height * factor;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function film() {
  const canvas = enlarged($("picture")), context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const type = ["video/webm;codecs=vp9", "video/webm", "video/mp4"].find((t) => MediaRecorder.isTypeSupported(t));
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 8e6 });
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const done = new Promise((go) => { recorder.onstop = go; });
  $("film").disabled = true;
  recorder.start();
  const frames = 120, a = latent(state.a), b = latent(state.b);
  for (let i = 0; i <= frames; i++) {
    const begun = performance.now(), t = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / frames);
    const [picture] = await images([moved(slerp(a, b, t))], state.label, state.level);
    put($("picture"), picture);
    context.drawImage($("picture"), 0, 0, canvas.width, canvas.height);
    await new Promise((go) => setTimeout(go, Math.max(0, 1000 / 30 - (performance.now() - begun))));
  }
  recorder.stop();
  await done;
  $("film").disabled = false;
  download(new Blob(parts, { type }), `walk.${type.includes("mp4") ? "mp4" : "webm"}`);
  draw();
}

const actions = {
  random: () => pick(`r${Math.floor(Math.random() * 4294967295)}`),
  undo: () => {
    if (!history.length) return;
    state = history.pop();
    changing = "";
    sync();
    draw();
    drawGrid().catch(tell);
  },
  reset: () => { change(() => { state.moves.fill(0); state.share = 0; state.level = last; }); settled(); },
  walk,
  link: async () => {
    await navigator.clipboard?.writeText(location.href).catch(() => {});
    $("link").textContent = "Copied";
    setTimeout(() => { $("link").textContent = "Copy link"; }, 1500);
  },
  save: () => enlarged($("picture")).toBlob((blob) => download(blob, `${words().replace(/[^\w.-]+/g, "-")}.png`)),
  film: () => film().catch(tell),
};

function wire() {
  for (const name of Object.keys(actions)) $(name).addEventListener("click", actions[name]);
  for (const which of ["a", "b"]) {
    $(`slot-${which}`).addEventListener("click", () => choose(which));
  }
  $("share").addEventListener("input", () => change(() => { state.share = +$("share").value; }, "share"));
  $("share").addEventListener("change", () => { changing = ""; });
  $("level").addEventListener("input", () => change(() => { state.level = +$("level").value; }, "level"));
  $("level").addEventListener("change", settled);
  $("more").addEventListener("click", () => {
    const next = Math.min(shown + 24, model.seeds);
    for (; shown < next; shown++) $("grid").append(seedButton(String(shown)));
    $("more").hidden = shown >= model.seeds;
    sync();
    drawGrid().catch(tell);
  });
  addEventListener("hashchange", () => { state = read(location.hash.slice(1)); sync(); draw(); settled(); });
  addEventListener("keydown", keys);
  let left = 0;
  $("picture").addEventListener("touchstart", (event) => { left = event.touches[0].clientX; }, { passive: true });
  $("picture").addEventListener("touchend", (event) => {
    const way = event.changedTouches[0].clientX - left;
    if (Math.abs(way) > 40) neighbour(way < 0 ? 1 : -1);
  });
}

function choose(which) {
  slot = which;
  change(() => { state.share = which === "a" ? 0 : 1; });
  changing = "";
}

function neighbour(step) {
  const at = /^\d+$/.test(state[slot]) ? Number(state[slot]) : step > 0 ? -1 : model.seeds;
  pick(String(Math.min(model.seeds - 1, Math.max(0, at + step))));
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, summary")) return;
  const key = event.key.toLowerCase();
  const short = { r: "random", z: "undo", 0: "reset", l: "link", s: "save", f: "film" };
  if (short[key]) actions[short[key]]();
  else if (key === " " && !event.target.matches("button")) walk();
  else if (key === "arrowright" || key === "arrowdown") neighbour(1);
  else if (key === "arrowleft" || key === "arrowup") neighbour(-1);
  else if (key === "a" || key === "b") choose(key);
  else return;
  event.preventDefault();
}

state = read(location.hash.slice(1));
build();
wire();
sync();
const ready = Promise.all([loadLatents(), open(state.level)]);
preview().catch(() => {}); // a picture less, for a moment

async function start() {
  await ready;
  await draw();
  if (!document.body.dataset.preview || written() !== written(fresh())) await drawGrid();
  $("runtime").textContent = runtime();
  document.body.dataset.ready = "yes";
  await quicken([z()], state.label, last);
  $("runtime").textContent = runtime();
  document.body.dataset.runtime = runtime();
}
start().catch(tell);
