"""The table of docs/explore.md: commands on a run, seconds of a core that they take, pictures that they make.

    python benchmarks/wishes.py RUN [--images docs/images/wishes]

Prints the table. The run is one with classes, such as that of `make demo`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from progan.data.packed import PackedSet
from progan.data.pixels import to_image
from progan.runs.run_folder import RunFolder

_WIDEST = 560


class Wish(NamedTuple):
    """A wish: in words, as a command (without `progan`), in Python, and the picture that the command makes.

    RUN is the run.
    """

    words: str
    command: str
    python: str
    made: str = ""


WISHES = (
    Wish("pictures of certain seeds", "generate RUN --seeds 0,1,4-6 --grid 1x5 -o seeds.png",
         "progan.generation.save_samples.save_samples", "seeds.png"),
    Wish("a grid, a class a row", "generate RUN --grid 3x8 --label A --label K --label S -o grid.png",
         "the same", "grid.png"),
    Wish("fewer odd ones", "generate RUN --trunc 0.7 --grid 2x8 -o trunc.png",
         "generation.truncation.Truncation", "trunc.png"),
    Wish("a film from picture to picture", "interpolate RUN --seeds 3,8,5 --w-frames 12 --fps 12 -o way.webp",
         "progan.interpolate", "way.webp"),
    Wish("the latent of my own photo", "project RUN --target photo.png",
         "explore.projection.project", "projected/projected.png"),
    Wish("what can be changed", "directions RUN -K 4", "find_directions", "RUN/directions/all.png"),
    Wish("two pictures in one", "mix RUN 3 projected/projected.npz", "explore.mixing.mix", "mix.png"),
    Wish("sliders in a browser", "explore RUN --out page", "explore.web_page.write_page"),
    Wish("a film of the training", "movie RUN -o growth.mp4", "report.growth_film.make_movie"),
    Wish("a page of what happened", "report RUN -o report.html", "report.html_page.write_report"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    run = options.run.resolve()
    print("| wish | command | in Python | seconds | |\n| --- | --- | --- | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = PackedSet.open(RunFolder(run).pictures())
        to_image(packed.read(packed.max_level, [0])[0]).save(folder / "photo.png")
        for number, wish in enumerate(WISHES, 1):
            words = [str(run) if word == "RUN" else word for word in wish.command.split()]
            begun = core_seconds()
            subprocess.run(
                [sys.executable, "-m", "progan", *words], cwd=folder, check=True, capture_output=True
            )
            seconds, picture = core_seconds() - begun, ""
            if options.images and wish.made:
                file = options.images / f"{number}.webp"
                shrink(folder / wish.made.replace("RUN", str(run)), file)
                picture = f"![{wish.words}](images/wishes/{file.name})"
            python = wish.python if " " in wish.python else f"`{wish.python}`"
            row = (wish.words, f"`progan {wish.command}`", python, f"{seconds:.0f}", picture)
            print(f"| {' | '.join(row)} |", flush=True)


def core_seconds() -> float:
    """Return the seconds of a core that commands have taken until now: no matter what else runs here."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shrink(source: Path, out: Path) -> None:
    """Write a picture or film as WebP, smaller if it is wide."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as film:
        frames, delays = [], []
        for i in range(getattr(film, "n_frames", 1)):
            film.seek(i)
            frame = film.convert("RGB")
            delays.append(film.info.get("duration", 100))
            frames.append(
                frame if frame.width <= _WIDEST else frame.resize(
                    (_WIDEST, frame.height * _WIDEST // frame.width), Image.Resampling.LANCZOS
                )
            )  # fmt: skip
    frames[0].save(
        out, save_all=True, append_images=frames[1:], duration=delays, loop=0, quality=82, method=6
    )


if __name__ == "__main__":
    main()
