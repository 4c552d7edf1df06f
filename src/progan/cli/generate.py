"""The commands that make pictures and videos with a trained generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, Token
from rich.console import Console

from progan.cli.terminal.console import say, stages, training_console

if TYPE_CHECKING:
    from progan.models.generator import Generator


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """Read a whole number; `1.5` is a mistake, not 1 or 2."""
    return int(tokens[0].value)


def generate(
    path: Path,
    *,
    n: Annotated[int, Parameter(converter=_whole)] = 64,
    out: Annotated[Path, Parameter(alias="-o")] = Path("samples"),
    seed: int = 0,
    label: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    level: int | None = None,
    resolution: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Make pictures with a trained generator; under torchrun, with several processes.

    Parameters
    ----------
    path
        Run folder or weight file.
    n
        Number of pictures.
    out
        Folder of PNGs, or a file: .png (one grid), .npy (uint8 NCHW) or .zip.
    seed
        The same seed gives the same pictures, whatever n.
    label
        Class, by name or number; several (a,b), or a vector (0.5,-1), as trained; default: any.
    level
        Level to generate at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    batch_size
        Pictures computed at once.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.distributed.ranks import join
    from progan.generation.sampling import digest, level_of
    from progan.generation.save_samples import save_samples

    with join() as ranks:

        def loaded() -> tuple[Generator, int]:
            G = _load(path, str(ranks.device(device)))
            return G, level_of(G, level, resolution)

        G, chosen = ranks.in_turn(loaded, lambda found: {"the generator": digest(found[0])})
        with stages() as progress:
            made = save_samples(
                G, out, n, seed=seed, label=label, level=chosen, batch_size=batch_size, progress=progress,
                ranks=ranks,
            )  # fmt: skip
    say(training_console(), f"{n} pictures: {made}")


def interpolate(
    path: Path,
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("walk.gif"),
    seconds: float = 10.0,
    fps: float = 30.0,
    grid: tuple[int, int] = (1, 1),
    seed: int = 0,
    label: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    level: int | None = None,
    resolution: str | None = None,
    device: str = "auto",
) -> None:
    """Make a video of a smooth closed walk through latent space.

    Parameters
    ----------
    path
        Run folder or weight file.
    out
        .gif, or .mp4 (with the extra `video`).
    seconds
        Length.
    fps
        Frames a second.
    grid
        Rows and columns of pictures.
    seed
        The same seed gives the same walk.
    label
        Class, by name or number; several (a,b), or a vector (0.5,-1), as trained; default: one for each
        picture of the grid.
    level
        Level to generate at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.generation.sampling import level_of
    from progan.generation.video import interpolate as write_video

    G = _load(path, device)
    level = level_of(G, level, resolution)
    with stages() as progress:
        made = write_video(
            G, out, seconds=seconds, fps=fps, grid=grid, seed=seed, label=label, level=level,
            progress=progress,
        )  # fmt: skip
    say(Console(), f"video: {made}")


def _load(path: Path, device: str) -> Generator:
    """Load a generator onto a device."""
    from progan.models.loading import load
    from progan.system.device import choose_device

    return load(path, choose_device(device))
