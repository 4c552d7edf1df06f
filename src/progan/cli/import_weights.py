"""The command that reads other people's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from progan.cli.terminal.console import PlainConsole, say


def import_file(
    file: Path,
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("weights.safetensors"),
    network: Literal["Gs", "G", "D"] | None = None,
    like: Path | None = None,
) -> None:
    """Turn weights of others into a weight file of progan; nothing that the file names is run.

    Parameters
    ----------
    file
        Pickle of the original code (TensorFlow or Theano); what torch.save wrote of pytorch_GAN_zoo,
        pro_gan_pytorch, rosinality's progressive-gan-pytorch, genforce, MMagic or progan; a checkpoint of
        progan-flax; an HDF5 file of matt-roz's or a folder of varabei's code (TensorFlow 2).
    out
        The weight file.
    network
        Which of several networks to take; default: Gs, the averaged generator, or else G.
    like
        Weight file or config.json that says what a state dict alone is of; for a folder of varabei's, the
        JSON file of its training.
    """
    from progan.config import format_resolution
    from progan.errors import command
    from progan.interop.import_weights import import_weights
    from progan.models.weights import save

    console = PlainConsole()
    made = import_weights(file, network, like=like, say=lambda message: say(console, message))
    save(made, out)
    kind, size = type(made).__name__, format_resolution(made.resolution())
    use = command("generate", out, "--n", 64, "--out", "samples.png")
    told = f"\nuse it: {use}" if kind == "Generator" else ""
    say(console, f"{kind} of {size} images, {made.channels} channels: {out}{told}")
