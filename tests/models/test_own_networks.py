"""A generator, a discriminator and blocks of one's own train, grow, are saved, resumed and read again."""

# ruff: noqa: ARG002 - methods take what their base class gives them

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import progan
from own_parts import plugin
from progan.__main__ import main
from progan.config import read_plugins
from progan.data.packed import PackedSet
from progan.errors import CheckpointError, ConfigError
from progan.models.generator import UpBlock
from tiny import Listener, last_tensors, options, require_equal, words

TEXT = '''
from torch import Tensor, nn

import progan


class Scaled(nn.Module):
    """A block whose convolutions are of PyTorch alone."""

    def __init__(self, inputs: int, outputs: int, slope: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.slope = slope

    def forward(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2)
        return nn.functional.leaky_relu(self.conv(x), self.slope)


class MyG(progan.Generator):
    """With other blocks, and a layer that learns from the first level on."""

    class Options(progan.PartOptions):
        slope: float = progan.option(0.1, "Of the blocks.")
        widen: int = progan.option(1, "What latents are multiplied by.", ge=1)

    def __init__(self, **options):
        super().__init__(**options)
        self.mapping = nn.Linear(self.latent_size, self.latent_size)

    def make_block(self, level: int, inputs: int, outputs: int) -> nn.Module:
        return Scaled(inputs, outputs, self.own.slope)

    def features(self, z: Tensor, labels: Tensor | None = None, *, level: int = 0) -> Tensor:
        return super().features(self.mapping(z) * self.own.widen, labels, level=level)
'''


class Plain(progan.Discriminator):
    """The shipped one, under another name."""


class Block(nn.Module):
    """A block that makes something of a wrong size."""

    def forward(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        assert alpha is None
        return x


class Wrong(progan.Generator):
    """A generator whose blocks do not double the size."""

    def make_block(self, level: int, inputs: int, outputs: int) -> nn.Module:
        return Block()


class Wider(progan.Generator):
    """A generator with blocks that are derived from the shipped one."""

    def make_block(self, level: int, inputs: int, outputs: int) -> nn.Module:
        class Mine(UpBlock):
            pass

        return Mine(inputs, outputs, self.options)


def command(*more: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["train", *map(str, more)])
    return 0 if end.value.code is None else int(end.value.code)


def test_on_the_command_line(blobs: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = plugin(tmp_path, TEXT), tmp_path / "run"
    chosen = ["--model.generator-class", "my_g", "--model.my-g.slope", "0.3", "--plugin", str(file)]
    told = words(options(run={"stop_after": "level"}))
    assert command(blobs.path, "--out", out, *chosen, *told) == 0
    assert command("--resume", out) == 2
    assert f"--plugin {file}" in capsys.readouterr().err
    assert command("--resume", out, "--plugin", file, "--run.stop-after", "end") == 0
    own: Any = read_plugins([file]).of("model.generator_class")["my_g"]
    capsys.readouterr()
    with pytest.raises(
        CheckpointError,
        match=rf"'my_g', defined in '{file}' \(sha256 '[0-9a-f]{{64}}'\): give --plugin '{file}'",
    ):
        progan.load(out)
    G = progan.load(out, own=[own])
    assert (type(G), G.own.slope, G.own.widen, G.level) == (own, 0.3, 1, 2)
    kept = progan.load(progan.find_generator(out, 0.1).file, own=[own])
    assert type(kept) is own
    assert G(torch.zeros(2, G.latent_size), torch.eye(4)[:2]).shape == (2, 3, 16, 16)
    trained = last_tensors(out)[1]
    assert float(trained["G/mapping.weight"].sub(trained["G_ema/mapping.weight"]).abs().max()) > 0


COMMANDS = """
info RUN
info RUN --json
generate RUN --n 2 --out made
interpolate RUN --seconds 0.1 --out walk.gif
project RUN --target 0.png --num-steps 10 --outdir projected
directions RUN -K 1 --outdir ways
mix RUN 1 2 --out mix.png
movie RUN --out growth.gif --from generators --seconds 0.2
report RUN --out report.html
export RUN --to safetensors --out copy.safetensors
evaluate RUN --metrics lightness --num-images 8
compare RUN RUN --metrics lightness --num-images 8
push RUN me/mine --dry-run --no-onnx --out sent
generate sent --n 1 --out again.png
"""
METRIC = '''

class Lightness(progan.SetMetric):
    """How light the pictures are."""

    def measure(self, reals, fakes):
        return float(fakes.mean())
'''


def test_every_command_takes_a_run_with_own_parts(
    blobs: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plugin(tmp_path, TEXT + METRIC)
    generator: Any = read_plugins([file]).of("model.generator_class")["my_g"]
    told: Any = options(run={"generator_kimg": 0.05})
    out = progan.train(
        blobs.path, tmp_path / "run", options=told, generator=generator, plugins=[file], reporter=Listener()
    )
    assert type(out.generator) is generator
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 16), (200, 30, 30)).save("0.png")
    for line in COMMANDS.split("\n")[1:-1]:
        given = [str(out) if word == "RUN" else word for word in line.split()]
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*given, "--plugin", str(file)])
        said = capsys.readouterr()
        assert not end.value.code, (line, said.err)
        assert "somebody's own" not in said.out + said.err, line
    report = Path("report.html").read_text(encoding="utf-8")
    assert "Not looked for" not in report
    opened = progan.open_run(out, own=[file])
    assert type(opened.generator) is type(opened.find(0)) is generator
    with pytest.raises(CheckpointError, match="--plugin"):
        _ = progan.open_run(out).generator


def test_the_same_bits_as_the_shipped_one(blobs: PackedSet, tmp_path: Path) -> None:
    told: Any = options(schedule={"total_kimg": 0.064})
    own: Any = {"discriminator": Plain, "generator": Wider}
    runs = [
        progan.train(blobs.path, tmp_path / name, options=told, reporter=Listener(), **parts)
        for name, parts in (("a", own), ("b", {}))
    ]
    assert (runs[0].config.model.generator_class, runs[0].config.model.discriminator_class) == (
        "wider",
        "plain",
    )
    require_equal(*(last_tensors(run)[1] for run in runs))


def test_what_a_network_lacks(blobs: PackedSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Wrong, level 1: "):
        progan.train(blobs.path, tmp_path / "a", options=options(), reporter=Listener(), generator=Wrong)
    assert not (tmp_path / "a" / "stats.jsonl").exists()


def test_morphing_asks_for_known_blocks(blobs: PackedSet, tmp_path: Path) -> None:
    growth: Any = {
        "schedule": {"growth": "morph", "total_kimg": 0.016, "stabilise_kimg": [0.016], "batch_size": 16}
    }
    told = {**options(), **growth}
    run = progan.train(blobs.path, tmp_path / "a", options=told, reporter=Listener(), generator=Wider)
    assert run.images_seen == 16

    class Other(progan.Generator):
        """With blocks of its own."""

        def make_block(self, level: int, inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 1))

        def from_features(self, x: Tensor, start: int = 0, *, level: Any = None, alpha: Any = None) -> Tensor:
            level = self.level if level is None else level
            for block in self.blocks[start:level]:
                x = block(x)
            return torch.as_tensor(self.to_rgb[level](x))

    with pytest.raises(ConfigError, match="Sequential, which is no UpBlock, cannot grow by morphing"):
        progan.train(blobs.path, tmp_path / "b", options=told, reporter=Listener(), generator=Other)


def test_its_own_options_are_checked() -> None:
    class Mine(progan.Generator):
        """With an option."""

        class Options(progan.PartOptions):
            """Its options."""

            size: int = progan.option(1, "A size.", ge=1)

    assert Mine(max_level=1, fmap_max=8, size=3).own.size == 3
    assert Mine(max_level=1, fmap_max=8).config()["size"] == 1
    with pytest.raises(ValueError, match=re.escape("size")):
        Mine(max_level=1, fmap_max=8, size=0)
