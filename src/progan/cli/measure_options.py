"""What the commands that measure are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from progan.cli.config import Plugins
from progan.cli.terminal.console import PlainConsole, interruptible, say
from progan.cli.terminal.results_table import print_results
from progan.config import parse_colour, parse_resolution
from progan.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from progan.distributed.ranks import Ranks
    from progan.evaluation.results import Result
    from progan.metrics.extractor_files import Inception
    from progan.metrics.registry import Own
    from progan.runs.run_folder import RunFolder

GAP = "duality_gap"
"""The metric that is of a run's two networks, and not of a set of images."""
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
AtLeastOne = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What both commands are told about how to measure; the words below each option are its help."""

    metrics: Annotated[tuple[str, ...], Parameter(show_default=" ".join)] = ("swd", "ms_ssim")
    """Any of swd, ms_ssim, fid, kid, is, pr, of generators ppl, and of runs duality_gap."""
    num_images: AtLeastOne | None = None
    """Images to measure; default: 16,384, or fewer if a set has fewer."""
    num_reals: AtLeastOne | None = None
    """Images to compare with; default: as many."""
    seed: int | None = None
    """Of samples, the choice of images, and the metrics; default: 0, for duality_gap the run's."""
    resolution: str | None = None
    """Size to measure at, 64 or 64x96; default: the highest of generators and packed sets."""
    extractor: Path | None = None
    """Network for all but swd and ms_ssim, TorchScript or torch.export; default: Inception, in the cache."""
    resize: str = "none"
    """How images are resized for the extractor: none, or such as bilinear-antialias:224."""
    normalise: str = "0..255"
    """How pixels are scaled for it: 0..255, 0..1, -1..1 or imagenet."""
    download: Flag = False
    """Fetch the Inception network if it is not in the cache."""
    background: str | None = None
    """What images with transparency are laid on: white, #rrggbb, ...; default: as trained, or white."""
    device: str = "auto"
    """auto, cpu, cuda, mps, ..."""
    force: Flag = False
    """Compute again what is known."""
    plugin: Plugins = ()
    as_json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
    """Print a line of JSON for each metric instead of a table; what is said besides goes to stderr."""

    def console(self) -> PlainConsole:
        """Return where sentences go: not among numbers that another program reads."""
        return PlainConsole(stderr=self.as_json)

    def show(self, results: Sequence[Result]) -> None:
        """Print results."""
        if not self.as_json:
            print_results(self.console(), results)
        for result in results if self.as_json else ():
            say(PlainConsole(), result.line().rstrip())

    def own_metrics(self, run: RunFolder | None = None) -> Own:
        """Return the metrics of --plugin by name, with the options that they have in a run."""
        from progan.config import MonitorOptions, read_plugins
        from progan.metrics.registry import own_metrics

        parts = read_plugins(self.plugin)
        return own_metrics(parts, MonitorOptions() if run is None else run.config(parts).monitor)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) to measure at, or None."""
        return None if self.resolution is None else parse_resolution(self.resolution)

    def ground(self, trained: str = "white") -> tuple[int, int, int]:
        """Return the background as a colour; `trained` is that of a run."""
        try:
            return parse_colour(self.background or trained)
        except ValueError as error:
            raise ConfigError(f"background: {error}") from None

    @property
    def seed_of_images(self) -> int:
        """Seed of everything but the duality gap."""
        return 0 if self.seed is None else self.seed

    def load(self, ranks: Ranks, device: torch.device) -> Inception:
        """Load the extractor, and let the other processes know how far it is."""
        from progan.metrics.registry import ExtractorFile

        file = ExtractorFile(self.extractor, self.resize, self.normalise, self.download)
        with interruptible(ranks, None) as progress:
            return file.load(device, progress)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GapTraining:
    """How the copies of the duality gap are trained, where that differs from the run's configuration."""

    gap_steps: int | None = None
    """Of duality_gap: updates of each copy; default: monitor.gap_steps of the run."""
    gap_lr: float | None = None
    """Of duality_gap: learning rate of the copies; default: monitor.gap_lr of the run."""
