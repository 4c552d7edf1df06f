// The generator of the page, in a thread of its own, so that sliders and fingers need not wait for it.
import { model } from "./model.js";

const sessions = new Map(); // level -> a promise of an inference session
let ort, providers;

// Bytes whose hash is the one that was written down when the page was made.
async function verified(url, integrity) {
  const answer = await fetch(url, integrity ? { integrity } : {}).catch((error) => ({ statusText: error.message }));
  if (!answer.ok) {
    const hint = url.startsWith("http") ? ". A page made by progan explore RUN --offline needs no network." : "";
    throw new Error(`${url} cannot be loaded as it was when the page was made (${answer.statusText})${hint}`);
  }
  return answer.arrayBuffer();
}

async function open({ runtime, level }) {
  const files = model.runtime[runtime];
  // The level's file comes over the line beside the runtime.
  const [code, wasm] = await Promise.all([
    verified(files.script, files.script_integrity),
    verified(files.wasm, files.wasm_integrity),
    fetched(level),
  ]);
  ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = wasm;
  // One core is left to the page itself, which else would wait for these threads, and they for it.
  const cores = (navigator.hardwareConcurrency || 2) - 1;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.max(1, Math.min(4, cores)) : 1;
  ort.env.logLevel = "error";
  providers = runtime === "gpu" ? ["webgpu", "wasm"] : ["wasm"];
  await session(level);
  return { answer: ort.env.wasm.numThreads };
}

const files = new Map();
function fetched(level) {
  if (!files.has(level)) files.set(level, verified(model.levels[level].file));
  return files.get(level);
}

function session(level) {
  if (!sessions.has(level)) {
    sessions.set(level, fetched(level).then((bytes) =>
      ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: providers, logSeverityLevel: 3 })));
    files.delete(level);
  }
  return sessions.get(level);
}

const to8Bits = (value) => value * 127.5 + 127.5;

// Images of latents [n * latent] and labels [n * labels]: RGBA bytes of each.
async function images({ n, z, labels, level }) {
  const run = await session(level), feeds = { z: new ort.Tensor("float32", z, [n, model.latent]) };
  if (model.labels) feeds.labels = new ort.Tensor("float32", labels, [n, model.labels]);
  const made = await run.run(feeds), out = made[run.outputNames[0]], data = await out.getData();
  const [, channels, height, width] = out.dims, area = height * width;
  const answer = [];
  for (let i = 0; i < n; i++) {
    // Clamped arrays round half to even, as the pictures that PyTorch makes are rounded.
    const bytes = new Uint8ClampedArray(4 * area), from = i * channels * area;
    for (let p = 0; p < area; p++) {
      for (let c = 0; c < 3; c++) bytes[4 * p + c] = to8Bits(data[from + (channels < 3 ? 0 : c) * area + p]);
      bytes[4 * p + 3] = channels % 2 ? 255 : to8Bits(data[from + (channels - 1) * area + p]);
    }
    answer.push(bytes);
  }
  return { answer, moved: answer.map((bytes) => bytes.buffer) };
}

self.onmessage = async ({ data: { id, what, of } }) => {
  try {
    const { answer, moved } = await (what === "open" ? open : images)(of);
    self.postMessage({ id, answer }, moved ?? []);
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
