"""What a run is: both networks, the averaged generator, the optimizers, and the clock."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from progan.config import Config, ModelOptions, at_hand
from progan.errors import ConfigError
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator
from progan.models.morph import require_morphable
from progan.models.network import Network
from progan.training.adaptive_augment import Augmenter
from progan.training.interval import Interval
from progan.training.optimizer import Optimizer, level_of
from progan.training.precision import needs_loss_scaling
from progan.training.spec import ImageSpec

NetworkT = TypeVar("NetworkT", Generator, Discriminator)


def build_networks(config: Config, image: ImageSpec) -> tuple[Generator, Discriminator]:
    """Return G and D with fresh weights on the current default device."""
    growth = "morph" if config.schedule.growth == "morph" else "fade"
    arguments, model = {**image.network_arguments(), "growth": growth}, config.model
    G, D = network_class(config, Generator), network_class(config, Discriminator)
    return (
        G(**arguments, depth=image.depth, **model.generator.model_dump(), **_own(model, G)),
        D(
            **arguments,
            conditioning=model.conditioning,
            **model.discriminator.model_dump(),
            **_own(model, D),
        ),
    )


def network_class(config: Config, kind: type[NetworkT]) -> type[NetworkT]:
    """Return the class of a network that a configuration names: the shipped one, or one of one's own.

    Raises:
        ConfigError: if its definition is not at hand.
    """
    name = getattr(config.model, kind.chosen_by.rpartition(".")[2])
    return kind if name == "paper" else at_hand(config.parts.of(kind.chosen_by)[name], kind)


def _own(model: ModelOptions, network: type[Network]) -> dict[str, Any]:
    """Return the options of a network of one's own, as its constructor takes them."""
    own = getattr(model, network.name, None)
    return own.model_dump() if isinstance(own, network.Options) else {}


def frozen(config: Config, network: Generator | Discriminator) -> frozenset[str]:
    """Return the names of the parameters that are not trained, by `init.freeze_g` and `init.freeze_d`.

    Of G all that it has from the source; of D that of the levels nearest to the image: fromRGB and the blocks
    of the highest levels of the source (Mo et al. 2020, *Freeze the Discriminator*, section 3: its lower
    layers, those next to the image). Levels that grow later, and what the source did not have, are trained.
    """
    init = config.init
    if init.level is None:
        return frozenset()
    kind = network.kind[0]
    names = [name for name, _ in network.named_parameters() if f"{kind}.{name}" not in init.new]
    if kind == "G":
        return frozenset(name for name in names if init.freeze_g and level_of(name) <= init.level)
    levels = range(init.level - init.freeze_d + 1, init.level + 1)
    near = [name for name in names if name.startswith(("from_rgb.", "blocks."))]
    return frozenset(name for name in near if level_of(name) in levels)


def require_growable(config: Config, image: ImageSpec) -> None:
    """Check that each level can grow out of the one below where networks are morphed; nothing is allocated.

    Raises:
        ConfigError: if one cannot.
    """
    if config.schedule.growth != "morph":
        return
    with torch.device("meta"):
        networks = build_networks(config, image)
    schedule = config.schedule
    first = schedule.start_level + (0 if schedule.start_alpha < 1 else 1)
    for network in networks:
        for level in range(first, network.max_level + 1):
            try:
                require_morphable(network, level)
            except ValueError as error:
                raise ConfigError(str(error)) from None


def require_networks(config: Config, image: ImageSpec) -> None:
    """Try networks of one's own at each level, coming in and whole; nothing is allocated.

    Raises:
        ConfigError: naming the network, the level, and what is wrong.
    """
    classes = (network_class(config, Generator), network_class(config, Discriminator))
    own = [network.__qualname__ for network in classes if network not in (Generator, Discriminator)]
    if not own:
        return
    labels = torch.zeros(4, len(image.label_names), device="meta")
    named = " and ".join(own)
    where = f"{named}: "
    try:
        with torch.device("meta"):
            G, D = build_networks(config, image)
            for level in range(image.max_level + 1):
                where = f"{named}, level {level}: "
                for alpha in (None, torch.zeros(())) if level else (None,):
                    _try_networks(G, D, labels, level, alpha)
    # They are of others, and so are their errors.
    except Exception as error:
        raise ConfigError(f"{where}{type(error).__name__}: {error}") from error


def _try_networks(G: Generator, D: Discriminator, labels: Tensor, level: int, alpha: Tensor | None) -> None:
    """Make images of a level and judge them; a ValueError tells of what has another shape."""
    images = G(torch.zeros(4, G.latent_size), labels, level=level, alpha=alpha)
    wanted = (4, G.channels, *G.resolution(level))
    if images.shape != wanted:
        raise ValueError(f"the generator makes {list(images.shape)} instead of {list(wanted)}")
    scores, _ = D(images, labels, level=level, alpha=alpha)
    if scores.shape != (4,):
        raise ValueError(f"the discriminator's scores are {list(scores.shape)} instead of [4]")


@dataclass
class TrainState:
    """Everything that training changes.

    G_ema is the averaged generator, which lives through growth; the augmenter holds the probability of the
    augmentations, and `interval` what updates have told since the last log point.
    `images_seen` is the clock: real images shown to D. `phase` is the name of the phase of the
    last update, empty before the first.
    """

    G: Generator
    D: Discriminator
    G_ema: Generator
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    augmenter: Augmenter
    images_seen: int = 0
    phase: str = ""
    interval: Interval = field(default_factory=Interval)

    @classmethod
    def create(
        cls, config: Config, image: ImageSpec, device: torch.device, label_examples: Tensor | None = None
    ) -> TrainState:
        """Return the state at clock 0; the weights depend on the seed alone, not on the device.

        Args:
            config: Resolved configuration.
            spec: Shapes.
            device: Where to compute.
            label_examples: [64, label_size], rows of the training set that G keeps for those who use it;
                None for labels of the form `class`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            G, D = build_networks(config, image)
        if label_examples is not None:
            G.label_examples.copy_(label_examples)
        G, D = G.place(device), D.place(device)
        G_ema = copy.deepcopy(G).requires_grad_(False).eval()
        scaling = needs_loss_scaling(config.run.precision)
        return cls(
            G,
            D,
            G_ema,
            Optimizer(G, config.optimizer, loss_scaling=scaling, frozen=frozen(config, G)),
            Optimizer(D, config.optimizer, loss_scaling=scaling, frozen=frozen(config, D)),
            Augmenter(config.augment, device),
        )

    def set_growth(self, level: int, alpha: float) -> None:
        """Note in all three networks how far they have grown."""
        for network in (self.G, self.D, self.G_ema):
            network.set_growth(level, alpha)

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of each part under their names."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "g_optimizer": self.g_optimizer.tensors(),
            "d_optimizer": self.d_optimizer.tensors(),
            "augmenter": self.augmenter.tensors(),
            "interval": self.interval.tensors(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state under a name of its own; they share memory with it."""
        parts = self._parts().items()
        return {f"{part}/{name}": value for part, named in parts for name, value in named.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises:
            KeyError, RuntimeError: if names or shapes are not those of this state.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for entry, value in tensors.items():
            part, name = entry.split("/", 1)
            parts.setdefault(part, {})[name] = value
        for network, part in ((self.G, "G"), (self.D, "D"), (self.G_ema, "G_ema")):
            network.load_state_dict(parts[part])
        self.g_optimizer.load(parts.get("g_optimizer", {}))
        self.d_optimizer.load(parts.get("d_optimizer", {}))
        self.augmenter.load(parts.get("augmenter", {}))
        self.interval.load(parts.get("interval", {}), self.d_optimizer.device)
