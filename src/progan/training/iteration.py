"""One iteration of training: D several times, the average after each, then G; or both, then the average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from progan.config import Config
from progan.data.batches import Batch, Batches
from progan.data.packed import PackedSet
from progan.distributed.ranks import ALONE, Ranks
from progan.models import morph
from progan.models.generator import LABEL_EXAMPLES
from progan.system.randomness import random_generator
from progan.training.acceleration import Acceleration
from progan.training.augment import draws_of
from progan.training.losses import Conditions, Terms
from progan.training.optimizer import Optimizer, average_decay, update_average
from progan.training.schedule import Point
from progan.training.spec import Spec
from progan.training.state import TrainState
from progan.training.step import (
    GradientFunction,
    PartSizes,
    Step,
    Trained,
    Update,
    trained_by,
    updates_of,
)


class Iteration:
    """Carries a state on, one iteration a call (Karras et al. 2018, appendix A.1; the original's train.py).

    `say` is told when memory asks for smaller parts, when a level is morphed in, and what is compiled; the
    ranks share each batch.

    Attributes:
        state: Everything that training changes.
        batches: What each update uses.
        steps: The update of each network, or of both.
        gradients: What found the gradients of each update in the iteration that was made last.
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
        self.spec, self._device, self._say, self._ranks = spec, device, say, ranks
        self.state = TrainState.create(config, spec.image, device, label_examples(packed, config))
        networks, sizes = (self.state.G, self.state.D), PartSizes(config, say)
        optimizers: dict[Trained, Optimizer] = {"D": self.state.d_optimizer, "G": self.state.g_optimizer}
        self._order = updates_of(config)
        self.steps: dict[Update, Step] = {
            update: Step(
                networks, {name: optimizers[name] for name in trained_by(update)}, config, sizes, ranks
            )
            for update in self._order
        }
        self._acceleration = Acceleration(networks, config, device, say)
        self.gradients: dict[Update, GradientFunction] = {}
        self.batches = Batches(
            packed,
            config,
            latent_size=self.state.G.latent_size,
            draws=draws_of(config),
            device=device,
            channels_last=device.type != "mps",
            rank=ranks.rank,
            ranks=ranks.size,
        )

    def __call__(self, point: Point) -> list[Terms]:
        """Make one iteration.

        Args:
            point: Where the schedule stands.

        Returns:
            The means of the terms of each update, named `D/...` and `G/...`: 0-d tensors on the device.

        Raises:
            ConfigError: if memory does not hold a single minibatch-stddev group.
        """
        state, optimizer, n = self.state, self.spec.config.optimizer, point.batch_size
        begun, interval = state.images_seen, self.spec.config.loss.penalty_interval
        self._enter(point)
        self.gradients = self._acceleration.functions(point, begun)
        at, phase, noted = self.conditions(point), point.phase.name, list[Terms]()
        # A level that is morphed in judges whole images from the start: of them it sees no more than before.
        faded = at.alpha if point.fading else None
        rates: dict[Trained, float] = {"D": point.d_lr, "G": point.g_lr}
        network = self._order[0]
        self._ranks.at(lambda: f"the update of {network} at {state.images_seen:,} images ({phase})")
        for index, update in enumerate(self._order, start=point.update):
            if update == "G":  # its batch is that of the iteration's first update
                batch: Batch = self.batches.generator(begun, n, at.level, faded)
            else:
                batch = self.batches.discriminator(state.images_seen, n, at.level, faded)
            due = update != "G" and index % interval == 0
            terms = self.steps[update](batch, replace(at, penalize=due), rates, n, self.gradients[update])
            if update != "G":
                state.images_seen += n
                if "D/real_positive" in terms:
                    state.augmenter.observe(terms["D/real_positive"], n)
                update_average(state.G_ema, state.G, average_decay(optimizer, n, state.images_seen))
            noted.append(terms)
        return noted

    def conditions(self, point: Point) -> Conditions:
        """Return what holds during the updates of an iteration."""
        return Conditions(
            level=point.level,
            alpha=torch.full((), point.alpha, device=self._device) if point.growing else None,
            probability=self.state.augmenter.probability,
        )

    def _enter(self, point: Point) -> None:
        """Let the networks grow, and reset the optimizers, where the schedule asks for it."""
        state, config = self.state, self.spec.config
        grew = point.level > state.G.level
        if grew and config.schedule.growth == "morph":
            self._morph(point.level)
        state.set_growth(point.level, point.alpha)
        self.batches.enter(point.level)
        if point.phase.name == state.phase:
            return
        reset = config.optimizer.reset
        if state.phase and (reset == "phase" or (reset == "level" and grew)):
            state.g_optimizer.reset()
            state.d_optimizer.reset()
        state.phase = point.phase.name

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


def label_examples(packed: PackedSet, config: Config) -> Tensor | None:
    """Return labels of training pictures, [64, label_size], or None where a label is a single class."""
    if packed.label_form == "class":
        return None
    rng = random_generator(config.run.seed, "label examples", 0)
    chosen = rng.choice(packed.indices(config.data.part), LABEL_EXAMPLES)
    return torch.from_numpy(packed.label_vectors(chosen))
