// Where pictures lie: latents of seeds, and ways between them.
import { model } from "./model.js";

let table; // latents of the first seeds

// Load the latents of the first seeds, which PyTorch drew.
export async function loadLatents() {
  const answer = await fetch("latents.bin");
  if (!answer.ok) throw new Error(`latents.bin: ${answer.status}`);
  table = new Float32Array(await answer.arrayBuffer());
}

// A standard normal sequence of one number; mulberry32 and Box-Muller.
function drawn(number) {
  let a = number >>> 0;
  const uniform = () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return Float32Array.from({ length: model.latent }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// A name is `12`, the first sample of that seed, or `r345`, drawn here.
export function latent(name) {
  if (name.startsWith("r")) return drawn(Number(name.slice(1)));
  const at = Number(name) * model.latent;
  return table.slice(at, at + model.latent);
}

export function slerp(a, b, t) {
  const length = (v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
  const la = length(a), lb = length(b);
  let dot = 0;
  for (let i = 0; i < a.length; i++) dot += (a[i] / la) * (b[i] / lb);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot))), sine = Math.sin(angle);
  if (sine < 1e-4) return a.map((x, i) => x + (b[i] - x) * t);
  const size = la + (lb - la) * t, wa = Math.sin((1 - t) * angle) / sine, wb = Math.sin(t * angle) / sine;
  return a.map((x, i) => size * (wa * x / la + wb * b[i] / lb));
}
