// Who computes the pictures: a worker that runs the generator by WASM, or on the GPU where that is quicker.
import { model } from "./model.js";

const SLOW = 25; // ms of a picture from which on a runtime for the GPU, which is larger, is worth its loading

export class Engine {
  constructor(runtime) {
    this.runtime = runtime;
    this.waiting = new Map();
    this.asked = 0;
    this.worker = new Worker("worker.js", { type: "module" });
    this.worker.onmessage = ({ data }) => {
      const { done, failed } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error === undefined) done(data.answer);
      else failed(new Error(data.error));
    };
    this.worker.onerror = (event) => this.waiting.forEach(({ failed }) => failed(new Error(event.message || "no worker")));
  }

  ask(what, of) {
    const id = this.asked++;
    return new Promise((done, failed) => {
      this.waiting.set(id, { done, failed });
      this.worker.postMessage({ id, what, of });
    });
  }

  async open(level) {
    this.threads = await this.ask("open", { runtime: this.runtime, level });
    return this;
  }

  // Images of latents (arrays) and one label for all: as ImageData.
  async images(latents, label, level) {
    const n = latents.length, z = new Float32Array(n * model.latent), labels = new Float32Array(n * model.labels);
    latents.forEach((row, i) => { z.set(row, i * model.latent); labels.set(label, i * model.labels); });
    const [height, width] = model.levels[level].size;
    const made = await this.ask("images", { n, z, labels, level });
    return made.map((bytes) => new ImageData(bytes, width, height));
  }

  // End it when what it was asked for is done.
  async close() {
    while (this.waiting.size) await new Promise((go) => setTimeout(go, 20));
    this.worker.terminate();
  }

  // Milliseconds of a picture, the least of a few.
  async time(...what) {
    const enough = performance.now() + 500;
    let least = Infinity;
    for (let i = 0; i < 4 && (i === 0 || performance.now() < enough); i++) {
      const begun = performance.now();
      await this.images(...what);
      least = Math.min(least, performance.now() - begun);
    }
    return least;
  }
}

let engine;

export const open = async (level) => { engine = await new Engine("wasm").open(level); };
export const images = (...what) => engine.images(...what);
export const words = () => (engine.runtime === "gpu" ? "the GPU (WebGPU)"
  : `WASM, ${engine.threads === 1 ? "one thread" : `${engine.threads} threads`}`);

// Go over to the GPU if pictures take long, there is one, and it makes the same pictures in less time.
export async function quicken(latents, label, level) {
  const before = await engine.time(latents, label, level);
  if (before < SLOW || !(await navigator.gpu?.requestAdapter())) return;
  const other = new Engine("gpu");
  let chosen = engine;
  try {
    await other.open(level);
    const [ours, theirs] = [await engine.images(latents, label, level), await other.images(latents, label, level)];
    const same = ours.every((one, k) => one.data.every((x, i) => Math.abs(x - theirs[k].data[i]) <= 2));
    if (same && (await other.time(latents, label, level)) < before) chosen = other;
  } catch { /* no such runtime here: WASM goes on */ }
  const left = chosen === engine ? other : engine;
  engine = chosen;
  await left.close();
}
