"""What the choices of training do: every loss, conditioning, and adaptive augmentation, on the embedded set.

    python benchmarks/choices.py losses|labels|adaptive [--out runs/choices] [--kimg 1.0] [--only NAME ...]

Each trains the quickstart recipe (58 kimg up to 32x32; `--kimg 0.5` halves all lengths) on one core, with the
same pictures, seed and number of images, and goes on where it stopped. A table is printed, and a JSON file is
written beside the runs.

losses: the sliced Wasserstein distance of 2,048 samples to as many reals, before and after training.
labels: how many conditional samples a classifier recognises that was trained on the real pictures.
adaptive: the probability of the augmentations over 80 kimg at 16x16, with 100 pictures and with all 10,000.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

import progan
from progan.cli.terminal.training import TerminalReporter
from progan.config import Config, load_config, merge
from progan.data.pixels import to_float
from progan.metrics.swd.distance import sliced_wasserstein, sliced_wasserstein_floor
from progan.runs.logs import read_stats
from progan.runs.run_folder import RunFolder
from progan.training.spec import ImageSpec
from progan.training.state import build_networks

SAMPLES = 2048
LABELLED = {"data": {"labels": "folders"}}
AUGMENTED = {
    "augment": {"policy": ["color", "translation", "cutout"], "adaptive": True, "adapt_kimg": 50},
    "data": {"resolution": 16},
    "loss": {"adversarial": "logistic", "r1_gamma": 1.0},
    "schedule": {"total_kimg": 80.0},
}

LOSSES: dict[str, dict[str, Any]] = {
    name: merge(LABELLED, {"loss": {"adversarial": name}})
    for name in ("wgan", "least_squares", "logistic", "hinge", "relativistic")
}
LABELS: dict[str, dict[str, Any]] = {
    conditioning: merge(LABELLED, {"model": {"conditioning": conditioning}})
    for conditioning in ("ac_gan", "projection")
}
ADAPTIVE: dict[str, dict[str, Any]] = {
    "100 pictures": merge(AUGMENTED, {"data": {"limit": 100}}),
    "all pictures": AUGMENTED,
}


def train(folder: Path, name: str, options: dict[str, Any], scale: float) -> tuple[Path, Config]:
    """Train one variant, or go on with it; returns its folder and its configuration."""
    quick = load_config("quickstart").schedule
    lengths = {
        "stabilise_kimg": [length * scale for length in quick.stabilise_kimg],
        "fade_kimg": [length * scale for length in quick.fade_kimg],
    }
    options = merge(options, {"schedule": lengths, "data": {"cache": str(folder / "sets" / name)}})
    console = Console()
    console.rule(name)
    with TerminalReporter(console) as reporter:
        run = progan.train(
            "builtin:glyphs", folder / name, recipe="quickstart", options=options, reporter=reporter
        )
    return run, RunFolder(run).config()


def pictures_of(run: Path) -> progan.PackedSet:
    return progan.PackedSet.open(RunFolder(run).dataset().packed)


def batches(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pictures), 256):
        yield pictures[start : start + 256]


def reals_of(packed: progan.PackedSet, count: int) -> NDArray[np.uint8]:
    """Real pictures in a mixed order: the set is stored class after class."""
    mixed = np.random.default_rng(0).permutation(packed.count)[:count]
    pixels = packed.read(packed.max_level, np.sort(mixed) if count == packed.count else mixed)
    assert pixels.dtype == np.uint8
    return pixels.astype(np.uint8, copy=False)


def distances(run: Path, config: Config) -> dict[str, float]:
    """Sliced Wasserstein distance (mean over 32x32 and 16x16) of the untrained and the trained generator."""
    packed = pictures_of(run)
    reals = reals_of(packed, SAMPLES)
    image = ImageSpec(packed.channels, packed.base_shape, packed.max_level, packed.label_names)
    torch.manual_seed(config.run.seed)
    untrained, _ = build_networks(config, image)
    networks = {"before": untrained.eval(), "after": progan.load(run)}
    return {
        name: sliced_wasserstein(batches(reals), progan.generate(G, SAMPLES)).mean
        for name, G in networks.items()
    }


def losses(folder: Path, chosen: dict[str, dict[str, Any]], scale: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, options in chosen.items():
        run, config = train(folder, name, options, scale)
        found[name] = distances(run, config)
        floor = sliced_wasserstein_floor(batches(reals_of(pictures_of(run), 2 * SAMPLES))).mean
        found[name]["floor"] = floor
    return found


class Classifier(nn.Module):
    """A small convolutional network for 32x32 pictures."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 4 * 4, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, 32, 32] to logits [N, classes]."""
        out: torch.Tensor = self.layers(x)
        return out


def recognised(model: Classifier, images: NDArray[np.uint8], classes: NDArray[np.int64]) -> float:
    """Share of pictures whose class the classifier names."""
    with torch.inference_mode():
        guesses = torch.cat([model(to_float(part)).argmax(1) for part in batches(images)])
    return float((guesses.numpy() == classes).mean())


def train_classifier(packed: progan.PackedSet) -> tuple[Classifier, float]:
    """Train on all but the last fifth of the real pictures; returns it and its accuracy on that fifth."""
    images, classes = reals_of(packed, packed.count), packed.labels(np.arange(packed.count))
    order = np.random.default_rng(0).permutation(packed.count)
    kept, held_out = order[: packed.count * 4 // 5], order[packed.count * 4 // 5 :]
    torch.manual_seed(0)
    model = Classifier(packed.channels, packed.label_size)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(4):
        for part in np.array_split(np.random.default_rng(epoch).permutation(kept), len(kept) // 64):
            loss = F.cross_entropy(model(to_float(images[part])), torch.from_numpy(classes[part]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model, recognised(model, images[held_out], classes[held_out])


def labels(folder: Path, chosen: dict[str, dict[str, Any]], scale: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, options in chosen.items():
        run, _ = train(folder, name, options, scale)
        model, on_reals = train_classifier(pictures_of(run))
        G = progan.load(run)
        shares = {}
        for i, label in enumerate(G.label_names):
            made = np.concatenate(list(progan.generate(G, 200, label=label)))
            shares[label] = recognised(model, made, np.full(200, i))
        mean = sum(shares.values()) / len(shares)
        found[name] = {"held-out reals": on_reals, "samples": mean, "worst class": min(shares.values())}
    return found


def adaptive(folder: Path, chosen: dict[str, dict[str, Any]], scale: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, options in chosen.items():
        run, _ = train(folder, name.replace(" ", "-"), options, scale)
        stats = read_stats(RunFolder(run).stats_file)
        found[name] = {
            f"{int(line['images_seen']) / 1000:g} kimg": float(line["augment_probability"]) for line in stats
        }
    return found


EXPERIMENTS = {"losses": (losses, LOSSES), "labels": (labels, LABELS), "adaptive": (adaptive, ADAPTIVE)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path, default=Path("runs/choices"))
    parser.add_argument("--kimg", type=float, default=1.0, help="lengths, as a multiple of quickstart's")
    parser.add_argument("--only", nargs="*", help="some of the variants")
    arguments = parser.parse_args()
    measure, variants = EXPERIMENTS[arguments.experiment]
    chosen = {name: variants[name] for name in arguments.only or variants}
    folder = arguments.out / arguments.experiment
    found = measure(folder, chosen, arguments.kimg)
    (folder / f"{'-'.join(chosen).replace(' ', '_')}.json").write_text(json.dumps(found, indent=2) + "\n")
    for name, values in found.items():
        print(f"{name:<16}", "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
