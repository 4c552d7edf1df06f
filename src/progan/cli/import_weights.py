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
        Pickle of the original TensorFlow code, or a state dict saved with torch.save.
    out
        The weight file.
    network
        Which of three networks to take; default: Gs, the averaged generator.
    like
        Weight file or config.json that says what a state dict alone is of.
    """
    from progan.config import format_resolution
    from progan.interop.import_weights import import_weights
    from progan.models.weights import save

    made = import_weights(file, network, like=like)
    save(made, out)
    kind, size = type(made).__name__, format_resolution(made.resolution())
    use = f"\nuse it: progan generate {out} --n 64 --out samples.png" if kind == "Generator" else ""
    say(PlainConsole(), f"{kind} of {size} images, {made.channels} channels: {out}{use}")
