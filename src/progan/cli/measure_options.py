"""What the commands that measure are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from progan.cli.terminal.console import interruptible
from progan.config import parse_resolution

if TYPE_CHECKING:
    import torch

    from progan.distributed.ranks import Ranks
    from progan.metrics.extractor_files import Inception

GAP = "duality_gap"
"""The metric that is of a run's two networks, and not of a set of images."""
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What both commands are told about how to measure; the words beside each option are its help."""

    metrics: Annotated[
        tuple[str, ...],
        Parameter(
            help="Any of swd, ms_ssim, fid, kid, is, pr, of generators ppl, and of runs duality_gap.",
            show_default=" ".join,
        ),
    ] = ("swd", "ms_ssim")
    num_images: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=1),
            help="Images to measure; default: 16,384, or fewer if a set has fewer.",
        ),
    ] = None
    num_reals: Annotated[
        int | None,
        Parameter(validator=validators.Number(gte=1), help="Images to compare with; default: as many."),
    ] = None
    seed: Annotated[
        int | None,
        Parameter(
            help="Of samples, the choice of images, and the metrics; default: 0, for duality_gap the run's."
        ),
    ] = None
    resolution: Annotated[
        str | None,
        Parameter(
            help="Size to measure at, 64 or 64x96; default: the highest of generators and packed sets."
        ),
    ] = None
    extractor: Annotated[
        Path | None,
        Parameter(
            help="Network for all but swd and ms_ssim, TorchScript or torch.export; default: Inception, in "
            "the cache."
        ),
    ] = None
    resize: Annotated[
        str,
        Parameter(help="How images are resized for the extractor: none, or such as bilinear-antialias:224."),
    ] = "none"
    normalise: Annotated[
        str, Parameter(help="How pixels are scaled for it: 0..255, 0..1, -1..1 or imagenet.")
    ] = "0..255"
    download: Annotated[Flag, Parameter(help="Fetch the Inception network if it is not in the cache.")] = (
        False
    )
    device: Annotated[str, Parameter(help="auto, cpu, cuda, mps, ...")] = "auto"
    force: Annotated[Flag, Parameter(help="Compute again what is known.")] = False

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) to measure at, or None."""
        return None if self.resolution is None else parse_resolution(self.resolution)

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

    gap_steps: Annotated[
        int | None,
        Parameter(help="Of duality_gap: updates of each copy; default: monitor.gap_steps of the run."),
    ] = None
    gap_lr: Annotated[
        float | None,
        Parameter(help="Of duality_gap: learning rate of the copies; default: monitor.gap_lr of the run."),
    ] = None
