"""A generator as a file for other programs: ONNX, torch.export, TorchScript, or its weights alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.config import format_resolution
from progan.errors import CheckpointError, ConfigError
from progan.interop.export_formats import FORMATS, Contents, Form
from progan.interop.exported_module import Output, description, rounded
from progan.models.generator import Generator
from progan.models.loading import load
from progan.models.weights import Own
from progan.system.files import atomic_path

OTHER_SUFFIXES: dict[str, Form] = {".pt": "torchscript", ".torchscript": "torchscript", ".jit": "torchscript"}
"""Endings by which a form is recognised, besides that of `FORMATS`."""
LATENTS = 16
"""How many images a file is checked with."""
TOLERANCE = 1e-4
"""Largest difference, of values from -1 to 1, at which a file is kept."""


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: The file.
        form: What it is.
        facts: What is written into it, by name.
        difference: Largest difference from PyTorch's images, of values from -1 to 1.
        rounding: How far 16-bit weights move the images; None where weights have 32 bits.
    """

    path: Path
    form: Form
    facts: dict[str, str]
    difference: float
    rounding: float | None


def export(
    generator: Generator | str | Path,
    out: str | Path,
    to: Form | None = None,
    *,
    level: int | None = None,
    half: bool = False,
    labels: bool | None = None,
    output: Output = "float",
    license: str | None = None,
    folded: bool = False,
    own: Own = (),
) -> Exported:
    """Write a generator as a file of another runtime, and compare its images with PyTorch's.

    The file takes any batch: latents `z` [N, latent_size], standard normal (they are normalised inside), and
    `labels` [N, label_size] if the generator has labels. It computes in float32. What it is, its ranges and
    the names of its labels are written into it.

    Args:
        generator: A generator, or what `progan.load` takes.
        out: The file.
        to: `onnx`, `pt2` (torch.export), `torchscript`, or `safetensors` (weights, for `progan.load`);
            None: by the ending of `out`.
        level: Level of the images, up to that to which the generator has grown; None for that one.
        half: Store weights in 16 bits, which halves the file.
        labels: True: there must be labels as an input; False: there must be none. None: as it comes.
        output: `float`: the image as the generator makes it, nominally in [-1, 1]. `uint8`: pixels.
        license: The licence of the weights, which is written into the file.
        folded: Of ONNX: what depends on no input (weights times their gains) is computed now and not when the
            file is opened, which is then quicker.
        own: Networks of your own, one of which it may be: classes, or Python files that define them.

    Raises:
        ConfigError: if form, level, labels or output do not fit.
        CheckpointError: if there is no generator; or if images of the file are more than 1e-4 from
            PyTorch's: then there is no file.
        DependencyError: if a package of the extra `onnx` is missing.
        StorageError: if the file cannot be written.
    """
    out = Path(out)
    form = form_of(out, to)
    if form == "safetensors" and output != "float":
        raise ConfigError(f"{out}: safetensors hold weights, which have no output: leave out uint8")
    G = generator if isinstance(generator, Generator) else load(generator, own=own)
    _require_labels(G, labels)
    G = _at(G, level)
    try:
        expected_of = rounded(G) if half else G
    except OverflowError as error:
        raise ConfigError(f"16 bits do not hold these weights ({error}): leave out --half") from None
    facts = description(G, output, half, license or "not stated")
    inputs = example_inputs(G, LATENTS)
    with torch.inference_mode():
        expected = expected_of(*inputs)
        rounding = float((expected - G(*inputs)).abs().max()) if half else None
    with atomic_path(out) as file:
        FORMATS[form].write(file, Contents(G, output, half, facts, inputs, folded))
        difference = _difference(FORMATS[form].open(file, type(G)), inputs, expected)
        if not difference <= TOLERANCE:  # NaN is not, either
            raise CheckpointError(
                f"{out} is not written: its images are up to {difference:.2g} from PyTorch's, and more than "
                f"{TOLERANCE:g} is no rounding; try another form (--to), and please report it"
            )
    return Exported(out, form, facts, difference, rounding)


def form_of(out: Path, to: Form | None) -> Form:
    """Return the form of a file: the one asked for, or that of its ending.

    Raises:
        ConfigError: if neither is known.
    """
    suffixes = {made.suffix: form for form, made in FORMATS.items()} | OTHER_SUFFIXES
    form = to or suffixes.get(out.suffix.lower())
    if form is None or form not in FORMATS:
        asked = f"form {to!r}" if to else f"{out}: its ending"
        raise ConfigError(f"{asked} is none of {', '.join(FORMATS)}: say one (--to), or end with .onnx")
    return form


def example_inputs(G: Generator, n: int) -> tuple[Tensor, ...]:
    """Return arguments of a call: latents [n, latent_size], and labels [n, label_size] if it has any."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(n, G.latent_size, generator=random)
    if not G.label_size:
        return (z,)
    if G.label_form == "vector":
        return z, torch.randn(n, G.label_size, generator=random)
    if G.label_form == "classes":
        return z, torch.randint(2, (n, G.label_size), generator=random).float()
    return z, F.one_hot(torch.arange(n) % G.label_size, G.label_size).float()


def _require_labels(G: Generator, labels: bool | None) -> None:
    """Check that labels are an input if and only if that is wanted.

    Raises:
        ConfigError: if not.
    """
    if labels and not G.label_size:
        raise ConfigError("this generator was trained without labels: leave out --labels")
    if labels is False and G.label_size:
        raise ConfigError(
            f"this generator needs its {G.label_size} labels as an input: leave out --no-labels"
        )


def _at(G: Generator, level: int | None) -> Generator:
    """Return the generator up to a level alone, on the CPU and in float32."""
    if level is not None and not 0 <= level <= G.level:
        sizes = ", ".join(f"{format_resolution(G.resolution(i))} (level {i})" for i in range(G.level + 1))
        raise ConfigError(f"there is no level {level} in it that was trained; it can be {sizes}")
    return G.trimmed(level).to(device="cpu", dtype=torch.float32)


def _difference(run: Callable[..., Tensor], inputs: tuple[Tensor, ...], expected: Tensor) -> float:
    """Return how far images are from the expected ones, made as one batch and the first one alone."""
    with torch.inference_mode():
        made = [run(*inputs), run(*(value[:1] for value in inputs))]
    return max(
        _distance(images, wanted) for images, wanted in zip(made, (expected, expected[:1]), strict=True)
    )


def _distance(images: Tensor, expected: Tensor) -> float:
    """Return the largest difference from values; of pixels, from the values that become these pixels.

    Pixel p stands for values between (p - 0.5) / 127.5 - 1 and (p + 0.5) / 127.5 - 1; 0 and 255 stand for
    all below and above, too.
    """
    if images.shape != expected.shape:
        return float("inf")
    if images.dtype != torch.uint8:
        return float((images - expected).abs().max())
    pixels, values = images.float(), (expected + 1) * 127.5
    below = torch.where(images > 0, pixels - 0.5 - values, 0)
    above = torch.where(images < 255, values - pixels - 0.5, 0)
    distance = torch.maximum(below, above).clamp(min=0).max() / 127.5
    return float(distance) if bool(torch.isfinite(expected).all()) else float("nan")
