"""A run as an object: its generator, its numbers, its pictures, and what can be made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from progan.config import Config
from progan.errors import CheckpointError, DataError
from progan.evaluation.measure import evaluate
from progan.evaluation.results import FILE, Result
from progan.metrics.metric import Metric
from progan.metrics.registry import DEFAULT, Extractors
from progan.models.generator import Generator
from progan.models.loading import load
from progan.models.weights import Own
from progan.report.growth_film import make_movie
from progan.report.html_page import write_report
from progan.runs.logs import Stats, read_stats
from progan.runs.run_folder import RunFolder
from progan.runs.trained.kept_generators import find_generator

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # a path of this system, which is what can be derived from before Python 3.12


class Run(_Path):
    """A run folder, as a path that knows what is in it; the run may still be trained.

    It is given wherever a path is taken. Everything is read when it is asked for.

    Attributes:
        own: Networks of one's own that it uses: classes, or Python files that define them.
    """

    own: Own = ()

    @property
    def config(self) -> Config:
        """The resolved configuration; a CheckpointError tells that it cannot be read."""
        return RunFolder(self).config()

    @property
    def images_seen(self) -> int:
        """Real images shown to D when the newest generator was written; 0 if there is none."""
        try:
            return find_generator(self).images_seen or 0
        except CheckpointError:
            return 0

    @property
    def generator(self) -> Generator:
        """The averaged generator of the newest checkpoint, in evaluation mode.

        A CheckpointError tells that there is none yet.
        """
        return load(self, own=self.own)

    def find(self, kimg: float | str) -> Generator:
        """Return the generator that had seen so many thousand images, the nearest that is kept.

        Args:
            kimg: A number, or `best`: by `run.best`.

        Raises:
            CheckpointError: if there is none.
        """
        return load(find_generator(self, kimg).file, own=self.own)

    @property
    def log_points(self) -> list[Stats]:
        """The log points, oldest first, as dictionaries."""
        return read_stats(RunFolder(self).stats_file)

    @property
    def stats(self) -> Any:
        """The log points: a pandas data frame, a row each, if pandas is installed; else a list of them."""
        try:
            from pandas import DataFrame
        except ImportError:
            return self.log_points
        return DataFrame(self.log_points)

    def samples(self, kimg: float | None = None) -> Image.Image:
        """Return a grid of samples, which has the same latents throughout the run.

        Args:
            kimg: The grid nearest to so many thousand images; None for the newest.

        Raises:
            DataError: if there is none yet.
        """
        grids = sorted(RunFolder(self).samples.glob("[0-9]*_*x*.png"))
        if not grids:
            raise DataError(f"{self} has no sample grids yet")
        chosen = grids[-1]
        if kimg is not None:
            chosen = min(grids, key=lambda grid: abs(int(grid.name.split("_")[0]) - 1000 * kimg))
        with Image.open(chosen) as picture:
            picture.load()
            return picture

    def evaluate(
        self,
        metrics: Sequence[str | Metric] = DEFAULT,
        *,
        n: int | None = None,
        device: str | None = None,
        extractor: Extractors | None = None,
        seed: int = 0,
    ) -> list[Result]:
        """Measure the newest generator against the pictures of the run; what is known is not computed again.

        Args:
            metrics: Short names (swd, ms_ssim, fid, kid, is, pr, ppl), or metrics.
            n: Images of each set; None: 16,384, or fewer if there are fewer.
            device: Where to compute; None for the CPU.
            extractor: Of metrics on features; None: Inception in the cache.
            seed: Of samples, flips, and what metrics draw.

        Returns:
            A result for each metric; they are appended to `metrics.jsonl` in the run folder.

        Raises:
            ProganError: of the kind that fits.
        """
        import torch

        data = self.config.data
        return evaluate(
            self, RunFolder(self).pictures(), metrics, n=n, seed=seed, part=data.part, mirror=data.mirror,
            device=None if device is None else torch.device(device), extractor=extractor,
            out=self / FILE, own=self.own,
        )  # fmt: skip

    def report(self, out: str | Path | None = None) -> Path:
        """Write one page about the run, `report.html` in its folder unless told else, and return its path."""
        return write_report([self], out or self / "report.html", own=self.own)

    def movie(self, out: str | Path = "growth.gif", *, seconds: float = 12.0) -> Path:
        """Make a film of the training, .mp4, .webm, .webp or .gif, and return its path."""
        return make_movie(self, Path(out), seconds=seconds, own=self.own)


def open_run(path: str | Path, *, own: Own = ()) -> Run:
    """Open a run folder.

    Args:
        path: The folder.
        own: Networks of your own that the run uses: classes, or Python files that define them, which are run.

    Raises:
        CheckpointError: if it is none.
    """
    run = Run(path)
    run.own = own
    _ = run.config
    return run
