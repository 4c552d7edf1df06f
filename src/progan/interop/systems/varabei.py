"""Networks of uladzislau-varabei/progressively_growing_gan (TensorFlow 2): folders of arrays.

Files are named `8x8_0.npy`, ...: the weights of a block in the order of its layers, each before its bias. How
the network was built is in the configuration of its training, a JSON file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progan.errors import ConfigError, shown
from progan.interop.systems.layers import Foreign, Layer, Network, State, assemble, channel_major
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.system.files import parse_json
from progan.system.npy_files import load_array
from progan.system.safe_pickle import Refused

FOLDERS = {"Gs": "G_model_smoothed", "G": "G_model", "D": "D_model"}
FILE = re.compile(r"((?:To|From)RGB_lod[0-9]{1,2}|([0-9]{1,5})x\2)_([0-9]{1,2})\.npy")
MAX_FILES = 500
ACTIVATIONS = {"leaky_relu": "leaky_relu", "relu": "relu", "swish": "silu", "selu": "selu"}
NOT_SAID = (
    "the folder does not say how its networks were built, so as the defaults of its code are: leaky_relu, "
    "mixed precision (epsilon 1e-4), latents and features normalised, scaled and convolved at once, channels "
    "first; --like names the JSON file of its training"
)


def matches(path: Path) -> bool:
    """Tell whether a folder is one of a network, or holds such folders."""
    return bool(_parts(path))


def _parts(path: Path) -> dict[str, Path]:
    """Return the folders of networks by 'Gs', 'G' and 'D'."""
    inside = {name: path / folder for name, folder in FOLDERS.items() if (path / folder).is_dir()}
    if inside:
        return inside
    if not any(FILE.fullmatch(one.name) for one in path.glob("*.npy")):
        return {}
    named = [name for name, folder in FOLDERS.items() if path.resolve().name == folder]
    kind = "D" if any(path.glob("FromRGB_lod*.npy")) else "G"
    return {named[0] if named else kind: path}


class Checkpoint(Foreign):
    """Folders of networks.

    Args:
        path: A folder of a network, or the one that holds them (`step1000`).
        like: The JSON file of the training; None for the defaults of its code.

    Raises:
        Refused: if there is no such network.
        ConfigError: if `like` is no configuration of its training.
    """

    def __init__(self, path: Path, like: Path | None) -> None:
        self._parts = _parts(path)
        if not self._parts:
            raise Refused(
                "it is a folder, and holds no network of a known system (arrays such as 4x4_0.npy, of "
                "varabei's code, are read); a run of progan needs no import: use it as it is"
            )
        self._options = {} if like is None else _options(like)
        self.names = list(self._parts)
        self._stage = _stage(next(iter(self._parts.values())))
        self.notes = (NOT_SAID,) if like is None else ()

    def describe(self) -> str:
        """Return what it is, in words."""
        blocks = len({block for block in _names(self._parts[self.names[0]]) if "RGB" not in block})
        stage = f", {self._stage}" if self._stage else ""
        return f"a folder of varabei's progressively growing GAN, {blocks} levels{stage}"

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        state = _Blocks(self._parts[name])
        facts = _Facts(self._options, name)
        made = _discriminator(state, facts) if name == "D" else _generator(state, facts)
        self.notes += state.notes()
        return made


def _stage(path: Path) -> str:
    """Return the stage that a folder is of, which the names above it say."""
    return next((part for part in path.resolve().parts[::-1] if part in ("fade-in", "stabilization")), "")


def _options(like: Path) -> Mapping[str, Any]:
    try:
        found = parse_json(like.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{like} is no JSON file of a training ({shown(str(error))})") from None
    if not isinstance(found, dict) or "target_resolution" not in found:
        raise ConfigError(f"{like} is no JSON file of such a training: it has no target_resolution")
    return found


class _Facts:
    """What the configuration says of a network; the defaults are those of its code."""

    def __init__(self, options: Mapping[str, Any], name: str) -> None:
        self._options, self._side = options, name[0]
        activation = self.given(f"{self._side}_activation", "leaky_relu")
        mode = self.given(f"{self._side}_weights_init_mode", None)
        if activation not in ACTIVATIONS or mode not in (None, "He", "LeCun"):
            raise Refused(f"its network has the activation {shown(activation)}, or gains of {shown(mode)}")
        self.activation = ACTIVATIONS[activation]
        lecun = mode == "LeCun" or (mode is None and activation == "selu")
        self.gain = 1.0 if lecun else math.sqrt(2)
        self.fused = self.flag(f"{self._side}_fused_scale")
        self.scaled = self.flag("use_wscale")
        # Its averaged generator may lie on the CPU, where channels come last.
        on_cpu = name == "Gs" and not self.flag("use_GPU_for_Gs")
        self.channels_last = on_cpu or self.given("data_format", "NCHW") == "NHWC"

    def given(self, key: str, default: Any) -> Any:
        """Return an option."""
        return self._options.get(key, default)

    def flag(self, key: str) -> bool:
        """Return an option that is true or false, by default true."""
        value = self.given(key, True)
        if type(value) is not bool:
            raise Refused(f"its configuration has the {key} {shown(value)}; expected true or false")
        return value

    def group(self) -> int:
        """Return the group size of the minibatch standard deviation."""
        value = self.given("mbstd_group_size", 4)
        if type(value) is not int or not 0 <= value < 2**20:
            raise Refused(f"its configuration has the mbstd_group_size {shown(value)}")
        return value

    def shared(self) -> dict[str, Any]:
        """Return the options of ours that both networks have."""
        return {
            "activation": self.activation,
            "equalized_lr": self.scaled,
            "weight_init": "lecun" if self.gain == 1 else "he",
        }


def _names(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a network by block, in order."""
    files = sorted(folder.glob("*.npy"))
    if len(files) > MAX_FILES:
        raise Refused(f"its folder holds {len(files):,} arrays; a network has at most {MAX_FILES}")
    blocks: dict[str, dict[int, Path]] = {}
    for file in files:
        found = FILE.fullmatch(file.name)
        if found is None:
            raise Refused(f"its folder holds {shown(file.name)}, which that system does not write")
        blocks.setdefault(found[1], {})[int(found[3])] = file
    return {name: [numbered[i] for i in sorted(numbered)] for name, numbered in blocks.items()}


class _Blocks:
    """The layers of a network, by block.

    Attributes:
        levels: How many it has.
    """

    def __init__(self, folder: Path) -> None:
        blocks = _names(folder)
        self.levels = next(i for i in range(30) if f"{4 << i}x{4 << i}" not in blocks)
        if not self.levels:
            raise Refused("its network lacks the block 4x4")
        self._rgb = "From" if any(name.startswith("From") for name in blocks) else "To"
        lods = sorted(int(name.rpartition("lod")[2]) for name in blocks if "RGB" in name)
        if not lods or len(lods) > self.levels:
            raise Refused(f"its network has {len(lods)} of {self._rgb}RGB for {self.levels} levels")
        self._there = {
            self.levels - 1 + lods[0] - lod: lod for lod in lods
        }  # level -> its number in the file
        found = {
            f"{name}/{i}/{part}": value
            for name, files in blocks.items()
            for i, part, value in _layers_of([_array(file) for file in files])
        }
        self.state = State(found, sum(value.nbytes for value in found.values()))
        self.bias = "4x4/0/bias" in found

    def notes(self) -> tuple[str, ...]:
        """Return what was decided, in words."""
        lacking = [str(i) for i in range(self.levels) if i not in self._there]
        zeros = f"{self._rgb}RGB of levels {', '.join(lacking)} is not in the folder: zeros"
        alpha = "alpha is 1 at its largest level, since the folder does not say how far it has come in"
        return ((zeros,) if lacking else ()) + ((alpha,) if self.levels > 1 else ())

    def kernel(self, name: str) -> torch.Size:
        """Return the shape of a convolution as it is kept: [k, k, in, out], or [k, k, out, in]."""
        return self.state.shape(f"{name}/kernel")

    def layer(
        self, facts: _Facts, name: str, *sides: int | None, gain: float, transposed: bool = False
    ) -> Layer:
        """Return a layer; `sides` are those of its kernel."""
        kernel = self.state.take(f"{name}/kernel", *sides)
        if kernel.ndim == 2:
            weight = kernel.t()
        elif transposed:  # mirrored, too: a transposed convolution adds where ours gathers
            weight = kernel.permute(2, 3, 0, 1).flip(2, 3)
        else:
            weight = kernel.permute(3, 2, 0, 1)
        factor = gain / math.sqrt(weight[0].numel()) if facts.scaled else 1.0
        if name == "4x4/0" and kernel.ndim == 2:  # the bias is one a channel, after units became features
            return Layer(weight, self.state.bias(f"{name}/bias", weight.shape[0] // 16), factor)
        return Layer(weight, self.state.bias(f"{name}/bias", weight.shape[0]), factor)

    def rgb(self, facts: _Facts, level: int, outputs: int | None, inputs: int | None, gain: float) -> Layer:
        """Return toRGB or fromRGB of a level; where it is not in the folder, zeros."""
        if level not in self._there:
            return Layer(torch.zeros(outputs or 3, inputs or 3, 1, 1), torch.zeros(outputs or 3))
        name = f"{self._rgb}RGB_lod{self._there[level]}/0"
        return self.layer(facts, name, 1, 1, inputs, outputs, gain=gain)


def _array(file: Path) -> Tensor:
    """Read an array in the machine's byte order."""
    try:
        values = load_array(file)
    except (OSError, ValueError) as error:
        raise Refused(f"its {shown(file.name)} is no array ({shown(str(error), 120)})") from None
    if values.dtype.kind != "f" or values.ndim > 4:
        raise Refused(f"its {shown(file.name)} is no array of floating-point numbers")
    return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))


def _layers_of(values: list[Tensor]) -> list[tuple[int, str, Tensor]]:
    """Tell kernels from biases: a bias, which has one side, is that of the kernel before it."""
    found: list[tuple[int, str, Tensor]] = []
    at = -1
    for value in values:
        at += value.ndim != 1
        found.append((at, "bias" if value.ndim == 1 else "kernel", value))
    return found


def _generator(blocks: _Blocks, facts: _Facts) -> Network:
    conv = blocks.kernel("4x4/1")
    side, widths = conv[0], [conv[3]]
    widths += [blocks.kernel(f"{4 << i}x{4 << i}/1")[3] for i in range(1, blocks.levels)]
    gain = facts.gain / (4 if facts.flag("override_G_projecting_gain") else 1)
    first = blocks.layer(facts, "4x4/0", None, 16 * widths[0], gain=gain)
    if facts.channels_last:
        first = Layer(channel_major(first.weight), first.bias, first.factor)
    layers = {
        "dense": first,
        "conv": blocks.layer(facts, "4x4/1", side, side, conv[2], conv[3], gain=facts.gain),
    }
    fused = _fused(blocks, widths, facts)
    for i, width in enumerate(widths):
        layers[f"to_rgb.{i}"] = blocks.rgb(facts, i, 3, width, 1.0)
        if i:
            place, below = f"{4 << i}x{4 << i}", widths[i - 1]
            sides = (side, side, width, below) if fused else (side, side, below, width)
            layers[f"blocks.{i - 1}.conv0_up"] = blocks.layer(
                facts, f"{place}/0", *sides, gain=facts.gain, transposed=fused
            )
            layers[f"blocks.{i - 1}.conv1"] = blocks.layer(
                facts, f"{place}/1", side, side, width, width, gain=facts.gain
            )
    blocks.state.done()
    config = facts.shared() | {
        "max_level": blocks.levels - 1,
        "fmaps": widths,
        "kernel_size": side,
        "bias": blocks.bias,
        "latent_size": first.weight.shape[1],
        "normalize_latents": facts.flag("normalize_latents"),
        "pixel_norm": facts.flag("use_pixelnorm"),
        "pixel_norm_eps": 1e-4 if facts.flag("use_mixed_precision") else 1e-8,
        "dense_gain": gain,
        "upscale": "fused" if fused else "separate",
    }
    return assemble(Generator, config, layers)


def _fused(blocks: _Blocks, widths: list[int], facts: _Facts) -> bool:
    """Tell whether the kernels that double the size are transposed; where shapes do not, the facts do."""
    for i in range(1, len(widths)):
        if widths[i] != widths[i - 1]:
            return blocks.kernel(f"{4 << i}x{4 << i}/0")[2] == widths[i]
    return facts.fused


def _discriminator(blocks: _Blocks, facts: _Facts) -> Network:
    conv = blocks.kernel("4x4/0")
    side, widths, maps = conv[0], [conv[3]], conv[2] - conv[3]
    widths += [blocks.kernel(f"{4 << i}x{4 << i}/0")[3] for i in range(1, blocks.levels)]
    dense = blocks.layer(facts, "4x4/1", 16 * widths[0], None, gain=facts.gain)
    if facts.channels_last:
        dense = Layer(channel_major(dense.weight.t()).t(), dense.bias, dense.factor)
    layers = {
        "conv": blocks.layer(facts, "4x4/0", side, side, conv[2], conv[3], gain=facts.gain),
        "dense0": dense,
        "dense1": blocks.layer(facts, "4x4/2", None, 1, gain=1.0),
    }
    for i, width in enumerate(widths):
        layers[f"from_rgb.{i}"] = blocks.rgb(facts, i, width, 3, facts.gain)
        if i:
            place = f"{4 << i}x{4 << i}"
            layers[f"blocks.{i - 1}.conv0"] = blocks.layer(
                facts, f"{place}/0", side, side, width, width, gain=facts.gain
            )
            layers[f"blocks.{i - 1}.conv1_down"] = blocks.layer(
                facts, f"{place}/1", side, side, width, widths[i - 1], gain=facts.gain
            )
    blocks.state.done()
    config = facts.shared() | {
        "max_level": blocks.levels - 1,
        "fmaps": widths,
        "kernel_size": side,
        "bias": blocks.bias,
        "dense_features": dense.weight.shape[0],
        "stddev_group": facts.group() if maps else 0,
        "downscale": "fused" if facts.fused else "separate",
    }
    return assemble(Discriminator, config, layers)
