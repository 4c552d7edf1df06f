"""The commands that make pictures and videos with a trained generator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, Token

from progan.cli.config import Plugins
from progan.cli.terminal.chosen import Kimg, choose
from progan.cli.terminal.console import PlainConsole, say, stages, training_console

if TYPE_CHECKING:
    from progan.data.showing import Sight
    from progan.models.generator import Generator


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """Read a whole number; `1.5` is a mistake, not 1 or 2."""
    return int(tokens[0].value)


Labels = Annotated[list[str] | None, Parameter(allow_leading_hyphen=True, consume_multiple=False)]
"""Labels, one for each time that the option is given."""

Grid = Annotated[list[str] | None, Parameter(consume_multiple=True)]
"""Words of rows and columns, `3x6` or `3 6`."""

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]


def generate(
    path: Path,
    *,
    kimg: Kimg = None,
    n: Annotated[int | None, Parameter(converter=_whole)] = None,
    out: Annotated[Path, Parameter(alias="-o")] = Path("samples"),
    seed: int = 0,
    seeds: str | None = None,
    latents: Files = None,
    save_latents: Path | None = None,
    label: Labels = None,
    trunc: float = 1.0,
    level: int | None = None,
    resolution: str | None = None,
    grid: Grid = None,
    captions: Literal["labels", "seeds", "none"] = "labels",
    scale: Annotated[int | None, Parameter(converter=_whole)] = None,
    resample: Literal["nearest", "lanczos"] = "nearest",
    format: Literal["png", "jpg", "webp", "tiff", "npz"] | None = None,
    depth: Literal[8, 16] | None = None,
    channels: tuple[int, ...] | None = None,
    background: str = "checker",
    batch_size: int | None = None,
    device: str = "auto",
    plugin: Plugins = (),
) -> None:
    """Make pictures with a trained generator; under torchrun, with several processes.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    n
        Number of pictures; default: 64, or what fills the grid.
    out
        Folder of pictures, or a file: .png, .jpg or .webp (one grid), .npy (NCHW), .npz (the same with
        latents and labels) or .zip.
    seed
        The same seed gives the same pictures, whatever n.
    seeds
        One picture of each of these instead: 0,1,4-6.
    latents
        Pictures of these instead: .npy [N, latent size], or .npz with z and labels, as `progan project`
        writes.
    save_latents
        Write the latents too: .npy, or .npz with the labels.
    label
        Class, by name or number; several (a,b), or a vector (0.5,-1), as trained; default: any. Given
        several times: each in turn, in a grid one a row.
    trunc
        Below 1: less varied, cleaner pictures (psi of StyleGAN, here of the first layers' features, as these
        latents are normalised and scaling them does nothing).
    level
        Level to generate at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    grid
        Rows and columns of a grid, 4x6.
    captions
        What stands beside the pictures of a grid.
    scale
        Enlarge each picture by a whole factor.
    resample
        How: nearest (squares) or lanczos (smooth).
    format
        Of the pictures in a folder or .zip; npz writes OUT.npz instead; default: png, with more than 4
        channels tiff.
    depth
        Bits of a value; default: those of the pictures that it was trained on.
    channels
        Channels that a grid shows, from 0: one as gray, or three as RGB.
    background
        What a grid lays transparency on: checker, white, #rrggbb, ...
    batch_size
        Pictures computed at once; another number may round otherwise (1 of 255).
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.distributed.ranks import join
    from progan.generation import samples as chosen
    from progan.generation.label_arguments import taken_as_names
    from progan.generation.sampling import digest, level_of
    from progan.generation.save_samples import Layout, save_samples

    shape = None if grid is None else chosen.parse_grid(" ".join(grid))
    layout = Layout(
        None if format == "npz" else format, scale, resample, None if shape is None else shape[1], captions,
        depth, _sight(channels, background),
    )  # fmt: skip
    out = out if format != "npz" or out.suffix == ".npz" else out.with_name(out.name + ".npz")
    if shape is not None and out.suffix == "":
        out = out.with_suffix(f".{layout.format or 'png'}")
    if n is None and shape is not None and seeds is None and not latents:
        n = shape[0] * shape[1]
    file = choose(path, kimg).file
    with join() as ranks:

        def loaded() -> tuple[Generator, int]:
            G = _load(file, str(ranks.device(device)), plugin)
            return G, level_of(G, level, resolution)

        G, chosen_level = ranks.in_turn(loaded, lambda found: {"the generator": digest(found[0])})
        samples = chosen.choose(
            G, n=n, seed=seed, seeds=None if seeds is None else chosen.parse_seeds(seeds),
            files=latents or (), labels=label or (), repeat=1 if shape is None else shape[1],
        )  # fmt: skip
        if save_latents is not None:
            ranks.first_only(partial(chosen.save_latents, samples, save_latents))
        for line in taken_as_names(G, label or ()):
            say(training_console(), line)
        with stages() as progress:
            made = save_samples(
                G, out, samples, level=chosen_level, batch_size=batch_size, trunc=trunc, layout=layout,
                progress=progress, ranks=ranks,
            )  # fmt: skip
    pictures = "1 picture" if samples.count == 1 else f"{samples.count:,} pictures"
    say(training_console(), f"{pictures}: {made}")


def interpolate(
    path: Path,
    *,
    kimg: Kimg = None,
    out: Annotated[Path, Parameter(alias="-o")] = Path("walk.gif"),
    seconds: float | None = None,
    fps: float = 30.0,
    grid: Grid = None,
    seed: int = 0,
    seeds: str | None = None,
    latents: Files = None,
    interp: Literal["linear", "slerp", "cubic"] = "slerp",
    w_frames: int = 60,
    loop: Annotated[bool, Parameter(negative="--no-loop")] = True,
    audio: Path | None = None,
    label: Labels = None,
    trunc: float = 1.0,
    level: int | None = None,
    resolution: str | None = None,
    channels: tuple[int, ...] | None = None,
    background: str = "checker",
    device: str = "auto",
    plugin: Plugins = (),
) -> None:
    """Make a film of a smooth closed walk through latent space, or of the way through given pictures.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    out
        .gif, .webp, or with the extra `video` .mp4 or .webm.
    seconds
        Length of a walk; default: 10.
    fps
        Frames a second.
    grid
        Rows and columns of pictures, 3x6.
    seed
        The same seed gives the same walk.
    seeds
        Go through the pictures of these seeds instead: 0,1,4-6; in a grid the first few are the first
        picture's.
    latents
        Go through the pictures of these instead: .npy or .npz files, as `progan project` writes.
    interp
        From picture to picture: linear, slerp (on great circles) or cubic (without corners).
    w_frames
        Frames from picture to picture.
    loop
        Whether the way leads back to the first picture.
    audio
        A recording (.wav; with the extra `video` .mp3 and others): the film is as long, and goes the faster
        the louder it is; an .mp4 or .webm has its sound.
    label
        Class, by name or number; several (a,b), or a vector (0.5,-1), as trained; default: one for each
        picture of the grid. Given several times: each row of a grid has one; a single picture goes from one
        to the next.
    trunc
        Below 1: less varied, cleaner pictures.
    level
        Level to generate at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    channels
        Channels that are shown, from 0: one as gray, or three as RGB.
    background
        What transparency is laid on: checker, white, #rrggbb, ...
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.generation import samples as chosen
    from progan.generation.label_arguments import taken_as_names
    from progan.generation.sampling import level_of
    from progan.generation.video import interpolate as write_video

    G = _load(choose(path, kimg).file, device, plugin)
    points = None
    if seeds is not None or latents:
        points = chosen.choose(
            G, seeds=None if seeds is None else chosen.parse_seeds(seeds), files=latents or ()
        )
    for line in taken_as_names(G, label or ()):
        say(PlainConsole(), line)
    with stages() as progress:
        made = write_video(
            G, out, seconds=seconds, fps=fps,
            grid=(1, 1) if grid is None else chosen.parse_grid(" ".join(grid)), seed=seed, points=points,
            interp=interp, w_frames=w_frames, loop=loop, audio=audio, labels=label or (), trunc=trunc,
            level=level_of(G, level, resolution), sight=_sight(channels, background), progress=progress,
        )  # fmt: skip
    silent = audio is not None and made.suffix.lower() in (".gif", ".webp")
    say(
        PlainConsole(),
        f"video: {made}" + (" (without the sound, which .mp4 and .webm have)" if silent else ""),
    )


def _sight(channels: tuple[int, ...] | None, background: str) -> Sight:
    """Read which channels are shown, and on what: a colour, or `checker`."""
    from progan.config import parse_colour
    from progan.data.showing import CHECKER, Sight
    from progan.errors import ConfigError

    try:
        return Sight(channels, CHECKER if background == CHECKER else parse_colour(background))
    except ValueError as error:
        raise ConfigError(f"background: {error}, or {CHECKER}") from None


def _load(path: Path, device: str, plugin: Sequence[str]) -> Generator:
    """Load a generator, which may be one of one's own, onto a device."""
    from progan.models.loading import load
    from progan.system.device import choose_device

    return load(path, choose_device(device), own=plugin)
