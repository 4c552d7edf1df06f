"""The duality gap: how far G and D are from a point at which neither can gain by changing alone.

Grnarova et al., *A Domain Agnostic Measure for Monitoring and Evaluating GANs*, NeurIPS 2019
(arXiv 1811.05512), definition 1 and section 4: with the value M(G, D) of the game,

    gap = max over D' of M(G, D') - min over G' of M(G', D).

The best answers D' and G' ("worst" for the other side) are approximated by training copies of D and G on
the validation part, and both values are taken on the test part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progan.config import Config, OptimizerOptions, per_level
from progan.data.batches import Batches, micro_batches
from progan.data.packed import PackedSet
from progan.distributed.work_sharing import Deal, Part, Work, alone, in_parts
from progan.errors import ConfigError, DataError, DivergenceError, memory_reason
from progan.models.autograd import autocast
from progan.models.generator import Generator
from progan.system.progress import Progress, unheard
from progan.system.randomness import random_generator
from progan.training.augment import draws_of
from progan.training.losses import Conditions, Objective, discriminator_terms
from progan.training.optimizer import Optimizer
from progan.training.precision import SMALL_TYPES, needs_loss_scaling
from progan.training.state import TrainState
from progan.training.step import Networks, PartSizes, Step, TooLittleMemoryError, Trained, is_out_of_memory

NAME = "duality_gap"
COPIES = "training copies for the duality gap"
"""Name of the work that processes share."""
SPLIT = (
    "Split the pictures when they are prepared: progan prepare PICTURES DESTINATION --split 0.8,0.1,0.1; of "
    "a folder, .zip or builtin: set, progan train does it with --data.split 0.8,0.1,0.1"
)
"""What to do before training about pictures that are not split, or into parts that are too small."""
FIXED = (
    "The pictures of a run stay as they are: leave monitor.duality_gap out, or begin a new run with others"
)
"""What to do about them when a run goes on."""
GENTLER = (
    "lower the rate or the number of the copies' updates (monitor.gap_lr and monitor.gap_steps, or --gap-lr "
    "and --gap-steps of progan evaluate)"
)
VERSION = 1
"""Raised whenever the definition changes, so that numbers of the old one are not taken for new ones."""

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Gap:
    """What was measured, in units of the adversarial loss.

    `value` is M(G, D) of the pair as it is, `minmax` M(G, D') of the worst D for this G, `maxmin` M(G', D) of
    the worst G for this D.
    """

    value: float
    minmax: float
    maxmin: float

    @property
    def gap(self) -> float:
        """The duality gap, minmax - maxmin."""
        return self.minmax - self.maxmin

    def numbers(self) -> dict[str, float]:
        """Return all of them by the names that they are logged under."""
        return {
            f"{NAME}/gap": self.gap,
            f"{NAME}/minmax": self.minmax,
            f"{NAME}/maxmin": self.maxmin,
            f"{NAME}/value": self.value,
        }


class DualityGap:
    """Measures the duality gap of G and D, at whatever level they are, and leaves them as they are.

    M(G, D) is D's adversarial loss with the sign changed: the mean of -discriminator_loss over test images
    and as many samples, without noise on the targets, penalties and label losses. So D maximises M, and G's
    own loss lowers it. For `wgan` that is E[D(x)] - E[D(G(z))]; for `logistic` the value of the game of
    Goodfellow et al. 2014, E[log s(D(x))] + E[log(1 - s(D(G(z))))]. Images are what training shows D:
    cross-faded at this level and alpha, augmented with the present probability.

    D' is trained with all of D's loss: the penalties and labels say which D are allowed. G' is trained with
    G's own loss. Both begin as copies and have fresh moments of Adam.

    All randomness is a function of (seed, clock); the test images and their latents are the same each time,
    so that values at two clocks, and the three of one clock, differ in the networks alone.

    Args:
        config: Resolved configuration of the run; `monitor` says how the copies are trained.
        packed: Pictures with a validation and a test part (`require_parts`).
        device: Where the networks are.
        seed: None for that of the run.
        num_images: Test pictures that are scored, at most; None: `monitor.num_images`. There are whole
            batches of the level's batch size, and at least one.
        say: Told when memory asks for smaller parts of batches.
    """

    def __init__(
        self,
        config: Config,
        packed: PackedSet,
        device: torch.device,
        *,
        seed: int | None = None,
        num_images: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config, self._packed, self._device = config, packed, device
        self._seed = config.run.seed if seed is None else seed
        self._most = min(num_images or config.monitor.num_images, len(packed.indices("test")))
        self._parts = PartSizes(config, lambda message: say(f"for the duality gap, {message}"))

    def count(self, level: int) -> int:
        """Return how many test images are scored at a level."""
        n = per_level(self._config.schedule.batch_size, level)
        return max(1, self._most // n) * n

    def measure(
        self,
        state: TrainState,
        stop: Stop = lambda: False,
        progress: Progress = unheard,
        deal: Deal = alone,
    ) -> Gap | None:
        """Measure G (the present one, not the average) and D of a state, which stays as it is.

        Args:
            state: A run; its networks' own level and alpha count.
            stop: Asked before each update whether to give up.
            progress: Told how many updates are made, after each that is made here.
            deal: Who trains each of the two copies; the numbers do not depend on it.

        Returns:
            The gap, or None if it was given up.

        Raises:
            DivergenceError: if a value is not finite, or the gradients of a copy overflow float16.
            ConfigError: if memory does not hold the copies.
        """
        try:
            return self._measure(state, stop, progress, deal)
        except TooLittleMemoryError as error:  # its advice is for the run, which has enough
            reason = error.reason
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = memory_reason(error)
        raise ConfigError(
            f"memory does not hold a second copy of the networks for the duality gap ({reason}); leave it "
            f"out, or measure it where there is more: progan evaluate RUN --metrics {NAME} --device cpu"
        )

    def _measure(self, state: TrainState, stop: Stop, progress: Progress, deal: Deal) -> Gap | None:
        value = self._value((state.G, state.D), _conditions(state))
        if not math.isfinite(value):
            raise DivergenceError(
                f"the duality gap cannot be measured: of G and D as they are the value is {value}, so one of "
                f"them has run away itself; an earlier checkpoint may be sound"
            )
        reached: list[float] = []
        for (answer,) in deal(self.work(state, stop, progress), in_parts(np.arange(2), 1)):
            if math.isnan(answer):
                return None
            reached.append(float(answer))
        return Gap(value, *reached)

    def work(self, state: TrainState, stop: Stop = lambda: False, progress: Progress = unheard) -> Work:
        """Return the training of the two copies, of D (0) and of G (1), as `measure` deals it.

        Each is trained whole wherever that is, since shares of its batches would add up to other bits. What
        is made is the value that it reaches, NaN if that was given up. The arguments are those of `measure`.
        """

        def make(part: Part) -> NDArray[np.float64]:
            return np.array([self._worst(("D", "G")[i], state, stop, progress) for i in part])

        return Work(COPIES, make)

    def _worst(self, trained: Trained, state: TrainState, stop: Stop, progress: Progress) -> float:
        """Train a copy of D or G on the validation part; return what it reaches, NaN if it was given up.

        D is trained with all of its loss. G's labels, and the partners of a relativistic loss, are those of
        validation pictures. A DivergenceError tells of gradients that overflow float16 at every loss scale.
        """
        at, clock, monitor = _conditions(state), state.images_seen, self._config.monitor
        worst_d = trained == "D"
        networks = (state.G, copy.deepcopy(state.D)) if worst_d else (copy.deepcopy(state.G), state.D)
        done = 0 if worst_d else monitor.gap_steps
        config, batches = self._batches(networks[0], "validation", f"worst {trained}", clock)
        options = OptimizerOptions(beta1=monitor.gap_beta1, beta2=monitor.gap_beta2)
        copied = networks[1] if worst_d else networks[0]
        optimizer = Optimizer(copied, options, loss_scaling=needs_loss_scaling(config.run.precision))
        step = Step(networks, {trained: optimizer}, config, self._parts)
        draw = batches.discriminator if worst_d else batches.generator
        n, faded = per_level(config.schedule.batch_size, at.level), _faded(networks[0], at)
        for k in range(monitor.gap_steps):
            if stop():
                return math.nan
            due = worst_d and k % config.loss.penalty_interval == 0
            batch = draw(k * n, n, at.level, faded)
            try:
                step(batch, replace(at, penalize=due), {trained: monitor.gap_lr})
            except DivergenceError:  # its advice is for the run, which is well
                raise DivergenceError(
                    f"the duality gap cannot be measured: the gradients of a copy of "
                    f"{type(copied).__name__} overflow float16 after {k} updates, however small the loss is "
                    f"scaled; {GENTLER}"
                ) from None
            progress(NAME, done + k + 1, 2 * monitor.gap_steps)
        return _finite(self._value(networks, at), trained)

    @torch.no_grad()
    def _value(self, networks: Networks, at: Conditions) -> float:
        """Return M(G, D) on the test part."""
        config, batches = self._batches(networks[0], "test", "value", 0)
        objective = Objective.of(config)
        n, count = per_level(config.schedule.batch_size, at.level), self.count(at.level)
        D, largest = networks[1], self._parts.largest(at.level, n)
        faded = _faded(networks[0], at)
        at = replace(at, penalize=False)
        losses = []
        for clock in range(0, count, n):
            batch = batches.discriminator(clock, n, at.level, faded)
            for positions in micro_batches(n, D.stddev_group, largest, contiguous=D.stddev_contiguous):
                with autocast(SMALL_TYPES.get(config.run.precision), self._device):
                    terms = discriminator_terms(*networks, batch.take(positions), at, objective)
                losses.append(terms["adversarial"])
        return -float(torch.cat(losses).cpu().double().mean())

    def _batches(self, G: Generator, part: str, purpose: str, clock: int) -> tuple[Config, Batches]:
        """Return the batches of a purpose, drawn from a seed of its own, and their configuration.

        The order is shuffled in any case, because stored pictures may be sorted by class; the targets of the
        value have no noise. Everything else is as in training.
        """
        config = self._config
        rng = random_generator(self._seed, f"{NAME}: {purpose}", clock)
        changes: dict[str, Any] = {
            "run": config.run.model_copy(update={"seed": int(rng.integers(2**63))}),
            "data": config.data.model_copy(update={"part": part, "order": "shuffle"}),
        }
        if purpose == "value":
            changes["loss"] = config.loss.model_copy(update={"target_noise": 0.0})
        config = config.model_copy(update=changes)
        batches = Batches(
            self._packed,
            config,
            latent_size=G.latent_size,
            draws=draws_of(config),
            device=self._device,
            dtype=next(G.parameters()).dtype,
            channels_last=self._device.type != "mps",
        )
        return config, batches


def _finite(value: float, copied: str) -> float:
    """Return the value that a copy of G or D reaches, if it is a number."""
    if math.isfinite(value):
        return value
    raise DivergenceError(
        f"the duality gap is not finite: the worst {copied} ran away (its value is {value}); {GENTLER}"
    )


def _conditions(state: TrainState) -> Conditions:
    """Return what holds where a state is: level, alpha and the augmentations' probability."""
    G = state.G
    return Conditions(
        level=G.level,
        alpha=next(G.parameters()).new_full((), G.alpha) if G.alpha < 1 else None,
        probability=state.augmenter.probability,
    )


def _faded(G: Generator, at: Conditions) -> Tensor | None:
    """Return the alpha that reals are cross-faded with; those of a level that is morphed in are whole."""
    return at.alpha if G.growth == "fade" else None


def require_parts(config: Config, packed: PackedSet, largest: int, *, resumed: bool = False) -> None:
    """Refuse a run whose pictures do not allow the duality gap to be measured while it trains, in words.

    Args:
        config: Resolved configuration.
        packed: The pictures.
        largest: Images in the largest batch of the run.
        resumed: The run has begun, so that its pictures stay as they are.

    Raises:
        ConfigError: if the run trains on other parts than the training part.
        DataError: if the validation or the test part has fewer pictures than a batch.
    """
    if config.data.part != "train":
        raise ConfigError(
            f"monitor.duality_gap is measured on pictures that are not trained on, and data.part "
            f"{config.data.part} trains on other parts than train; leave one of the two out"
        )
    require_sizes(packed, largest, FIXED if resumed else SPLIT)


def require_sizes(packed: PackedSet, largest: int, advice: str) -> None:
    """Refuse pictures whose validation or test part is smaller than a batch.

    Args:
        packed: The pictures.
        largest: Images in the batch.
        advice: What to do, as the end of the message.

    Raises:
        DataError: if so.
    """
    for part in ("validation", "test"):
        held = len(packed.indices(part))
        if held < largest:
            has = f"{held:,} pictures, fewer than a batch of {largest}" if held else "no pictures"
            raise DataError(
                f"{packed.path}: the {part} part has {has}, and the duality gap needs both. {advice}"
            )
