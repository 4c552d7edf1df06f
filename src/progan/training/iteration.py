"""One iteration of training: D several times, the average after each, then G."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from progan.config import Config
from progan.data.batches import Batches
from progan.data.packed import PackedSet
from progan.distributed.ranks import ALONE, Ranks
from progan.models import morph
from progan.models.generator import LABEL_EXAMPLES
from progan.system.randomness import random_generator
from progan.training.acceleration import Acceleration, Functions
from progan.training.augment import DRAWS
from progan.training.objective import Conditions, Terms
from progan.training.optimizer import Optimizer, average_decay, update_average
from progan.training.schedule import Point
from progan.training.spec import Spec
from progan.training.state import TrainState
from progan.training.step import PartSizes, discriminator_step, generator_step


class Updates:
    """Carries a state on, one iteration at a time.

    Args:
        plan: Configuration, shapes and schedule.
        packed: The pictures.
        device: Where to compute.
        say: Told when memory asks for smaller parts.
        ranks: The processes that share each batch.

    Attributes:
        plan: As given.
        state: Everything that training changes.
        batches: What each update uses.
        functions: What computes the gradients of the iteration that was made last.
    """

    def __init__(
        self,
        spec: Spec,
        packed: PackedSet,
        device: torch.device,
        say: Callable[[str], None],
        ranks: Ranks = ALONE,
    ) -> None:
        config = spec.config
        self._ranks = ranks
        self.spec = spec
        self._config, self._schedule, self._device = config, spec.schedule, device
        self._say = say
        self._parts = PartSizes(config, say)
        self.state = TrainState.create(config, spec.image, device, label_examples(packed, config))
        networks = (self.state.G, self.state.D)
        self._acceleration = Acceleration(networks, config, device, say)
        self.functions = Functions()
        self.batches = Batches(
            packed,
            config,
            latent_size=self.state.G.latent_size,
            draws=DRAWS if config.augment.policy else 0,
            device=device,
            channels_last=device.type != "mps",
            rank=ranks.rank,
            ranks=ranks.size,
        )

    def iterate(self, point: Point) -> list[Terms]:
        """Make one iteration.

        Args:
            point: Where the schedule stands.

        Returns:
            The means of the terms of each update, named `D/...` and `G/...`: 0-d tensors on the device.

        Raises:
            ConfigError: if memory does not hold a single minibatch-stddev group.
        """
        state, config, n = self.state, self._config, point.batch_size
        networks = (state.G, state.D)
        clock = state.images_seen
        self._enter(point)
        self.functions = self._acceleration.functions(point, clock)
        noted = [self._update_discriminator(point) for _ in range(config.loss.d_steps)]
        at = self._conditions(point, state.g_optimizer, penalize=False)
        self._ranks.at("the update of G", clock, point.phase.name)
        batch = self.batches.generator(clock, n, point.level, at.alpha if point.fading else None)

        def step(largest: int) -> Terms:
            return generator_step(
                networks, state.g_optimizer, batch, at, config, point.g_lr, largest, self.functions.G, n,
                self._ranks,
            )  # fmt: skip

        terms = self._parts.fit(step, state.g_optimizer, point.level, len(batch))
        return [*noted, {f"G/{name}": value for name, value in terms.items()}]

    def _morph(self, level: int) -> None:
        """Compute all levels up to this one from what is trained, in the networks and in the average."""
        state = self.state
        self._ranks.at("growth", state.images_seen, f"level {level}")
        for new in range(state.G.level + 1, level + 1):
            g, d = morph.grow(state.G, new), morph.grow(state.D, new)
            morph.grow(state.G_ema, new)
            self._say(
                f"level {new} grows out of level {new - 1} (condition of the new filters: G {g.worst:.1f}, "
                f"D {d.worst:.1f})"
            )

    def _update_discriminator(self, point: Point) -> Terms:
        """Show D one batch, update it, and move the average and the clock on."""
        state, config, n = self.state, self._config, point.batch_size
        networks = (state.G, state.D)
        update = self._schedule.at(state.images_seen).update
        at = self._conditions(point, state.d_optimizer, penalize=update % config.loss.penalty_interval == 0)
        # A level that is morphed in judges whole images from the start: of them it sees no more than before.
        faded = at.alpha if point.fading else None
        self._ranks.at("the update of D", state.images_seen, point.phase.name)
        batch = self.batches.discriminator(state.images_seen, n, point.level, faded)

        def step(largest: int) -> Terms:
            return discriminator_step(
                networks, state.d_optimizer, batch, at, config, point.d_lr, largest, self.functions.D, n,
                self._ranks,
            )  # fmt: skip

        terms = self._parts.fit(step, state.d_optimizer, point.level, len(batch))
        state.images_seen += n
        if "real_positive" in terms:
            state.augmenter.observe(terms["real_positive"], n)
        update_average(state.G_ema, state.G, average_decay(config.optimizer, n, state.images_seen))
        return {f"D/{name}": value for name, value in terms.items()}

    def _conditions(self, point: Point, optimizer: Optimizer, *, penalize: bool) -> Conditions:
        """Return what holds during the next update of one network."""
        return Conditions(
            level=point.level,
            alpha=torch.full((), point.alpha, device=self._device) if point.growing else None,
            probability=self.state.augmenter.probability,
            penalize=penalize,
            scale=optimizer.scale,
        )

    def _enter(self, point: Point) -> None:
        """Let the networks grow, and reset the optimizers, where the schedule asks for it."""
        state = self.state
        grew = point.level > state.G.level
        if grew and self._config.schedule.growth == "morph":
            self._morph(point.level)
        state.set_growth(point.level, point.alpha)
        self.batches.enter(point.level)
        if point.phase.name == state.phase:
            return
        reset = self._config.optimizer.reset
        if state.phase and (reset == "phase" or (reset == "level" and grew)):
            state.g_optimizer.reset()
            state.d_optimizer.reset()
        state.phase = point.phase.name


def label_examples(packed: PackedSet, config: Config) -> Tensor | None:
    """Return labels of training pictures, [64, label_size], or None where a label is a single class."""
    if packed.label_form == "class":
        return None
    rng = random_generator(config.run.seed, "label examples", 0)
    chosen = rng.choice(packed.indices(config.data.part), LABEL_EXAMPLES)
    return torch.from_numpy(packed.label_vectors(chosen))
