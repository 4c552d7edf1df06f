"""The commands that look into the latent space of a trained generator."""

from __future__ import annotations

import contextlib
import webbrowser
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from progan.cli.config import Plugins
from progan.cli.terminal.chosen import Kimg, choose
from progan.cli.terminal.console import PlainConsole, say, stages

Words = Annotated[list[str] | None, Parameter(consume_multiple=True)]


def project(
    path: Path,
    *,
    target: Path,
    kimg: Kimg = None,
    num_steps: int = 1000,
    seed: int = 0,
    label: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    search_label: Annotated[bool, Parameter(negative=())] = False,
    outdir: Annotated[Path, Parameter(alias="-o")] = Path("projected"),
    save_video: bool = False,
    level: int | None = None,
    resolution: str | None = None,
    device: str = "auto",
    plugin: Plugins = (),
) -> None:
    """Find the latent whose picture is nearest to a given one.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    target
        The picture; its middle is taken, at the generator's size.
    num_steps
        About how often a picture is computed.
    seed
        Of the first latents.
    label
        The picture's label; default: that of the best of random samples.
    search_label
        Search the label too: mixtures of classes, which come nearer.
    outdir
        Gets projected.npz (for --latents of other commands, and mix) and projected.png (side by side).
    save_video
        Write projected.mp4 too, the film of the search.
    level
        Level to compare at; default: the highest that was trained.
    resolution
        The same by size, 16 or 4x6.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.explore.projection import describe, read_target, save_projection
    from progan.generation.label_arguments import taken_as_names
    from progan.generation.sampling import level_of
    from progan.models.loading import load
    from progan.system.device import choose_device

    G = load(choose(path, kimg).file, choose_device(device), own=plugin)
    level = level_of(G, level, resolution)
    pixels = read_target(G, target, level)
    for line in [] if label is None else taken_as_names(G, [label]):
        say(PlainConsole(), line)
    with stages() as progress:
        found = save_projection(
            G, pixels, outdir, save_video=save_video, num_steps=num_steps, seed=seed, label=label,
            search_label=search_label, level=level, progress=progress,
        )  # fmt: skip
    say(PlainConsole(), f"{outdir}: {describe(found, G)}")


def directions(
    path: Path,
    *,
    kimg: Kimg = None,
    k: Annotated[int, Parameter(name=["-K", "--k"])] = 8,
    method: Annotated[list[Literal["sefa", "pca", "looks"]] | None, Parameter(consume_multiple=True)] = None,
    scores: Path | None = None,
    names: Words = None,
    seeds: str = "0-3",
    reach: float = 4.0,
    outdir: Annotated[Path | None, Parameter(alias="-o")] = None,
    level: int | None = None,
    device: str = "auto",
    plugin: Plugins = (),
) -> None:
    """Find directions along which pictures change in one way, and show each as a strip.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    k
        How many by each of sefa and pca.
    method
        sefa (what the first layer magnifies most), pca (in which its features vary most), looks (brightness,
        contrast, colours); default: all.
    scores
        CSV with scores or labels of pictures of `progan generate`: its first column names them, each other
        column of numbers, or each label, becomes a direction. Or a folder into whose sub-folders they were
        sorted.
    names
        Names for the directions, in their order.
    seeds
        Pictures that the strips show.
    reach
        How far the strips go to either side.
    outdir
        Folder of the strips; default: directions beside the generator. directions.npz goes into it too.
    level
        Level of the pictures; default: the highest that was trained.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.explore import directions as ways
    from progan.explore.strips import save_strips
    from progan.generation.samples import of_seeds, parse_seeds
    from progan.generation.sampling import level_of
    from progan.models.loading import load
    from progan.system.device import choose_device

    found = choose(path, kimg)
    G = load(found.file, choose_device(device), own=plugin)
    folder = outdir or ways.folder_of(path, None if kimg is None else found.images_seen)
    with stages() as progress:
        made = ways.find_directions(
            G, k, method or ("looks", "sefa", "pca"), table=scores, names=names or (), progress=progress
        )
        ways.save(made, folder / ways.FILE)
        strips = save_strips(
            G, made, of_seeds(G, parse_seeds(seeds)), folder, reach=reach, level=level_of(G, level)
        )
        for done, _ in enumerate(strips, 1):
            progress("drawing", done, len(made) + 1)
    say(PlainConsole(), f"{folder}: {len(made)} directions, {', '.join(way.name for way in made)}")


def mix(
    path: Path,
    a: str,
    b: str,
    *,
    kimg: Kimg = None,
    out: Annotated[Path, Parameter(alias="-o")] = Path("mix.png"),
    how: Literal["all", "average", "halves", "layers"] = "all",
    share: float = 0.5,
    at: int = 0,
    level: int | None = None,
    scale: int = 1,
    device: str = "auto",
    plugin: Plugins = (),
) -> None:
    """Make one picture of two.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    a, b
        The two: a seed each, or a file of one latent, as `progan project` writes it.
    out
        The picture.
    how
        average (between their latents), halves (of features at a level), layers (the first's up to a level,
        with the second's colours and textures from there on), or all, as one sheet.
    share
        How much of the second, from 0 to 1.
    at
        Level of the features.
    level
        Level of the picture; default: the highest that was trained.
    scale
        Enlarge it by a whole factor.
    device
        auto, cpu, cuda, mps, ...
    """
    from progan.explore.mixing import ingredient, save_sheet
    from progan.explore.mixing import mix as mixed
    from progan.generation.grids import save_grid
    from progan.generation.picture_form import PictureForm
    from progan.models.loading import load
    from progan.system.device import choose_device

    G = load(choose(path, kimg).file, choose_device(device), own=plugin)
    first, second = ingredient(G, a), ingredient(G, b)
    if how == "all":
        save_sheet(G, first, second, out, names=(Path(a).stem, Path(b).stem), level=level)
    else:
        picture = mixed(G, first, second, how, share=share, at=at, level=level)
        facts = {"mix": [a, b], "how": how, "share": share, "at": at}
        save_grid(picture[None], out, 1, form=PictureForm(scale=scale), facts=facts)
    say(PlainConsole(), f"mixed: {out}")


def explore(
    path: Path,
    *,
    kimg: Kimg = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    offline: bool = False,
    title: str | None = None,
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 0,
    open_browser: Annotated[bool, Parameter(name="--open")] = False,
    plugin: Plugins = (),
) -> None:
    """Make a web page on which the visitor's browser runs the generator, and show it on this machine.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    out
        Write it into this folder and end, for a web host or a static Space; default: explore beside the
        generator, which is then served on 127.0.0.1 until Ctrl-C.
    offline
        Copy the runtime (41 MB) beside the page, which then loads nothing from elsewhere.
    title
        Its head; default: the name of the run.
    port
        Where it is served; 0 for any that is free.
    open_browser
        Open it in a browser.
    """
    from progan.explore.about import about_of, directions_of
    from progan.explore.serving import address, serve
    from progan.explore.web_page import write_page
    from progan.models.loading import load

    found = choose(path, kimg)
    G, seen = load(found.file, own=plugin), None if kimg is None else found.images_seen
    folder = out or (
        path / ("explore" if seen is None else f"explore-{seen:09d}")
        if path.is_dir() else Path(f"{path.stem}-explore")
    )  # fmt: skip
    with stages() as progress:
        page = write_page(
            G, folder, about_of(path, G, title, seen), directions=directions_of(path, G, progress, seen),
            offline=offline, progress=progress,
        )  # fmt: skip
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
    if out is not None:
        say(PlainConsole(), f"page: {page} ({size:,.1f} MB in {folder}; any host of static files serves it)")
        return
    with serve(folder, port) as server:
        say(PlainConsole(), f"page: {page} ({size:,.1f} MB)\nopen {address(server)} (Ctrl-C ends it)")
        if open_browser:
            webbrowser.open(address(server))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
